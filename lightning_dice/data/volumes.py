"""File → oriented, downsampled, windowed array."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy.ndimage import affine_transform, gaussian_filter

from lightning_dice.data.cases import Case
from lightning_dice.data.integrity import (
    ERROR,
    CaseCheck,
    Finding,
    check_grid,
    check_image,
    check_values,
    content_hash,
    unreadable,
)
from lightning_dice.data.labels import BACKGROUND, LabelSet
from lightning_dice.data.organs import check_organs
from lightning_dice.data.scans import Scan, read_scan
from lightning_dice.errors import InputError

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
class LabelledScan:
    """A case on its own grid: image (X, Y, Z) in HU, class indices (uint8, likewise), and the affine (4, 4) in mm."""

    hu: np.ndarray
    label: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Volume:
    """A prepared case: image float16 in [0, 1] and label uint8, both (X, Y, Z) in RAS+, and the affine (4, 4) in mm."""

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray


def read_case(case: Case, labels: LabelSet) -> tuple[LabelledScan | None, CaseCheck]:
    """Read each file of a case once, label files if one of the classes may be in them, and look at what they hold.

    Returns:
        The case on its own grid, None when an error was found; and all that was found.
    """
    findings: list[Finding] = []
    image = _try(case.id, case.image, findings)
    if image:
        findings += check_image(case, image.voxels, image.affine)
        label = np.full_like(image.voxels, BACKGROUND, dtype=np.uint8)  # in the files' order, for speed
    for file in case.labels:
        indices = file.indices(labels)
        if not any(indices.values()):
            continue
        truth = _try(case.id, file.path, findings)
        if not truth:
            continue
        found = pd.unique(truth.voxels.ravel(order="K")).tolist()  # a hash table: numpy would sort 10^8 voxels
        problems = [*check_values(case.id, file, found)]
        if image:
            grids = truth.voxels.shape, truth.affine, image.voxels.shape, image.affine
            problems += check_grid(case.id, file.path, *grids)
            if not problems:
                _paint(label, truth.voxels, found, indices)
        findings += problems
    is_sound = all(finding.level != ERROR for finding in findings)
    if image and is_sound:
        findings += check_organs(case, labels, image.voxels, label, image.affine)
    check = CaseCheck(
        case.id,
        str(case.image),
        tuple(findings),
        image_sha256=content_hash(image.voxels) if image else "",
        label_sha256=content_hash(label) if is_sound and label.any() else "",
    )
    return LabelledScan(image.voxels, label, image.affine) if image and is_sound else None, check


def prepare_volume(scan: LabelledScan, preparation: Preparation) -> Volume:
    """Orient, downsample and window."""
    image, grid = prepare_image(scan.hu, scan.affine, preparation)
    label, _ = _downsample(*to_ras(scan.label, scan.affine), preparation, order=0)
    return Volume(image, np.ascontiguousarray(label), grid)


def prepare_image(hu: np.ndarray, affine: np.ndarray, preparation: Preparation) -> tuple[np.ndarray, np.ndarray]:
    """Orient, downsample and window a scan (X, Y, Z) with its affine: float16 in [0, 1], RAS+, and the new affine."""
    image, grid = _downsample(*to_ras(hu, affine), preparation, order=1)
    low, high = preparation.window_hu
    scaled = (np.clip(image.astype(np.float32), low, high) - low) / (high - low)
    return np.ascontiguousarray(scaled, np.float16), grid


def spacing_mm(affine: np.ndarray) -> tuple[float, float, float]:
    """The voxel size along the three axes in mm."""
    x, y, z = voxel_sizes(affine).tolist()
    return x, y, z


def _try(case_id: str, path: Path, findings: list[Finding]) -> Scan | None:
    """The scan in a file, or None and a finding."""
    try:
        return read_scan(path)
    except InputError as problem:
        findings.append(unreadable(case_id, path, problem))
        return None


def _paint(label: np.ndarray, values: np.ndarray, found: Sequence[float], indices: Mapping[int, int]) -> None:
    """Write a file's values into `label` as classes; its background leaves what stands there."""
    for value in found:
        if (index := indices[int(value)]) != BACKGROUND:
            label[values == value] = index


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
