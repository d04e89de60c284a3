"""DICOM folder → the files, the grid and the slices of one CT series. Decoding is GDCM's, by SimpleITK.

Attributes: DICOM PS3.3, C.7.6.2 (Image Plane) and C.8.2.1 (CT Image).
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lightning_dice.data.pixel_data import Declared, check_pixels, refusing_corrupt
from lightning_dice.errors import InputError

CT_STORAGE = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1")  # SOP classes: one slice, many frames
# Transfer syntaxes that GDCM decodes: uncompressed, deflated, RLE, JPEG, JPEG-LS and JPEG 2000. Its codecs write to
# stderr what they think of others.
DECODED = {
    "1.2.840.10008.1.2" + end
    for end in ("", ".1", ".1.99", ".2", ".5", *(f".4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91)))
}
OFF_GRID = 0.2  # of the spacing: positions are rounded, some to 0.1 mm; a missing slice is off by 0.5 at least
OFF_ORIENTATION = 1e-3  # of a direction's unit vector: 0.06 degrees
CONVERT = "convert the series with dcm2niix and give the NIfTI file"


@dataclass(frozen=True)
class _Slice:
    """What the header of one file tells; `header` holds all values as text, by "gggg|eeee"."""

    path: Path
    header: dict[str, str]
    size: tuple[int, ...]  # columns, rows, and frames

    @property
    def series(self) -> str:
        return self.header.get("0020|000e", "")

    @property
    def modality(self) -> str:
        return self.header.get("0008|0060", "")

    @property
    def declared(self) -> Declared:
        columns, rows, bits = (int(self.numbers(f"0028|{tag}", 1)[0]) for tag in ("0011", "0010", "0100"))
        samples = int(self.numbers("0028|0002", 1)[0]) if "0028|0002" in self.header else 1
        return Declared(columns, rows, samples, bits)

    def numbers(self, tag: str, count: int) -> np.ndarray:
        """A value of so many numbers."""
        text = self.header.get(tag, "")
        try:
            values = np.array([float(part) for part in text.split("\\")])
        except ValueError:
            values = np.empty(0)
        if len(values) != count or not np.isfinite(values).all():
            raise InputError(
                f"{self.path}: the DICOM attribute ({tag.replace('|', ',')}) is {text!r}; expected "
                f"{'a number' if count == 1 else f'{count} numbers'}, export the series anew"
            )
        return values


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark behind its preamble, whatever its name.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            file.seek(128)
            return file.read(4) == b"DICM"
    except FileNotFoundError:
        raise InputError(f"{path}: a link to a file that does not exist; fix or remove it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); allow reading it") from None


def files_in(folder: Path) -> list[Path]:
    """What a folder holds, files and folders, by name; hidden ones are passed by.

    Raises:
        InputError: the folder may not be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); allow reading the folder") from None


def holds_dicom(folder: Path) -> bool:
    """Whether a DICOM file lies in the folder itself."""
    return any(is_dicom(path) for path in files_in(folder) if not path.is_dir())


def read_series(folder: Path, series: str | None = None) -> tuple[tuple[Path, ...], np.ndarray]:
    """Find the slices of a CT series and the grid that they form.

    Args:
        folder: holds the files; what is no DICOM picture, such as text, DICOMDIR or reports, is passed by.
        series: the Series Instance UID, where the folder holds several.

    Returns:
        The files in the order of Z, which ascends along the slices' normal (row direction × column direction), and the
        affine (4, 4) from (column, row, slice) to RAS+ mm. Z's step is the mean of the positions' steps; no slice lies
        off it by more than `OFF_GRID` of a step.

    Raises:
        InputError: no DICOM file, several series and none chosen, pictures that are no CT slices or not whole, slices
            of different size or orientation, several at one position, or one that is missing.
    """
    slices = _choose(folder, _read_headers(folder), series)
    first = slices[0]
    _check_ct(folder, slices)
    for one in slices:
        check_pixels(one.path, _transfer_syntax(one.path), one.declared)
    orientation, pixel_mm = first.numbers("0020|0037", 6), first.numbers("0028|0030", 2)
    for other in slices[1:]:
        if other.size != first.size or not np.allclose(other.numbers("0028|0030", 2), pixel_mm, atol=1e-4):
            raise InputError(
                f"{folder}: {first.path.name} has {_grid_of(first)} and {other.path.name} {_grid_of(other)}; "
                "expected slices of one grid, remove those of the other"
            )
        if not np.allclose(other.numbers("0020|0037", 6), orientation, atol=OFF_ORIENTATION):
            raise InputError(
                f"{folder}: {first.path.name} has the orientation {orientation.tolist()} and {other.path.name} "
                f"{other.numbers('0020|0037', 6).tolist()}; expected parallel slices, remove the others"
            )
    row, column = orientation[:3], orientation[3:]
    normal = np.cross(row, column)
    slices.sort(key=lambda one: float(one.numbers("0020|0032", 3) @ normal))
    positions = np.array([one.numbers("0020|0032", 3) for one in slices])
    step = _step(folder, slices, positions, normal)
    lps = np.eye(4)
    lps[:3] = np.column_stack([row * pixel_mm[1], column * pixel_mm[0], step, positions[0]])
    return tuple(one.path for one in slices), np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def read_slices(files: Sequence[Path]) -> Iterator[np.ndarray]:
    """The voxels of each file in turn, (X, Y), rescaled to HU.

    Raises:
        InputError: a slice that cannot be decoded, or not to its end; the line names its transfer syntax.
    """
    for path in files:
        try:
            with refusing_corrupt(path, _transfer_syntax(path)):
                image = sitk.ReadImage(path, imageIO="GDCMImageIO")
        except RuntimeError:
            raise _undecodable(path) from None
        yield sitk.GetArrayViewFromImage(image)[0].T


