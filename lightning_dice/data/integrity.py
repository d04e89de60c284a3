"""What can be wrong with a labelled CT, one function per thing to look at: arrays in, findings out.

Errors are what must not be trained on. Warnings are what a sound data set can hold too, and what somebody should see.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from scipy.ndimage import find_objects

from lightning_dice.data.cases import Case, LabelFile, Split
from lightning_dice.data.labels import BACKGROUND, NAMES
from lightning_dice.errors import InputError

ERROR, WARNING = "error", "warning"

# Headers round: NIfTI keeps float32, and quaternions lose a little more. Over 500 voxels a spacing that is off by its
# tolerance adds up to half a millimetre, and so does an axis.
SPACING_TOLERANCE_MM = 0.001
ORIGIN_TOLERANCE_MM = 0.01
DIRECTION_TOLERANCE = 0.001  # in each component of the axes' unit vectors

AIR_HU = -200.0  # fat ends above it, lung and gas begin below
LEAST_RANGE_HU = 100.0  # fat, organs and noise span more than this in any piece of a body
CT_RANGE_HU = (-4096.0, 32767.0)  # padding of all scanners, and metal on an extended scale
BYTE = 255
MOST_ANISOTROPIC = 10.0  # slices of 5 mm with pixels of 0.6 mm, about the worst in public sets, have 8

# Volumes in mL beyond which an organ is looked at again, generous on both sides of the medians 1238, 188, 401, 12 and
# 82 of the WORD data set (Luo et al. 2022, Medical Image Analysis 82:102642): from about a tenth of them, to what an
# enlarged organ reaches. How much of a vessel is seen depends on the scan's ends.
PLAUSIBLE_ML = {
    "liver": (120.0, 6000.0),
    "spleen": (18.0, 3000.0),
    "stomach": (40.0, 3000.0),
    "gallbladder": (1.0, 300.0),
    "pancreas": (8.0, 400.0),
}
# Median HU of organs that are neither hollow nor ever much fatter than this, with and without contrast.
PLAUSIBLE_HU = {"liver": (-50.0, 300.0), "spleen": (-50.0, 300.0)}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a file, or looks so.

    Attributes:
        case: its id.
        file: the one to look at.
        level: "error" or "warning".
        check: what was looked at, in a word or two.
        value: what was found, as the rest of a sentence about the file.
        expected: what should have been, and what to do; empty when `value` says it.
    """

    case: str
    file: str
    level: str
    check: str
    value: str
    expected: str = ""

    def __str__(self) -> str:
        return f"{self.case}: {self.file}: {self.value}" + (f"; expected {self.expected}" if self.expected else "")


@dataclass(frozen=True)
class Examination:
    """What reading one case told: the findings, and hashes of its voxels, empty for what is not there to compare."""

    case: str
    image: str
    findings: tuple[Finding, ...]
    image_sha256: str = ""
    label_sha256: str = ""

    @property
    def is_sound(self) -> bool:
        return all(finding.level != ERROR for finding in self.findings)


def findings_frame(findings: Iterable[Finding]) -> pd.DataFrame:
    """A row per finding, errors first, with the columns of `Finding`."""
    rows = sorted(findings, key=lambda finding: (finding.level != ERROR, finding.case))
    return pd.DataFrame([vars(row) for row in rows], columns=[field.name for field in fields(Finding)])


def short_frame(findings: Iterable[Finding]) -> pd.DataFrame:
    """The same for people: `level, case, check, file, value, expected`, files without their folders."""
    frame = findings_frame(findings)
    frame["file"] = [Path(file).name for file in frame["file"]]
    return frame[["level", "case", "check", "file", "value", "expected"]]


def findings_table(findings: Sequence[Finding]) -> str:
    """The findings as text for a terminal; what was expected stays in the CSV."""
    table = short_frame(findings).drop(columns="expected")
    left = {name: f"{{:<{max(map(len, column))}}}".format for name, column in table.items()}
    return table.to_string(index=False, justify="left", formatters=left)


def content_hash(voxels: np.ndarray) -> str:
    """A hash of shape and voxels: the same numbers give the same one in any type of a file, up to float32."""
    digest = hashlib.sha256(repr(voxels.shape).encode())
    for z in range(voxels.shape[2]):  # no second copy of the volume
        digest.update(voxels[:, :, z].astype(np.float32).tobytes(order="F"))
    return digest.hexdigest()


def unreadable(case: str, path: Path, problem: InputError) -> Finding:
    """What the reader says of a file, without the file's name that it begins with."""
    if path.exists():
        return Finding(case, str(path), ERROR, "file", str(problem).removeprefix(f"{path}: "))
    value = "is a link to no file" if path.is_symlink() else "no such file"
    return Finding(case, str(path), ERROR, "missing", value, "an image with its labels, add it or leave the case out")


