"""Learning curves, the paper's Figure 1: loss and Dice per class over the iterations."""

import pandas as pd
from matplotlib.figure import Figure

from lightning_dice.data.labels import LABELS

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
    figure.suptitle(title)
    for stage, style in zip(STAGES, ("-", "o--"), strict=True):
        points = table[["step", f"{stage}/loss"]].dropna()
        if len(points):
            axes[0].plot(*points.to_numpy().T, style, color="black", label=STAGES[stage], markersize=4)
    axes[0].set(title="Loss", xlabel="iteration", ylabel="weighted Dice loss")
    axes[0].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))  # the square weights make it tiny
    axes[0].legend(frameon=False)
    for axis, stage in zip(axes[1:], stages, strict=True):
        for label in LABELS:
            points = table[["step", f"{stage}/dice/{label.name}"]].dropna()
            colour = tuple(channel / 255 for channel in label.colour)
            axis.plot(*points.to_numpy().T, color=colour, label=label.name, marker="." if stage == "val" else None)
        axis.set(title=f"Dice, {STAGES[stage]}", xlabel="iteration", ylim=(0, 1.01))
    handles, names = axes[-1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
