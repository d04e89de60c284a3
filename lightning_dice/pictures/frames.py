"""Frames that tell truth from prediction at a glance."""

from typing import Any

from matplotlib.axes import Axes

from lightning_dice.pictures.escaping import LITERAL

COLOURS = {"truth": "dimgray", "CT": "dimgray", "prediction": "purple"}  # of no organ of the paper's


def frame(axis: Axes, what: str, title: str = "", size: float = 9.0) -> None:
    """A frame, and a title on its colour if there is one.

    Args:
        what: of `COLOURS`.
        size: of the title's letters, in points.
    """
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(visible=True, color=COLOURS[what], linewidth=3)
    if title:
        box = {"facecolor": COLOURS[what], "edgecolor": "none", "pad": 2.5}
        look: dict[str, Any] = {"fontsize": size, "color": "white", "bbox": box, **LITERAL}
        axis.set_title(title, **look)