def check_image(case: Case, voxels: np.ndarray, affine: np.ndarray) -> Iterator[Finding]:
    """Voxels (X, Y, Z) that are not finite or no HU, or very long ones.

    Nothing of an abdomen is without fat or air, so a minimum from 0 is an error: a picture of 8 bits up to 255, a CT
    without its rescale intercept above 1000, else another modality. So is a range too small for a body, which images
    that were normalised have. Without air it is a warning: a crop wholly inside a body is sound.
    """

    def found(level: str, check: str, value: str, expected: str) -> Finding:
        return Finding(case.id, str(case.image), level, check, value, expected)

    sizes = voxel_sizes(affine)
    if sizes.max() > MOST_ANISOTROPIC * sizes.min():
        most = f"a ratio up to {MOST_ANISOTROPIC:g}, see that the header is right"
        yield found(WARNING, "anisotropy", f"has voxels of {_lengths(sizes)}", most)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        count = np.count_nonzero(~np.isfinite(voxels))
        yield found(ERROR, "voxels", f"{count} voxels are NaN or infinite", "HU, mend the file")
        return
    low, high = float(voxels.min()), float(voxels.max())
    value = f"holds values from {low:g} to {high:g}"
    if low >= 0 and high <= BYTE:
        yield found(ERROR, "range", value, "HU, with air and fat below 0; this looks like a picture of 8 bits")
    elif low >= 0 and high > 1000:
        expected = "HU, with air and fat below 0; the rescale intercept, such as -1024, seems to be missing"
        yield found(ERROR, "range", value, expected)
    elif low >= 0:
        yield found(ERROR, "range", value, "HU, with air and fat below 0; this looks like another modality, such as MR")
    elif high - low < LEAST_RANGE_HU:
        yield found(ERROR, "range", value, f"HU over at least {LEAST_RANGE_HU:g}; this looks empty or normalised")
    elif low > AIR_HU:
        expected = f"air below {AIR_HU:g} HU, unless it is cropped to the inside of the body"
        yield found(WARNING, "range", value, expected)
    elif low < CT_RANGE_HU[0] or high > CT_RANGE_HU[1]:
        yield found(WARNING, "range", value, f"HU within {CT_RANGE_HU[0]:g} and {CT_RANGE_HU[1]:g}")


def check_grid(
    case: str,
    file: Path,
    shape: tuple[int, ...],
    affine: np.ndarray,
    image_shape: tuple[int, ...],
    image_affine: np.ndarray,
) -> Iterator[Finding]:
    """Errors where a label's shape, spacing, origin or direction is not its image's, each by its name.

    Spacing and origin may differ by SPACING_TOLERANCE_MM and ORIGIN_TOLERANCE_MM along an axis, the axes' unit vectors
    by DIRECTION_TOLERANCE in a component. Affines (4, 4) in mm.
    """

    def found(check: str, value: str, expected: str) -> Finding:
        return Finding(case, str(file), ERROR, check, value, f"its image's {expected}, resave the label on that grid")

    if shape != image_shape:
        yield found("shape", f"has the shape {shape}", f"{image_shape}")
    sizes, image_sizes = voxel_sizes(affine), voxel_sizes(image_affine)
    if not np.allclose(sizes, image_sizes, rtol=0, atol=SPACING_TOLERANCE_MM):
        yield found("spacing", f"has voxels of {_lengths(sizes)}", _lengths(image_sizes))
    if not np.allclose(affine[:3, 3], image_affine[:3, 3], rtol=0, atol=ORIGIN_TOLERANCE_MM):
        yield found("origin", f"has its origin at {_point(affine)}", _point(image_affine))
    axes, image_axes = affine[:3, :3] / sizes, image_affine[:3, :3] / image_sizes
    if not np.allclose(axes, image_axes, rtol=0, atol=DIRECTION_TOLERANCE):
        angle = np.rad2deg(np.arccos(np.clip((axes * image_axes).sum(axis=0), -1, 1))).max()
        value = f"has axes {_codes(affine)}, one of them turned by {angle:.3g}°"
        yield found("direction", value, f"axes {_codes(image_affine)}")


def check_values(case: str, file: LabelFile, values: Sequence[float]) -> Iterator[Finding]:
    """An error for label values that are not declared, fractional ones among them."""
    declared = [value for value, _ in file.ids]
    undeclared = [value for value in values if value not in declared]
    if undeclared:
        value = f"holds the label values {undeclared[:5]}"
        yield Finding(
            case, str(file.path), ERROR, "label values", value, f"only {sorted(declared)}, declare or correct them"
        )


