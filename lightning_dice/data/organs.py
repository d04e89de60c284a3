"""Organs of a label map that are not as organs are, drawn by somebody or predicted: warnings, never errors."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from nibabel.affines import voxel_sizes
from scipy.ndimage import find_objects
from scipy.ndimage import label as connected

from lightning_dice.data.cases import Case
from lightning_dice.data.integrity import WARNING, Finding, height_mm
from lightning_dice.data.labels import Label, LabelSet

# Beyond these is air, lung or bone. Noise of 150 HU, more than any diagnostic scan has, takes 5 % of a liver beyond.
TISSUE_HU = (-200.0, 400.0)
MOST_OTHER = 0.1
TALLEST_MM = 350.0  # of these organs; from the diaphragm to the pelvis, where enlarged livers and spleens reach
PIECE_MM = 3.0  # what is as close together is one piece; it also keeps the array small that they are counted in
SAMPLE = 10**7  # voxels of an organ that its HU are taken from
ABDOMEN_MM = 200.0  # from the top of the liver to the lower end of the pancreas, and a little more


def check_organs(
    case: Case, labels: LabelSet, hu: np.ndarray, label: np.ndarray, affine: np.ndarray, how: str = "labelled"
) -> Iterator[Finding]:
    """Warnings: no organ at all, organs on the wrong sides, an organ of implausible volume, HU, height, or in pieces.

    Only organs that the case's label files declare are looked at, for what the label set says of them. An organ that
    the scan cuts may be smaller than others. In situs inversus, which one in ten thousand has, the liver is on the
    left.

    Args:
        hu: (X, Y, Z).
        label: class indices, uint8 of the same shape.
        affine: (4, 4), from voxels to mm in RAS+.
        how: the organs came about: labelled or predicted.
    """
    files = {index: str(file.path) for file in case.labels for index in file.indices(labels).values() if index}
    if label.flags.f_contiguous:  # as a NIfTI file has it; in the order of memory all of this is several times as fast
        hu, label, affine = hu.T, label.T, affine[:, [2, 1, 0, 3]]
    boxes = find_objects(label, max_label=len(labels) - 1)
    if not any(boxes):
        expected = "an organ, leave the case out or label it" if how == "labelled" else "an organ, look at the scan"
        yield Finding(case.id, str(case.labels[0].path), WARNING, "empty", "holds only background", expected)
        return
    right_mm: dict[str, dict[int, float]] = {"right": {}, "left": {}}  # of the centroids of organs that have a side
    for index, (organ, box) in enumerate(zip(labels.organs, boxes, strict=True), start=1):
        if box is None or index not in files:
            continue
        mask = label[box] == index
        if organ.side:
            right_mm[organ.side][index] = float(affine[0] @ [*_centroid(mask, box), 1])
        is_cut = any(side.start == 0 or side.stop == size for side, size in zip(box, label.shape, strict=True))
        for check, value, expected in _implausible(organ, mask, hu[box], affine, is_cut):
            yield Finding(case.id, files[index], WARNING, check, f"its {how} {organ.name} {value}", expected)
    for (right, of_right), (left, of_left) in itertools.product(right_mm["right"].items(), right_mm["left"].items()):
        if of_right <= of_left:
            one, other = labels.names[right], labels.names[left]
            value = f"its {how} {one} is {of_left - of_right:.0f} mm to the left of its {other}"
            expected = f"the {one} on the patient's right, see whether the scan is mirrored or sides are swapped"
            yield Finding(case.id, files[right], WARNING, "left-right", value, expected)
            return  # in a mirrored scan it is so of all pairs


def check_missing(
    case: Case, labels: LabelSet, voxels: Sequence[int], shape: Sequence[int], affine: np.ndarray
) -> Iterator[Finding]:
    """A warning about organs that were not predicted in a scan that is tall enough to hold them all, if any was.

    Args:
        case: its label file is the prediction.
        labels: what the network knows.
        voxels: of each class.
        shape: of the scan, with its affine (4, 4) in mm.
    """
    missing = [name for name, count in zip(labels.names, voxels, strict=True) if not count]
    height = height_mm(shape, affine)
    if missing and sum(voxels[1:]) and height >= ABDOMEN_MM:
        value = f"has no predicted {', '.join(missing)}"
        expected = f"all organs in a scan {height:.0f} mm tall, unless one was removed or lies outside"
        yield Finding(case.id, str(case.labels[0].path), WARNING, "missing organ", value, expected)


def _implausible(
    organ: Label, mask: np.ndarray, hu: np.ndarray, affine: np.ndarray, is_cut: bool
) -> Iterator[tuple[str, str, str]]:
    """What was looked at, found and expected of an organ, given in its box."""
    count = int(np.count_nonzero(mask))
    low, high = organ.volume_ml or (0.0, np.inf)
    millilitres = count * abs(np.linalg.det(affine[:3, :3])) / 1000
    if not (is_cut or low <= millilitres) or millilitres > high:
        volume = f"{millilitres:.0f}" if millilitres >= 1000 else f"{millilitres:.3g}"
        yield "volume", f"has {volume} mL", f"{low:g} to {high:g} mL, look at it"
    if organ.hu:
        every = (..., slice(None, None, 1 + count // SAMPLE))
        values = hu[every][mask[every]]
        low, high = organ.hu
        median = float(np.median(values))
        other = np.count_nonzero((values < TISSUE_HU[0]) | (values > TISSUE_HU[1])) / len(values)
        if not low <= median <= high:
            yield "organ HU", f"has a median of {median:g} HU", f"{low:g} to {high:g}, see that it lies on the organ"
        elif other > MOST_OTHER:
            within = f"{TISSUE_HU[0]:g} to {TISSUE_HU[1]:g} HU in all but {MOST_OTHER:.0%}"
            yield "organ HU", f"is {other:.0%} air, lung or bone", f"{within}, see that it lies on the organ"
    if organ.largest_piece:
        share, height = _largest_piece(mask, affine)
        if share < organ.largest_piece:
            expected = f"at least {organ.largest_piece:.0%}, look at it"
            yield "pieces", f"is in pieces, and the largest has {share:.0%} of it", expected
        if height > TALLEST_MM:
            yield "height", f"is {height:.0f} mm tall", f"up to {TALLEST_MM:g} mm, look at it"


def _largest_piece(mask: np.ndarray, affine: np.ndarray) -> tuple[float, float]:
    """The share of the voxels that are connected, on a grid of about PIECE_MM, and the height of these in mm."""
    steps = np.clip(PIECE_MM // voxel_sizes(affine), 1, 16).astype(int)  # 16³ voxels are counted in 16 bits
    counts = mask
    for axis, step in enumerate(steps):
        counts = _summed(counts, axis, step)
    pieces, _ = connected(counts, structure=np.ones((3, 3, 3)), output=np.int32)
    voxels = np.bincount(pieces.ravel(), weights=counts.ravel())
    largest = int(voxels.argmax())  # the background has no voxels
    sides = [side.stop - side.start for side in find_objects(pieces, largest)[largest - 1]]
    return voxels[largest] / voxels.sum(), height_mm(sides * steps, affine)


def _summed(counts: np.ndarray, axis: int, step: int) -> np.ndarray:
    """Sums of `step` neighbours along an axis, the last ones of what is left."""
    shape = list(counts.shape)
    shape[axis] = -(-shape[axis] // step)
    sums = np.zeros(shape, np.uint16)
    for first in range(step):
        part = counts[(slice(None),) * axis + (slice(first, None, step),)]
        sums[(slice(None),) * axis + (slice(part.shape[axis]),)] += part
    return sums


def _centroid(mask: np.ndarray, box: tuple[slice, ...]) -> list[float]:
    """In voxels of the volume that the mask's box is cut from."""
    others = ((1, 2), (0, 2), (0, 1))
    return [
        np.average(np.arange(side.start, side.stop), weights=mask.sum(axis=axes))
        for side, axes in zip(box, others, strict=True)
    ]
