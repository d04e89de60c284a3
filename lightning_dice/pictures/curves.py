"""Learning curves of a run: loss, and Dice per class, over the iterations."""

from collections import Counter
from collections.abc import Sequence
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
FAINT: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.35, "marker": None, "label": "_"}  # which no legend tells
WINDOWS = 20  # of the smoothing, side by side across a curve
COLOURS_A_DASH = 10  # more lines of one kind cannot be told apart by colour


def learning_curves(table: pd.DataFrame, labels: LabelSet, title: str, least: float | None = None) -> Figure:
    """One run's curves, smoothed over a twentieth of their points where these are many, over the faint points.

    Args:
        table: a run's `metrics.csv`.
        labels: its classes.
        title: over the picture.
        least: the Dice loss of a perfect segmentation; None of any other loss.
    """
    stages = [stage for stage in STAGES if table[f"{stage}/loss"].notna().any()]
    figure = Figure(figsize=(4.2 * (1 + len(stages)), 3.8), layout="constrained")
    axes = figure.subplots(1, 1 + len(stages))
    figure.suptitle(title, **LITERAL)
    draw_loss(axes[0], table)
    axes[0].set(title="Loss", xlabel="iteration", ylabel=loss_axis(least is not None, least))
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


def loss_axis(is_dice: bool, least: float | None = None) -> str:
    """What the axis of a loss is called: the paper's Dice loss is negative, and at best minus the mean weight."""
    if not is_dice:
        return "loss; lower is better"
    value = "" if least is None else f" = {least:.3g}".replace("-", "−")
    return f"loss = −mean(w·Dice), Eq. 6\nlower is better, at best −mean(w){value}"


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


def draw_loss(axis: Axes, table: pd.DataFrame, seeds: Sequence[pd.DataFrame] = ()) -> None:
    """The losses of a run, smoothed over its points; or the mean's of several, over a thin line each."""
    for stage, style, marker in zip(STAGES, ("-", "--"), (None, "o"), strict=True):
        look = {"color": "black", "linestyle": style, "marker": marker, "markersize": 3}
        if table[f"{stage}/loss"].notna().any():
            _draw(axis, f"{stage}/loss", table, seeds, look | {"label": f"loss, {STAGES[stage]}"})
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))  # the square weights make it tiny
    _plain_axis(axis)


def draw_dice(
    axis: Axes, table: pd.DataFrame, labels: LabelSet, stage: str, seeds: Sequence[pd.DataFrame] = ()
) -> None:
    """The classes' Dice, likewise."""
    for label, dash in zip(labels.labels, dashes(labels), strict=True):
        look = {"color": label.colour, "linestyle": DASHES[dash], "marker": "." if stage == "val" else None}
        _draw(axis, f"{stage}/dice/{label.name}", table, seeds, look | {"label": label.name})
    _plain_axis(axis)


def _draw(axis: Axes, column: str, table: pd.DataFrame, seeds: Sequence[pd.DataFrame], look: dict[str, Any]) -> None:
    curve, behind = curve_of(column, table, seeds)
    for line in behind:
        axis.plot(line, **look | FAINT)
    axis.plot(curve, linewidth=1.2, **look)


def curve_of(column: str, table: pd.DataFrame, seeds: Sequence[pd.DataFrame]) -> tuple[pd.Series, list[pd.Series]]:
    """A column by step, smoothed, and what is faint behind it: the same of each seed, or without seeds its own points
    if they are another curve."""
    points = _points(table, column)
    curve = smoothed(points)
    return curve, [smoothed(_points(one, column)) for one in seeds] or ([] if curve.equals(points) else [points])


def _points(table: pd.DataFrame, column: str) -> pd.Series:
    """By step."""
    return table.set_index("step")[column].dropna()


def smoothed(points: pd.Series) -> pd.Series:
    """The mean over a window around each point; few points stay as they are."""
    return points.rolling(1 + len(points) // WINDOWS // 2 * 2, center=True, min_periods=1).mean()


def _plain_axis(axis: Axes) -> None:
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
