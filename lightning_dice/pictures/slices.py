"""CT slices with truth and prediction side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from lightning_dice.data.labels import LabelSet
from lightning_dice.pictures.escaping import LITERAL
from lightning_dice.pictures.frames import frame
from lightning_dice.pictures.legend import organ_legend

SOFT_TISSUE_HU = (-160.0, 240.0)
PLANES = {"axial": 2, "coronal": 1}


@dataclass(frozen=True)
class Pictured:
    """What one row shows: HU, truth and prediction, all (X, Y, Z) in RAS+, the voxel size in mm, and the classes.

    A scan of which nobody knows the truth has none.
    """

    case: str
    hu: np.ndarray
    truth: np.ndarray | None
    prediction: np.ndarray
    spacing_mm: tuple[float, float, float]
    labels: LabelSet


def read_pictured(
    case: str,
    image: Path,
    label: Path,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    window_hu: Sequence[float],
    labels: LabelSet,
) -> Pictured:
    """A case of the store with its prediction; the stored image in [0, 1] is brought back to HU, clipped as it is."""
    low, high = window_hu
    hu = np.load(image).astype(np.float32) * (high - low) + low
    x, y, z = map(float, spacing_mm)
    return Pictured(case, hu, np.load(label), prediction, (x, y, z), labels)


def slices_figure(rows: Sequence[Pictured], title: str = "") -> Figure:
    """A row per case: truth and prediction on the axial slice, and on the coronal one, that show the most classes.

    Args:
        rows: of the same classes, at least one.
        title: over the picture.


    Without a truth the CT alone is in its place.
    Patients are seen as radiologists see them: from the feet and from the front, so that their right is on the left.
    """
    figure = Figure(figsize=(12.5, 0.5 + 3.1 * len(rows)), layout="constrained")
    figure.suptitle(title, **LITERAL)
    axes = figure.subplots(len(rows), 4, squeeze=False)
    drawn: set[int] = set()
    for row, line in zip(rows, axes, strict=True):
        for column, plane in enumerate(PLANES):
            shown = {"CT": None} if row.truth is None else {"truth": row.truth}
            place = richest_slice(row.prediction if row.truth is None else row.truth, PLANES[plane])
            for offset, (name, label) in enumerate((shown | {"prediction": row.prediction}).items()):
                axis = line[2 * column + offset]
                drawn |= draw_slice(axis, row, label, plane, place)
                frame(axis, name, f"{row.case}, {plane}: {name}")
    organ_legend(figure, rows[0].labels, drawn)
    return figure


def richest_slice(label: np.ndarray, axis: int) -> int:
    """The slice across `axis` with the most classes in it, and among these the most of the smallest class there."""
    counts = [np.bincount(plane.ravel(), minlength=int(label.max()) + 2) for plane in np.moveaxis(label, axis, 0)]
    areas = np.stack(counts)[:, 1:]  # (slices, organs)
    classes = (areas > 0).sum(axis=1)
    smallest = np.where(areas > 0, areas, areas.max() + 1).min(axis=1)
    return int(np.lexsort((smallest, classes))[-1])


def draw_slice(axis: Axes, row: Pictured, label: np.ndarray | None, plane: str, place: int) -> set[int]:
    """One slice of the CT, windowed for soft tissue, under a translucent label map if there is one; its classes."""
    across = PLANES[plane]
    width, height = (size for i, size in enumerate(row.spacing_mm) if i != across)

    def view(array: np.ndarray) -> np.ndarray:
        # Up is anterior or superior, left is the patient's right.
        return np.take(array, place, axis=across).T[::-1, ::-1]

    shown: dict[str, Any] = {"aspect": height / width, "interpolation": "nearest"}
    axis.imshow(view(row.hu), cmap="gray", vmin=SOFT_TISSUE_HU[0], vmax=SOFT_TISSUE_HU[1], **shown)
    axis.set_axis_off()
    if label is None:
        return set()
    colours = ListedColormap([(*np.divide(organ.rgb, 255), float(i > 0)) for i, organ in enumerate(row.labels.labels)])
    axis.imshow(view(label), cmap=colours, vmin=0, vmax=len(row.labels) - 1, alpha=0.55, **shown)
    return set(np.unique(view(label)).tolist())
