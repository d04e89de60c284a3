"""Learning curves of a run: loss, and Dice per class, over the iterations."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_dice.data.labels import LabelSet
from lightning_dice.pictures.escaping import LITERAL
from lightning_dice.pictures.legend import MOST_TOLD, lower_legend

STAGES = {"train": "training patches", "val": "validation volumes"}
# By plotly's names, and as matplotlib has them.
DASHES = {
    "solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (9, 3)), "longdashdot": (0, (9, 3, 1, 3)),
}  # fmt: skip
NORMAL: Mapping[str, Any] = {"linewidth": 1.2}
FAINT: Mapping[str, Any] = {"linewidth": 0.6, "alpha": 0.35, "marker": None, "label": "_"}  # which no legend tells
COLOURS_A_DASH = 10  # more lines of one kind cannot be told apart by colour


def learning_curves(table: pd.DataFrame, labels: LabelSet, title: str) -> Figure:
    """One run's curves.

    Args:
        table: a run's `metrics.csv`.
        labels: its classes.
        title: over the picture.
    """
    stages = [stage for stage in STAGES if table[f"{stage}/loss"].notna().any()]
    figure = Figure(figsize=(4.2 * (1 + len(stages)), 3.8), layout="constrained")
    axes = figure.subplots(1, 1 + len(stages))
    figure.suptitle(title, **LITERAL)
    draw_loss(axes[0], table)
    axes[0].set(title="Loss", xlabel="iteration", ylabel="weighted Dice loss")
    axes[0].legend(frameon=False)
    for axis, stage in zip(axes[1:], stages, strict=True):
        draw_dice(axis, table, labels, stage)
        axis.set(title=f"Dice, {STAGES[stage]}", xlabel="iteration", ylim=(0, 1.01))
    handles = axes[1].get_legend_handles_labels()[0]
    if len(labels.organs) > MOST_TOLD:
        lower_legend(figure, handles)
    else:
        figure.legend(handles=handles, loc="outside right center", frameon=False)
    return figure


def dashes(labels: LabelSet) -> list[str]:
    """Of the classes' curves, by plotly's names: solid for the first ten colours, dashed for the next ten, and so on;
    and another one each time that a colour comes again."""
    colours = list(dict.fromkeys(label.rgb for label in labels.labels))
    used: Counter[tuple[int, int, int]] = Counter()
    found = []
    for label in labels.labels:
        place = colours.index(label.rgb) // COLOURS_A_DASH + used[label.rgb]
        found.append(list(DASHES)[place % len(DASHES)])
        used[label.rgb] += 1
    return found


def draw_loss(axis: Axes, table: pd.DataFrame, look: Mapping[str, Any] = NORMAL) -> None:
    for stage, style, marker in zip(STAGES, ("-", "--"), (None, "o"), strict=True):
        points = table[["step", f"{stage}/loss"]].dropna()
        if len(points):
            own: dict[str, Any] = {"color": "black", "linestyle": style, "marker": marker, "markersize": 3}
            axis.plot(*points.to_numpy().T, **({"label": f"loss, {STAGES[stage]}"} | own | dict(look)))
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))  # the square weights make it tiny
    _plain_axis(axis)


def draw_dice(axis: Axes, table: pd.DataFrame, labels: LabelSet, stage: str, look: Mapping[str, Any] = NORMAL) -> None:
    for label, dash in zip(labels.labels, dashes(labels), strict=True):
        points = table[["step", f"{stage}/dice/{label.name}"]].dropna()
        own: dict[str, Any] = {
            "color": label.colour,
            "linestyle": DASHES[dash],
            "marker": "." if stage == "val" else None,
            "label": label.name,
        }
        axis.plot(*points.to_numpy().T, **(own | dict(look)))
    _plain_axis(axis)


def _plain_axis(axis: Axes) -> None:
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
