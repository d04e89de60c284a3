"""Learning curves, the paper's Figure 1: loss and Dice per class over the iterations, of one run or of a grid."""

import textwrap
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_dice.data.seven import LABELS
from lightning_dice.paper.escaping import LITERAL
from lightning_dice.paper.grid import Cell

TITLE_WIDTH = 32  # characters over a panel of the grid
STAGES = {"train": "training patches", "val": "validation volumes"}


def learning_curves(table: pd.DataFrame, title: str) -> Figure:
    """One run's curves.

    Args:
        table: a run's `metrics.csv`.
        title: over the picture.
    """
    stages = [stage for stage in STAGES if table[f"{stage}/loss"].notna().any()]
    figure = Figure(figsize=(4.2 * (1 + len(stages)), 3.8), layout="constrained")
    axes = figure.subplots(1, 1 + len(stages))
    figure.suptitle(title, **LITERAL)
    _draw_loss(axes[0], table)
    axes[0].set(title="Loss", xlabel="iteration", ylabel="weighted Dice loss")
    axes[0].legend(frameon=False)
    for axis, stage in zip(axes[1:], stages, strict=True):
        _draw_dice(axis, table, stage)
        axis.set(title=f"Dice, {STAGES[stage]}", xlabel="iteration", ylim=(0, 1.01))
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def grid_curves(cells: Sequence[Cell]) -> Figure:
    """A panel per cell: its loss, and its Dice for training and validation, on axes that the panels share.

    The loss has a scale of its own in each panel, since the weights differ by orders of magnitude. Of several seeds the
    first is drawn.
    """
    figure = Figure(figsize=(2.6 * len(cells) + 1, 6.6), layout="constrained")
    axes = figure.subplots(3, len(cells), sharex=True, squeeze=False)
    for cell, panel in zip(cells, axes.T, strict=True):
        title = textwrap.fill(f"{cell.loss}, learning rate {cell.setting}", TITLE_WIDTH)
        panel[0].set_title(title, fontsize=9, **LITERAL)
        if cell.runs:
            _draw_loss(panel[0], cell.runs[0].metrics)
            for axis, stage in zip(panel[1:], STAGES, strict=True):
                _draw_dice(axis, cell.runs[0].metrics, stage)
        else:
            what = "broken or left out" if cell.left_out else "missing"
            panel[1].text(0.5, 0.5, what, ha="center", va="center", transform=panel[1].transAxes)
        for axis in panel:
            axis.tick_params(labelsize=7)
        for axis in panel[1:]:
            axis.set_ylim(0, 1.01)
        panel[-1].set_xlabel("iteration", fontsize=8)
    for axis, text in zip(
        axes[:, 0], ("weighted Dice loss", *(f"Dice, {where}" for where in STAGES.values())), strict=True
    ):
        axis.set_ylabel(text, fontsize=8)
    handles: dict[str, object] = {}
    for axis in axes[:2].flat:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=10, frameon=False, fontsize=8)
    return figure


def _draw_loss(axis: Axes, table: pd.DataFrame) -> None:
    for stage, style in zip(STAGES, ("-", "o--"), strict=True):
        points = table[["step", f"{stage}/loss"]].dropna()
        if len(points):
            axis.plot(*points.to_numpy().T, style, color="black", label=f"loss, {STAGES[stage]}", markersize=3)
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))  # the square weights make it tiny
    _plain_axis(axis)


def _draw_dice(axis: Axes, table: pd.DataFrame, stage: str) -> None:
    for label in LABELS:
        points = table[["step", f"{stage}/dice/{label.name}"]].dropna()
        colour = tuple(channel / 255 for channel in label.colour)
        axis.plot(*points.to_numpy().T, color=colour, label=label.name, marker="." if stage == "val" else None, lw=1.2)
    _plain_axis(axis)


def _plain_axis(axis: Axes) -> None:
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
