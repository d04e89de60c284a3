"""CT slices with truth and prediction side by side, after the top rows of the paper's Figures 2 to 4."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lightning_dice.data.seven import BACKGROUND, LABELS, NUM_CLASSES
from lightning_dice.paper.escaping import LITERAL

SOFT_TISSUE_HU = (-160.0, 240.0)
PLANES = {"axial": 2, "coronal": 1}
COLOURS = ListedColormap([(*(channel / 255 for channel in label.colour), float(label.index > 0)) for label in LABELS])


@dataclass(frozen=True)
class Pictured:
    """What one row shows: HU, truth and prediction, all (X, Y, Z) in RAS+, and the voxel size in mm.

    A scan of which nobody knows the truth has none.
    """

    case: str
    hu: np.ndarray
    truth: np.ndarray | None
    prediction: np.ndarray
    spacing_mm: tuple[float, float, float]


def read_pictured(
    case: str, image: Path, label: Path, prediction: np.ndarray, spacing_mm: Sequence[float], window_hu: Sequence[float]
) -> Pictured:
    """A case of the store with its prediction; the stored image in [0, 1] is brought back to HU, clipped as it is."""
    low, high = window_hu
    hu = np.load(image).astype(np.float32) * (high - low) + low
    return Pictured(case, hu, np.load(label), prediction, tuple(map(float, spacing_mm)))


def slices_figure(rows: Sequence[Pictured], title: str = "") -> Figure:
    """A row per case: truth and prediction on the axial slice, and on the coronal one, that show the most classes.

    Without a truth the CT alone is in its place.
    Patients are seen as radiologists see them: from the feet and from the front, so that their right is on the left.
    """
    figure = Figure(figsize=(12.5, 0.5 + 3.1 * len(rows)), layout="constrained")
    figure.suptitle(title, **LITERAL)
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        for column, plane in enumerate(PLANES):
            shown = {"CT": None} if row.truth is None else {"truth": row.truth}
            place = richest_slice(row.prediction if row.truth is None else row.truth, PLANES[plane])
            for offset, (name, label) in enumerate((shown | {"prediction": row.prediction}).items()):
                axis = line[2 * column + offset]
                draw_slice(axis, row, label, plane, place)
                axis.set_title(f"{row.case}, {plane}: {name}", fontsize=9, **LITERAL)
    organ_legend(figure)
    return figure


def organ_legend(figure: Figure) -> None:
    handles = [Patch(color=COLOURS(label.index), label=label.name) for label in LABELS if label.index != BACKGROUND]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def richest_slice(label: np.ndarray, axis: int) -> int:
    """The slice across `axis` with the most classes in it, and among these the most of the smallest class there."""
    others = tuple(i for i in range(3) if i != axis)
    areas = np.stack([(label == index).sum(axis=others) for index in range(NUM_CLASSES) if index != BACKGROUND])
    classes = (areas > 0).sum(axis=0)
    smallest = np.where(areas > 0, areas, areas.max() + 1).min(axis=0)
    return int(np.lexsort((smallest, classes))[-1])


def draw_slice(axis: Axes, row: Pictured, label: np.ndarray | None, plane: str, place: int) -> None:
    """One slice of the CT, windowed for soft tissue, under a translucent label map if there is one."""
    across = PLANES[plane]
    width, height = (size for i, size in enumerate(row.spacing_mm) if i != across)

    def view(array: np.ndarray) -> np.ndarray:
        # Up is anterior or superior, left is the patient's right.
        return np.take(array, place, axis=across).T[::-1, ::-1]

    shown = {"aspect": height / width, "interpolation": "nearest"}
    axis.imshow(view(row.hu), cmap="gray", vmin=SOFT_TISSUE_HU[0], vmax=SOFT_TISSUE_HU[1], **shown)
    if label is not None:
        axis.imshow(view(label), cmap=COLOURS, vmin=0, vmax=NUM_CLASSES - 1, alpha=0.55, **shown)
    axis.set_axis_off()