def _read_headers(folder: Path) -> list[_Slice]:
    paths = [path for path in files_in(folder) if not path.is_dir() and is_dicom(path)]
    slices = [found for path in paths if (found := _read_header(path))]
    if not slices:
        raise InputError(
            f"{folder}: no DICOM slice in it; expected the folder that holds the files of one CT series, not one above"
        )
    return slices


def _read_header(path: Path) -> _Slice | None:
    """None for what is no picture, such as a report."""
    if (syntax := _transfer_syntax(path)) in DECODED:
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(path)
        with suppress(RuntimeError), refusing_corrupt(path, syntax):
            reader.ReadImageInformation()
            header = {tag: _clean(reader.GetMetaData(tag)) for tag in reader.GetMetaDataKeys()}
            return _Slice(path, header, tuple(reader.GetSize()))
    if _head_uid(path, b"\x02\x00\x02\x00") in ("", *CT_STORAGE):
        raise _undecodable(path)
    return None


def _clean(text: str) -> str:
    """Without padding; what is no Unicode is taken for Latin-1, the most common other character set."""
    raw = text.encode("utf-8", "surrogateescape").strip(b" \0")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _choose(folder: Path, slices: list[_Slice], series: str | None) -> list[_Slice]:
    """The slices of the series asked for, or of the only one."""
    by_uid: dict[str, list[_Slice]] = {}
    for one in slices:
        by_uid.setdefault(one.series, []).append(one)
    if series is None and len(by_uid) == 1:
        return slices
    if series in by_uid:
        return by_uid[series]
    listed = "; ".join(
        f"{uid} ({found[0].modality}, {found[0].header.get('0008|103e', '') or 'no description'}, {len(found)} slices)"
        for uid, found in by_uid.items()
    )
    if series is None:
        raise InputError(f"{folder}: holds {len(by_uid)} series, choose one by series=UID: {listed}")
    raise InputError(f"{folder}: series={series} is not in it; expected one of: {listed}")


def _check_ct(folder: Path, slices: Sequence[_Slice]) -> None:
    first = slices[0]
    for one in slices:
        if one.declared.samples != 1:
            raise InputError(
                f"{folder}: the series holds colour pictures ({one.declared.samples} samples per pixel), such as "
                f"screenshots, the first in {one.path.name}; expected the CT's own slices"
            )
    if first.modality != "CT":
        raise InputError(f"{folder}: the series has the modality {first.modality or 'unknown'}; expected CT")
    if "LOCALIZER" in first.header.get("0008|0008", ""):
        raise InputError(f"{folder}: the series is a localizer (image type {first.header['0008|0008']}); expected a CT")
    if len(first.size) > 2 and first.size[2] > 1:
        raise InputError(
            f"{first.path}: holds {first.size[2]} frames in one file; expected one file per slice, {CONVERT}"
        )
    if len(slices) == 1:
        raise InputError(f"{folder}: the series has one slice, as localizers have; expected a 3D scan")


def _grid_of(one: _Slice) -> str:
    spacing = one.header.get("0028|0030", "").replace("\\", " × ")
    return f"{one.size[0]} × {one.size[1]} pixels of {spacing} mm"


def _step(folder: Path, slices: Sequence[_Slice], positions: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """From a slice to the next, (3,) in mm, after checking that it is the same everywhere."""
    along = np.diff(positions @ normal)
    widest, closest = int(along.argmax()), int(along.argmin())
    between = "{} and {}".format
    if along[closest] < 1e-3:
        pair = between(slices[closest].path.name, slices[closest + 1].path.name)
        raise InputError(
            f"{folder}: {pair} lie at the same position, {positions[closest].tolist()} mm; expected one slice at each, "
            "as the series may hold several phases or copies: split it or remove them"
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    even = positions[0] + np.arange(len(positions))[:, None] * step
    if np.linalg.norm(positions - even, axis=1).max() > OFF_GRID * np.linalg.norm(step):
        pair = between(slices[widest].path.name, slices[widest + 1].path.name)
        raise InputError(
            f"{folder}: the {len(slices)} slices are {along.min():.4g} to {along.max():.4g} mm apart, the most between "
            f"{pair}; expected even steps: a slice is missing, export the series anew, or {CONVERT}"
        )
    return step


def _undecodable(path: Path) -> InputError:
    syntax = _transfer_syntax(path) or "unknown"
    return InputError(
        f"{path}: cannot be decoded (transfer syntax {syntax}); it is damaged, or compressed in a way that GDCM does "
        "not read: export it anew without compression"
    )


def _transfer_syntax(path: Path) -> str:
    return _head_uid(path, b"\x02\x00\x10\x00")


def _head_uid(path: Path, tag: bytes) -> str:
    """A UID of the file's meta information, which is always little endian with explicit types (PS3.10, 7.1)."""
    with path.open("rb") as file:
        found = re.search(re.escape(tag) + rb"UI..([0-9.]+)", file.read(2048), re.DOTALL)
    return found[1].decode() if found else ""
