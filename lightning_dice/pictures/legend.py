"""Legends that lie within their figure, however many classes there are."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath

from lightning_dice.data.labels import BACKGROUND, LabelSet

MOST_TOLD = 10  # organs that a legend lists whether or not they are in the picture
MANY = 30  # entries, beyond which they are smaller
HANDLE_LENGTH = 3.0  # in ems, enough to tell dashes
HANDLE_EMS = HANDLE_LENGTH + 2.8  # of an entry beside its text: space behind the handle 0.8, between columns 2
LINE_EMS = 1.8


def organ_legend(figure: Figure, labels: LabelSet, drawn: Iterable[int]) -> None:
    """Of all organs if they are few, else of those that are drawn, given by their indices."""
    told = range(len(labels)) if len(labels.organs) <= MOST_TOLD else sorted(set(drawn))
    organs = [labels.labels[index] for index in told if index != BACKGROUND]
    if organs:
        lower_legend(figure, [Patch(color=label.colour, label=label.name) for label in organs])


def lower_legend(figure: Figure, handles: Sequence[Artist], size: float = 10.0) -> None:
    """A legend at the bottom, in as many columns as fit; for its further lines the figure grows.

    Args:
        figure: in constrained layout.
        handles: with their labels, at least one.
        size: of the letters, in points.
    """
    size = size if len(handles) <= MANY else min(size, 7.0)
    texts = [TextPath((0, 0), str(handle.get_label()), size=size).get_extents().width for handle in handles]
    widths = np.array(texts) + HANDLE_EMS * size
    room = 72 * figure.get_figwidth() - 2 * size
    fitting = (n for n in range(len(handles), 1, -1) if sum(map(max, np.array_split(widths, n))) <= room)
    columns = next(fitting, 1)
    lines = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + (lines - 1) * LINE_EMS * size / 72)
    look = {"ncols": columns, "fontsize": size, "handlelength": HANDLE_LENGTH, "frameon": False}
    figure.legend(handles=handles, loc="outside lower center", **look)
