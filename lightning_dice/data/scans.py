"""A CT as it comes: NIfTI, NRRD, MetaImage or a folder of DICOM → voxels in HU and where they lie."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.affines import voxel_sizes

from lightning_dice.data.dicom import CONVERT, files_in, holds_dicom, is_dicom, read_series, read_slices
from lightning_dice.data.headers import check_end, check_stored, stored_mha, stored_nifti, stored_nrrd, unpacking
from lightning_dice.errors import InputError

NIFTI = (".nii.gz", ".nii")
ENDINGS = (*NIFTI, ".nrrd", ".mha")
OFF_RIGHT_ANGLE = 0.01  # cosine of the axes' angle: 0.6 degrees, 3 mm over a body's 300
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Scan:
    """A scan as stored.

    Attributes:
        name: see `scan_name`.
        voxels: (X, Y, Z), int16 where all are integers of its range, else float32; HU, if the file is a CT.
        affine: (4, 4) float64, from voxel to RAS+ mm; its axes stand at right angles.
        files: the file, or the DICOM slices in the order of Z.
        is_dicom: whether it is a DICOM series.
    """

    name: str
    voxels: np.ndarray
    affine: np.ndarray
    files: tuple[Path, ...]
    is_dicom: bool = False


def find_scans(path: Path | str) -> list[Path]:
    """What `read_scan` can read at `path`: a file or a folder of DICOM itself, else the scans in the folder, by name.

    Files of other endings, hidden files, and folders without DICOM are passed by.

    Raises:
        InputError: nothing to read.
    """
    path = Path(path)
    if not path.is_dir():
        _ending(path)
        _check_opens(path)
        return [path]
    if holds_dicom(path):
        return [path]
    found = [
        entry
        for entry in files_in(path)
        if (holds_dicom(entry) if entry.is_dir() else entry.name.lower().endswith(ENDINGS))
    ]
    if not found:
        raise InputError(f"{path}: no scan in it; expected DICOM files, folders of them, or files {', '.join(ENDINGS)}")
    return found


def scan_name(path: Path | str) -> str:
    """The file's name without its ending, or the DICOM folder's."""
    path = Path(path).absolute()
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending) and not path.is_dir()), "")
    return path.name[: len(path.name) - len(ending)]


def read_scan(path: Path | str, series: str | None = None) -> Scan:
    """Read a file or the DICOM series in a folder.

    The grid is kept as it is, in any orientation. Sheared ones, which a tilted gantry leaves, are refused: distances
    and resampling take the axes for perpendicular.

    Args:
        series: Series Instance UID, where a DICOM folder holds several.

    Raises:
        InputError: it cannot be read, is not 3D, or its grid does not say where the voxels lie.
    """
    path = Path(path)
    if series is not None and path.is_file():
        raise InputError(f"series={series}: chooses in a folder of DICOM files, and {path} is a file; leave it out")
    with _silence():
        if path.is_dir():
            files, affine = read_series(path, series)
            _check_grid(path, affine)
            return Scan(scan_name(path), _compact(read_slices(files), len(files)), affine, files, is_dicom=True)
        ending = _ending(path)
        _check_opens(path)
        try:
            voxels, affine = _read_nifti(path) if ending in NIFTI else _read_itk(path, ending)
        except InputError:
            raise
        except Exception as error:  # nibabel passes on whatever gzip, zlib and its header parsers raise
            raise InputError(f"{path}: cannot be read ({_reason(error)}); replace the file") from None
        _check_grid(path, affine)
        return Scan(scan_name(path), voxels, affine, (path,))


def _ending(path: Path) -> str:
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return ending
    if path.is_file() and is_dicom(path):
        raise InputError(f"{path}: is one file of a DICOM series; give its folder, {path.absolute().parent}")
    _check_opens(path)
    raise InputError(f"{path}: expected a folder of DICOM files, or a file {', '.join(ENDINGS)}")


def _check_opens(path: Path) -> None:
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        what = "a link to a file that does not exist" if path.is_symlink() else "no such file"
        raise InputError(f"{path}: {what}; correct the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); allow reading it") from None
    if empty:
        raise InputError(f"{path}: cannot be read (it is empty, 0 bytes); replace the file")


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image: Any = nib.load(path, mmap=False)  # one of its kinds of NIfTI
    unit = image.header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise InputError(f"{path}: its lengths are in {unit}; expected mm, convert the header")
    if not (image.header["sform_code"] or image.header["qform_code"]):
        raise InputError(
            f"{path}: its header does not say where the voxels lie, nor which side is left (sform_code and "
            "qform_code are 0); convert the scan anew, such as with dcm2niix"
        )
    shape = _three(path, image.shape)
    proxy = image.dataobj
    check_stored(path, proxy.shape, proxy.dtype.itemsize, stored_nifti(path, proxy.offset))
    with unpacking(path) as file:
        layout = proxy.shape, proxy.dtype, proxy.offset
        stored = nib.arrayproxy.ArrayProxy(file, layout, mmap=False).get_unscaled().reshape(shape, order="F")
        check_end(file)
    slope, offset = proxy.slope, proxy.inter
    if stored.dtype.names or stored.dtype.kind == "c":
        raise InputError(f"{path}: its voxels are {stored.dtype}; expected one number each")
    if stored.dtype == np.int16 and (slope, offset) == (1, 0):
        return stored, image.affine
    slices = (stored[..., z] if (slope, offset) == (1, 0) else stored[..., z] * slope + offset for z in range(shape[2]))
    return _compact(slices, shape[2]), image.affine


def _read_itk(path: Path, ending: str) -> tuple[np.ndarray, np.ndarray]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() != 1:
        raise InputError(f"{path}: has {reader.GetNumberOfComponents()} numbers per voxel; expected one")
    _three(path, reader.GetSize())
    itemsize = sitk.Image([1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
    check_stored(path, reader.GetSize(), itemsize, (stored_mha if ending == ".mha" else stored_nrrd)(path))
    image = reader.Execute()
    if image.GetDimension() == 4:
        image = image[..., 0]
    spacing, direction = np.array(image.GetSpacing()), np.array(image.GetDirection()).reshape(3, 3)
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = direction * spacing, image.GetOrigin()
    voxels = sitk.GetArrayViewFromImage(image)
    return _compact((plane.T for plane in voxels), len(voxels)), LPS_TO_RAS @ lps


def _three(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape without last axes of length 1."""
    squeezed = tuple(shape)
    while len(squeezed) > 3 and squeezed[-1] == 1:
        squeezed = squeezed[:-1]
    if len(squeezed) != 3 or min(squeezed) < 1:
        raise InputError(f"{path}: has the shape {tuple(shape)}; expected a 3D volume")
    x, y, z = squeezed
    return x, y, z


