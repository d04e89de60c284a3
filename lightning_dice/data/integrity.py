"""What can be wrong with a labelled CT, one function per thing to look at: arrays in, findings out. See also `organs`.

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

from lightning_dice.data.cases import Case, LabelFile, Split
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
# A spleen, like a kidney, is 80 to 120 mm tall, a liver more: a scan that is less holds none of them whole. In slices
# of 8 mm, thick ones, these are 10; with fewer along any axis it is a stack of pictures more than a volume.
LEAST_HEIGHT_MM = 80.0
LEAST_SLICES = 10


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
class CaseCheck:
    """What reading one case told: the findings, and hashes of its voxels, empty for what is not there to compare."""

    case: str
    image: str
    findings: tuple[Finding, ...]
    image_sha256: str = ""
    label_sha256: str = ""


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


def reason_of(problem: InputError, path: Path) -> str:
    """What the reader says of a file or a folder, without its name that it begins with."""
    return str(problem).removeprefix(str(path)).lstrip(":/\\ ")


def unreadable(case: str, path: Path, problem: InputError) -> Finding:
    """What the reader says, of a file that is there or not."""
    if path.exists():
        return Finding(case, str(path), ERROR, "file", reason_of(problem, path))
    value = "is a link to no file" if path.is_symlink() else "no such file"
    return Finding(case, str(path), ERROR, "missing", value, "an image with its labels, add it or leave the case out")


def check_image(case: Case, voxels: np.ndarray, affine: np.ndarray) -> Iterator[Finding]:
    """Voxels (X, Y, Z) that are not finite or no HU, or very long ones, and scans too thin for an abdomen.

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
    height = height_mm(voxels.shape, affine)
    if height < LEAST_HEIGHT_MM or min(voxels.shape) < LEAST_SLICES:
        value = f"is {height:.3g} mm tall and has {' × '.join(map(str, voxels.shape))} voxels"
        expected = f"at least {LEAST_HEIGHT_MM:g} mm and {LEAST_SLICES} slices, as less holds pieces of organs"
        yield found(WARNING, "extent", value, expected)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        count = np.count_nonzero(~np.isfinite(voxels))
        yield found(ERROR, "voxels", f"{count} voxels are NaN or infinite", "HU, repair the file")
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


def check_copies(checks: Iterable[CaseCheck], split: Split) -> list[Finding]:
    """The same voxels, of images or of labels, under two ids: the same patient, one would say.

    In one part of the split that is a warning. In two it is an error of the later case in the order test, validation,
    training, so that skipping errors keeps the test cases.
    """
    parts: Mapping[str, str] = {case: part for part in ("test", "validation", "train") for case in getattr(split, part)}
    rank = {case: number for number, case in enumerate(parts)}
    findings: dict[str, Finding] = {}  # one per case
    known = sorted((one for one in checks if one.case in rank), key=lambda one: rank[one.case])
    for what in ("image", "label"):
        first: dict[str, CaseCheck] = {}
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


def height_mm(shape: Sequence[int], affine: np.ndarray) -> float:
    """How far a box of voxels reaches from the patient's lower end to the upper."""
    return float(np.abs(affine[2, :3]) @ shape)


def _lengths(sizes: np.ndarray) -> str:
    return " × ".join(f"{size:.4g}" for size in sizes) + " mm"


def _point(affine: np.ndarray) -> str:
    return "(" + ", ".join(f"{x:.6g}" for x in affine[:3, 3]) + ") mm"


def _codes(affine: np.ndarray) -> str:
    return "".join(code or "?" for code in aff2axcodes(affine))