def check_organs(case: Case, hu: np.ndarray, label: np.ndarray, affine: np.ndarray) -> Iterator[Finding]:
    """Warnings: no organ at all, liver and spleen on the wrong sides, an organ of implausible volume or HU.

    Only organs that the case's label files declare are looked at, and no volume of one that the scan cuts. In situs
    inversus, which one in ten thousand has, the liver is on the left.

    Args:
        hu: (X, Y, Z).
        label: class indices, uint8 of the same shape.
        affine: (4, 4), from voxels to mm in RAS+.
    """
    files = {NAMES[ours]: str(file.path) for file in case.labels for _, ours in file.ids if ours != BACKGROUND}
    turned = find_objects(label.T, max_label=len(NAMES) - 1)  # in the order of a NIfTI file's voxels, which is fast
    boxes = {name: box and box[::-1] for name, box in zip(NAMES[1:], turned, strict=True)}
    if not any(boxes.values()):
        expected = "an organ, leave the case out or label it"
        yield Finding(case.id, str(case.labels[0].path), WARNING, "empty", "holds only background", expected)
        return
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    right_mm = {}  # of the organs' centroids
    for name, file in files.items():
        box = boxes[name]
        if box is None:
            continue
        mask = label[box] == NAMES.index(name)
        right_mm[name] = float(affine[0] @ [*_centroid(mask, box), 1])
        is_cut = any(side.start == 0 or side.stop == size for side, size in zip(box, label.shape, strict=True))
        low, high = PLAUSIBLE_ML.get(name, (0, np.inf))
        volume = mask.sum() * voxel_ml
        if not is_cut and not low <= volume <= high:
            expected = f"{low:g} to {high:g} mL, look at the label"
            yield Finding(case.id, file, WARNING, "volume", f"its {name} has {volume:.3g} mL", expected)
        low, high = PLAUSIBLE_HU.get(name, (-np.inf, np.inf))
        median = float(np.median(hu[box][mask])) if name in PLAUSIBLE_HU else 0.0
        if not low <= median <= high:
            expected = f"{low:g} to {high:g}, see that image and label belong together"
            yield Finding(case.id, file, WARNING, "organ HU", f"its {name} has a median of {median:g} HU", expected)
    if "liver" in right_mm and "spleen" in right_mm and right_mm["liver"] <= right_mm["spleen"]:
        value = f"its liver is {right_mm['spleen'] - right_mm['liver']:.0f} mm to the left of its spleen"
        expected = "the liver on the patient's right, see whether the scan is mirrored"
        yield Finding(case.id, files["liver"], WARNING, "left-right", value, expected)


def check_copies(examinations: Iterable[Examination], split: Split) -> list[Finding]:
    """The same voxels, of images or of labels, under two ids: the same patient, one would say.

    In one part of the split that is a warning. In two it is an error of the later case in the order test, validation,
    training, so that skipping errors keeps the test cases.
    """
    parts: Mapping[str, str] = {case: part for part in ("test", "validation", "train") for case in getattr(split, part)}
    rank = {case: number for number, case in enumerate(parts)}
    findings: dict[str, Finding] = {}  # one per case
    known = sorted((one for one in examinations if one.case in rank), key=lambda one: rank[one.case])
    for what in ("image", "label"):
        first: dict[str, Examination] = {}
        for one in known:
            content = getattr(one, f"{what}_sha256")
            if not content:
                continue
            other = first.setdefault(content, one)
            if other is one or one.case in findings:
                continue
            value = f"has the {what} voxels of {other.case}"
            here, there = parts[one.case], parts[other.case]
            if here == there:
                expected = "a patient under one id, remove one of them"
                findings[one.case] = Finding(one.case, one.image, WARNING, f"duplicate {what}", value, expected)
            else:
                value += f", which is in {there} while this is in {here}"
                expected = "a patient in one part of the split, remove one of them"
                findings[one.case] = Finding(one.case, one.image, ERROR, "split", value, expected)
    return list(findings.values())


def _centroid(mask: np.ndarray, box: tuple[slice, ...]) -> list[float]:
    """In voxels of the volume that the mask's box is cut from."""
    others = ((1, 2), (0, 2), (0, 1))
    return [
        np.average(np.arange(side.start, side.stop), weights=mask.sum(axis=axes))
        for side, axes in zip(box, others, strict=True)
    ]


def _lengths(sizes: np.ndarray) -> str:
    return " × ".join(f"{size:.4g}" for size in sizes) + " mm"


def _point(affine: np.ndarray) -> str:
    return "(" + ", ".join(f"{x:.6g}" for x in affine[:3, 3]) + ") mm"


def _codes(affine: np.ndarray) -> str:
    return "".join(code or "?" for code in aff2axcodes(affine))
