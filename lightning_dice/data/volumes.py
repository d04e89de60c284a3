"""File → oriented, downsampled, windowed array."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy.ndimage import affine_transform, gaussian_filter

from lightning_dice.data.cases import Case, LabelFile
from lightning_dice.data.labels import BACKGROUND
from lightning_dice.data.scans import Scan, read_scan
from lightning_dice.errors import InputError

AFFINE_TOLERANCE_MM = 0.01  # headers round: NIfTI keeps float32, and quaternions lose a little more
SPACING_TOLERANCE = 1e-3  # relative; a volume this close to the wanted spacing is left as it is


@dataclass(frozen=True)
class Preparation:
    """How a CT becomes the network's input. Orientation is always RAS+, classes are never interpolated.

    Args:
        factor: keep each `factor`-th voxel of every axis, image and label alike, as the paper's group does; None to use
            `spacing_mm`.
        spacing_mm: resample to this voxel size instead, one number or one per RAS axis, for data of mixed scanners:
            linear for the image, nearest neighbour for the label. A volume that has it already is left as it is.
        window_hu: clipped to this window and scaled to [0, 1].
        smooth: Gaussian filter before downsampling, sigma half the new voxel minus half the old one, against aliasing.

    Raises:
        InputError: both or neither of factor and spacing_mm, or a value that is out of range.
    """

    factor: int | None = 4
    spacing_mm: float | Sequence[float] | None = None
    window_hu: tuple[float, float] = (-500.0, 500.0)
    smooth: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "window_hu", tuple(float(bound) for bound in self.window_hu)
        )  # a list from a YAML file
        if (self.factor is None) == (self.spacing_mm is None):
            raise InputError(
                f"factor={self.factor} and spacing_mm={self.spacing_mm}: give one of them, and null for the other"
            )
        if self.factor is not None and self.factor < 1:
            raise InputError(f"factor={self.factor}: expected an integer from 1, such as the paper's 4")
        if self.spacing_mm is not None:
            lengths = np.atleast_1d(self.spacing_mm).astype(float)
            if len(lengths) not in (1, 3) or not (lengths > 0).all():
                raise InputError(f"spacing_mm={self.spacing_mm}: expected one or three lengths above 0")
            object.__setattr__(self, "spacing_mm", tuple(np.broadcast_to(lengths, 3).tolist()))
        if len(self.window_hu) != 2 or not self.window_hu[0] < self.window_hu[1]:
            raise InputError(f"window_hu={list(self.window_hu)}: expected [low, high], such as [-500, 500]")


@dataclass(frozen=True)
class Volume:
    """A prepared case: image float16 in [0, 1] and label uint8, both (X, Y, Z) in RAS+, and the affine (4, 4) in mm."""

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray


def read_volume(case: Case, preparation: Preparation) -> Volume:
    """Read a case's files and prepare them.

    Raises:
        InputError: a file that cannot be read, an image that is not 3D, a label on another grid, a label value that is
            not declared, or voxels that are not finite. The line names the case and the file.
    """
    scan = _read(case.id, case.image)
    hu, affine = scan.voxels, scan.affine
    if hu.dtype.kind == "f" and not np.isfinite(hu).all():
        count = np.count_nonzero(~np.isfinite(hu))
        raise InputError(f"{case.id}: {case.image}: {count} voxels are NaN or infinite; expected HU, mend the file")
    image, grid = prepare_image(hu, affine, preparation)
    label, _ = _downsample(*to_ras(_read_label(case, hu.shape, affine), affine), preparation, order=0)
    return Volume(image, np.ascontiguousarray(label), grid)


def prepare_image(hu: np.ndarray, affine: np.ndarray, preparation: Preparation) -> tuple[np.ndarray, np.ndarray]:
    """Orient, downsample and window a scan (X, Y, Z) with its affine: float16 in [0, 1], RAS+, and the new affine."""
    image, grid = _downsample(*to_ras(hu, affine), preparation, order=1)
    low, high = preparation.window_hu
    scaled = (np.clip(image.astype(np.float32), low, high) - low) / (high - low)
    return np.ascontiguousarray(scaled, np.float16), grid


def spacing_mm(affine: np.ndarray) -> tuple[float, float, float]:
    """The voxel size along the three axes in mm."""
    return tuple(float(size) for size in voxel_sizes(affine))


def _read(case_id: str, path: Path) -> Scan:
    try:
        return read_scan(path)
    except InputError as error:
        raise InputError(f"{case_id}: {error}") from None


def _read_label(case: Case, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Our classes, uint8 (X, Y, Z), on the image's grid."""
    label = np.full(shape, BACKGROUND, dtype=np.uint8)
    for file in case.labels:
        scan = _read(case.id, file.path)
        values, label_affine = scan.voxels, scan.affine
        if values.shape != shape:
            raise InputError(
                f"{case.id}: {file.path}: has the shape {values.shape} and its image {shape}; "
                "expected the image's grid, resave the label on it"
            )
        if not np.allclose(label_affine, affine, atol=AFFINE_TOLERANCE_MM):
            raise InputError(
                f"{case.id}: {file.path}: its affine differs from the image's by up to "
                f"{np.abs(label_affine - affine).max():.3g} mm; expected the image's grid, resave the label on it"
            )
        _paint(label, values, case.id, file)
    return label