def _compact(slices: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Stack `count` slices (X, Y) to (X, Y, Z): int16 if it holds them all exactly, else float32."""
    voxels = None
    for z, plane in enumerate(slices):
        if voxels is None:
            voxels = np.empty((*plane.shape, count), np.int16, order="F")
        with np.errstate(invalid="ignore"):  # a NaN has no integer
            exact = np.array_equal(plane.astype(np.int16), plane)
        if voxels.dtype == np.int16 and not exact:
            voxels = voxels.astype(np.float32)
        voxels[..., z] = plane
    assert voxels is not None  # a volume has slices
    return voxels


def _check_grid(path: Path, affine: np.ndarray) -> None:
    axes = affine[:3, :3]
    sizes = voxel_sizes(affine)
    if not np.isfinite(affine).all() or not (sizes > 0).all():
        raise InputError(f"{path}: its voxels measure {sizes.tolist()} mm; expected lengths above 0, convert it anew")
    cosines = (axes / sizes).T @ (axes / sizes) - np.eye(3)
    worst = np.abs(cosines).max()
    if worst > OFF_RIGHT_ANGLE:
        raise InputError(
            f"{path}: its axes are {np.degrees(np.arcsin(min(worst, 1))):.1f} degrees off a right angle, as with a "
            f"tilted gantry; expected 0.6 at most: {CONVERT} that it corrected (*_Tilt)"
        )


def _reason(error: Exception) -> str:
    """The last line says what went wrong, in ITK's messages after the place in its code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _silence() -> Iterator[None]:
    """What ITK and nibabel find odd in a file stays off stderr: either we refuse it, or it does not matter."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with nib.imageglobals.LoggingOutputSuppressor():
            yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
