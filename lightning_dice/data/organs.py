"""Organs of a label map that are not as organs are, drawn by somebody or predicted: warnings, never errors."""

from collections.abc import Iterator, Sequence

import numpy as np
from nibabel.affines import voxel_sizes
from scipy.ndimage import find_objects
from scipy.ndimage import label as connected

from lightning_dice.data.cases import Case
from lightning_dice.data.integrity import WARNING, Finding, height_mm
from lightning_dice.data.seven import BACKGROUND, NAMES

# Volumes in mL beyond which an organ is looked at again, generous on both sides of the medians 1238, 188, 401, 12 and
# 82 of the WORD data set (Luo et al. 2022, Medical Image Analysis 82:102642): from about a tenth of them, to what an
# enlarged organ reaches. How much of a vessel is seen depends on the scan's ends.
PLAUSIBLE_ML = {
    "liver": (120.0, 3000.0),  # enlarged to more than twice the median by then: rare, and worth a look
    "spleen": (18.0, 3000.0),
    "stomach": (40.0, 3000.0),
    "gallbladder": (1.0, 300.0),
    "pancreas": (8.0, 400.0),
}
# Median HU of organs that are neither hollow nor ever much fatter than this, with and without contrast.
PLAUSIBLE_HU = {"liver": (-50.0, 300.0), "spleen": (-50.0, 300.0)}
# Beyond these is air, lung or bone. Noise of 150 HU, more than any diagnostic scan has, takes 5 % of a liver beyond.
TISSUE_HU = (-200.0, 400.0)
MOST_OTHER = 0.1
# Share of an organ that its largest piece has at least. Stomach and pancreas are thin in places, where thick slices
# part them, spleens may have a small one beside them, and vessels part anyhow.
LEAST_SHARE = {"liver": 0.8, "spleen": 0.8, "gallbladder": 0.8, "stomach": 0.5, "pancreas": 0.5}
TALLEST_MM = 350.0  # of these organs; from the diaphragm to the pelvis, where enlarged livers and spleens reach
PIECE_MM = 3.0  # what is as close together is one piece; it also keeps the array small that they are counted in
SAMPLE = 10**7  # voxels of an organ that its HU are taken from
ABDOMEN_MM = 200.0  # from the top of the liver to the lower end of the pancreas, and a little more


def check_organs(
    case: Case, hu: np.ndarray, label: np.ndarray, affine: np.ndarray, how: str = "labelled"
) -> Iterator[Finding]:
    """Warnings: no organ at all, liver and spleen on the wrong sides, an organ of implausible volume, HU, height, or in
    pieces.

    Only organs that the case's label files declare are looked at. An organ that the scan cuts may be smaller than
    others. In situs inversus, which one in ten thousand has, the liver is on the left.

    Args:
        hu: (X, Y, Z).
        label: class indices, uint8 of the same shape.
        affine: (4, 4), from voxels to mm in RAS+.
        how: the organs came about: labelled or predicted.
    """
    files = {NAMES[ours]: str(file.path) for file in case.labels for _, ours in file.ids if ours != BACKGROUND}
    if label.flags.f_contiguous:  # as a NIfTI file has it; in the order of memory all of this is several times as fast
        hu, label, affine = hu.T, label.T, affine[:, [2, 1, 0, 3]]
    boxes = dict(zip(NAMES[1:], find_objects(label, max_label=len(NAMES) - 1), strict=True))
    if not any(boxes.values()):
        expected = "an organ, leave the case out or label it" if how == "labelled" else "an organ, look at the scan"
        yield Finding(case.id, str(case.labels[0].path), WARNING, "empty", "holds only background", expected)
        return
    right_mm = {}  # of the organs' centroids
    for name, file in files.items():
        box = boxes[name]
        if box is None:
            continue
        mask = label[box] == NAMES.index(name)
        right_mm[name] = float(affine[0] @ [*_centroid(mask, box), 1])
        is_cut = any(side.start == 0 or side.stop == size for side, size in zip(box, label.shape, strict=True))
        for check, value, expected in _implausible(name, mask, hu[box], affine, is_cut):
            yield Finding(case.id, file, WARNING, check, f"its {how} {name} {value}", expected)
    if "liver" in right_mm and "spleen" in right_mm and right_mm["liver"] <= right_mm["spleen"]:
        value = f"its {how} liver is {right_mm['spleen'] - right_mm['liver']:.0f} mm to the left of its spleen"
        expected = "the liver on the patient's right, see whether the scan is mirrored"
        yield Finding(case.id, files["liver"], WARNING, "left-right", value, expected)


def check_missing(case: Case, voxels: Sequence[int], shape: Sequence[int], affine: np.ndarray) -> Iterator[Finding]:
    """A warning about organs that were not predicted in a scan that is tall enough to hold them all, if any was.

    Args:
        case: its label file is the prediction, and declares what the network knows.
        voxels: of each class.
        shape: of the scan, with its affine (4, 4) in mm.
    """
    missing = [name for name in case.annotated[1:] if not voxels[NAMES.index(name)]]
    height = height_mm(shape, affine)
    if missing and sum(voxels[1:]) and height >= ABDOMEN_MM:
        value = f"has no predicted {', '.join(missing)}"
        expected = f"all organs in a scan {height:.0f} mm tall, unless one was removed or lies outside"
        yield Finding(case.id, str(case.labels[0].path), WARNING, "missing organ", value, expected)


def _implausible(
    name: str, mask: np.ndarray, hu: np.ndarray, affine: np.ndarray, is_cut: bool
) -> Iterator[tuple[str, str, str]]:
    """What was looked at, found and expected of an organ, given in its box."""
    count = int(np.count_nonzero(mask))
    low, high = PLAUSIBLE_ML.get(name, (0, np.inf))
    millilitres = count * abs(np.linalg.det(affine[:3, :3])) / 1000
    if not (is_cut or low <= millilitres) or millilitres > high:
        volume = f"{millilitres:.0f}" if millilitres >= 1000 else f"{millilitres:.3g}"
        yield "volume", f"has {volume} mL", f"{low:g} to {high:g} mL, look at it"
    if name in PLAUSIBLE_HU:
        every = (..., slice(None, None, 1 + count // SAMPLE))
        values = hu[every][mask[every]]
        low, high = PLAUSIBLE_HU[name]
        median = float(np.median(values))
        other = np.count_nonzero((values < TISSUE_HU[0]) | (values > TISSUE_HU[1])) / len(values)
        if not low <= median <= high:
            yield "organ HU", f"has a median of {median:g} HU", f"{low:g} to {high:g}, see that it lies on the organ"
        elif other > MOST_OTHER:
            within = f"{TISSUE_HU[0]:g} to {TISSUE_HU[1]:g} HU in all but {MOST_OTHER:.0%}"
            yield "organ HU", f"is {other:.0%} air, lung or bone", f"{within}, see that it lies on the organ"
    if name in LEAST_SHARE:
        share, height = _largest_piece(mask, affine)
        if share < LEAST_SHARE[name]:
            expected = f"at least {LEAST_SHARE[name]:.0%}, look at it"
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