def _paint(label: np.ndarray, values: np.ndarray, case_id: str, file: LabelFile) -> None:
    """Write the file's values into `label` as our classes; its background leaves what stands there."""
    declared = dict(file.ids)
    found = pd.unique(values.ravel(order="K")).tolist()  # a hash table: numpy would sort 10^8 voxels
    undeclared = [value for value in found if value not in declared]
    if undeclared:
        raise InputError(
            f"{case_id}: {file.path}: holds the label values {undeclared[:5]}; expected only {sorted(declared)}, "
            "declare or correct them"
        )
    for value in found:
        if declared[value] != BACKGROUND:
            label[values == value] = declared[value]


def to_ras(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flip and permute the axes so that they run to the right, anterior and superior, as nearly as they can."""
    turn = io_orientation(affine)
    return apply_orientation(data, turn), affine @ inv_ornt_aff(turn, data.shape)


def from_ras(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Turn an array that `to_ras` would give back into the order of the scan that has this affine."""
    return apply_orientation(data, ornt_transform(axcodes2ornt("RAS"), io_orientation(affine)))


def prepared_step(affine: np.ndarray, preparation: Preparation) -> np.ndarray:
    """Scan voxels from one prepared voxel to the next, along each RAS axis (3,), of a scan in that orientation.

    The first voxels of both grids coincide.
    """
    if preparation.factor is not None:
        return np.full(3, float(preparation.factor))
    step = np.array(preparation.spacing_mm) / spacing_mm(affine)
    return np.ones(3) if np.allclose(step, 1, atol=SPACING_TOLERANCE) else step


def _downsample(
    data: np.ndarray, affine: np.ndarray, preparation: Preparation, order: int
) -> tuple[np.ndarray, np.ndarray]:
    """By striding or by resampling; order 1 is for images (linear), 0 for labels (nearest neighbour)."""
    step = prepared_step(affine, preparation)
    if (step == 1).all():
        return data, affine
    if preparation.smooth and order:
        data = gaussian_filter(data.astype(np.float32), sigma=np.maximum(step - 1, 0) / 2)
    grid = affine @ np.diag([*step, 1.0])
    if preparation.factor is not None:
        return data[(slice(None, None, preparation.factor),) * 3], grid
    shape = tuple(int(size) for size in np.ceil(np.array(data.shape) / step - SPACING_TOLERANCE))
    dtype = np.float32 if order else np.uint8
    return affine_transform(data.astype(dtype), step, output_shape=shape, order=order, mode="nearest"), grid
