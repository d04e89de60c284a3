"""The paper's Figure 1: learning curves of all cells of a grid."""

import textwrap
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from lightning_dice.paper.grid import Cell
from lightning_dice.paper.published import WEIGHTINGS
from lightning_dice.pictures.curves import STAGES, draw_dice, draw_loss, loss_axis
from lightning_dice.pictures.escaping import LITERAL
from lightning_dice.pictures.legend import lower_legend

TITLE_WIDTH = 32  # characters over a panel


def grid_curves(cells: Sequence[Cell]) -> Figure:
    """A panel per cell: its loss, and its Dice for training and validation, on axes that the panels share.

    The loss has a scale of its own in each panel, since the weights differ by orders of magnitude. Of several seeds
    their mean is drawn over a thin line each, all smoothed; of one, the smoothed curve over its points.
    """
    figure = Figure(figsize=(2.6 * len(cells) + 1, 6.6), layout="constrained")
    axes = figure.subplots(3, len(cells), sharex=True, squeeze=False)
    for cell, panel in zip(cells, axes.T, strict=True):
        title = textwrap.fill(f"{cell.loss}, learning rate {cell.setting}", TITLE_WIDTH)
        panel[0].set_title(title, fontsize=9, y=1.06, **LITERAL)  # in one line, over the axes' powers of ten
        if cell.runs:
            mean, of_seeds = mean_curves(cell)
            draw_loss(panel[0], mean, of_seeds)
            for axis, stage in zip(panel[1:], STAGES, strict=True):
                draw_dice(axis, mean, cell.labels, stage, of_seeds)
        else:
            what = "broken or left out" if cell.left_out else "missing"
            panel[1].text(0.5, 0.5, what, ha="center", va="center", transform=panel[1].transAxes)
        for axis in panel:
            axis.tick_params(labelsize=7)
            axis.yaxis.get_offset_text().set_fontsize(7)
        for axis in panel[1:]:
            axis.set_ylim(0, 1.01)
        panel[-1].set_xlabel("iteration", fontsize=8)
    loss = loss_axis(all(cell.loss in WEIGHTINGS for cell in cells if cell.runs))
    for axis, text in zip(axes[:, 0], (loss, *(f"Dice, {where}" for where in STAGES.values())), strict=True):
        axis.set_ylabel(text, fontsize=8)
    handles = {handle.get_label(): handle for axis in axes[:2].flat for handle in axis.get_legend_handles_labels()[0]}
    lower_legend(figure, list(handles.values()), 8)
    return figure


def has_curves(cells: Sequence[Cell]) -> bool:
    """Scores that were read from a report's archive have none."""
    return any(len(run.metrics) for cell in cells for run in cell.runs)


def mean_curves(cell: Cell) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """The mean of the curves of a cell's finished seeds, or of all until one is finished; and, if they are several,
    those of each seed. Tables as a run's `metrics.csv`; the cell has at least one run."""
    tables = [run.metrics for run in cell.runs]
    done = [run.metrics for run in cell.runs if run.is_done] or tables
    if len(tables) == 1:
        return tables[0], []
    return pd.concat(done).groupby("step", as_index=False).mean(), tables
