"""Mean organ Dice by learning rate, a line per weighting: the figure that the paper lacks."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from lightning_dice.paper.grid import Cell
from lightning_dice.paper.statistics import ORGANS_MEAN
from lightning_dice.paper.variance import seed_means
from lightning_dice.pictures.curves import DASHES
from lightning_dice.pictures.legend import lower_legend

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7")  # told apart by the colour-blind
CURVE = 3  # rates that make a curve, beside which lines of fewer say little
MOST_TICKS = 8  # rates that are told on the axis, all of them


def rate_lines(cells: Sequence[Cell], table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What the figure shows; nothing unless some weighting has scores at two rates. Where some have three or more, only
    these.

    Args:
        cells: of the grid.
        table: `table1.grid_table` of them.

    Returns:
        By weighting, or other loss, with its further settings: `lr, dice, low, high, seeds`, sorted by rate; mean organ
        Dice in percent, its 95 % interval, and a list of the seeds' own.
    """
    means = table[table["row"] == ORGANS_MEAN].set_index("cell")
    rows: dict[str, list[tuple[float, float, float, float, list[float]]]] = {}
    for cell in cells:
        dice, low, high = means.loc[cell.name, ["dice", "low", "high"]].astype(float)
        if pd.notna(dice):
            name = f"{cell.loss}, {cell.variant}" if cell.variant else cell.loss
            rows.setdefault(name, []).append((cell.lr, dice, low, high, list(seed_means(cell).values())))
    most = max(map(len, rows.values()), default=0)
    if most < 2:
        return {}
    least = CURVE if most >= CURVE else 1
    columns = ["lr", "dice", "low", "high", "seeds"]
    return {name: pd.DataFrame(sorted(of), columns=columns) for name, of in rows.items() if len(of) >= least}


def rates_figure(lines: dict[str, pd.DataFrame]) -> Figure:
    """A line per weighting over a logarithmic axis of rates, a point per seed, and the 95 % interval as a band.

    Args:
        lines: `rate_lines`, not empty.
    """
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axis = figure.subplots()
    handles = []
    for number, (name, line) in enumerate(lines.items()):
        colour, dash = OKABE_ITO[number % len(OKABE_ITO)], list(DASHES.values())[number // len(OKABE_ITO) % len(DASHES)]
        rate, mean = line["lr"], line["dice"]
        axis.fill_between(rate, line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
        if len(line) == 1:  # where a band has no width
            axis.vlines(rate, line["low"], line["high"], color=colour, alpha=0.3, linewidth=3)
        label = name.replace("$", r"\$")  # else two of them would begin and end a formula
        handles += axis.plot(rate, mean, color=colour, linestyle=dash, marker="_", markersize=14, label=label)
        seeds = line.explode("seeds")
        axis.plot(seeds["lr"], seeds["seeds"].astype(float), "o", color=colour, fillstyle="none", markersize=5)
    axis.set_xscale("log")
    rates = sorted({rate for line in lines.values() for rate in line["lr"]})
    if len(rates) <= MOST_TICKS:
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.minorticks_off()
    axis.set_xlabel("initial learning rate")
    axis.set_ylabel("mean organ Dice of the test cases in percent")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    lower_legend(figure, handles, 8)
    return figure
