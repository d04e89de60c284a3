"""Small CT series as a scanner would export them, written with pydicom, in all transfer syntaxes that are read."""

import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

SHAPE = (64, 48, 24)  # columns, rows, slices
PIXEL_MM = (0.75, 1.25)  # along columns, along rows: not the same, so that a mix-up shows
STEP_MM = 2.5
AXIAL = np.eye(3)


def oblique() -> np.ndarray:
    """Columns: direction of a row, of a column, of the normal; right-handed, far from any axis of the body."""
    turned, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return turned * np.sign(np.linalg.det(turned))


def voxels_hu(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Integers in (X, Y, Z) whose neighbours all differ; no axis can be flipped or swapped unseen."""
    return np.random.default_rng(seed).integers(-1024, 3000, shape).astype(np.int16)


def affine_of(axes: np.ndarray, origin: tuple[float, float, float]) -> np.ndarray:
    """Voxel → RAS+ mm, by hand: DICOM's patient axes run to the left and to the back."""
    affine = np.eye(4)
    affine[:3, 0] = axes[:, 0] * PIXEL_MM[0]
    affine[:3, 1] = axes[:, 1] * PIXEL_MM[1]
    affine[:3, 2] = axes[:, 2] * STEP_MM
    affine[:3, 3] = origin
    affine[:2] *= -1
    return affine


def write_series(
    folder: Path,
    hu: np.ndarray,
    axes: np.ndarray = AXIAL,
    origin: tuple[float, float, float] = (-20.5, -30.25, 100.0),
    slope: float = 1.0,
    intercept: float = -1024.0,
    change: Callable[[int, Dataset], None] = lambda z, slice_: None,
    series: str | None = None,
) -> list[Path]:
    """Write one file per slice, with names in another order than the slices'.

    Args:
        axes: (3, 3) in LPS, columns as in `oblique`.
        change: is given each slice before it is written.
        series: Series Instance UID; by default a fresh one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = generate_uid(), UID(series or generate_uid()), generate_uid()
    files = []
    for z in range(hu.shape[2]):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
        one.SpecificCharacterSet = "ISO_IR 100"
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.Modality, one.Manufacturer, one.SeriesDescription = "CT", "Nobody", "Portalvenös"
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Phantom^A", "1", "", ""
        one.StudyDate, one.StudyTime, one.StudyID = "20200101", "120000", "1"
        one.AccessionNumber, one.ReferringPhysicianName, one.PositionReferenceIndicator = "", "", ""
        one.SeriesNumber, one.InstanceNumber = 2, z + 1
        one.ImageOrientationPatient = [f"{x:.12g}" for x in axes[:, :2].T.ravel()]
        one.ImagePositionPatient = [f"{x:.12g}" for x in np.array(origin) + z * STEP_MM * axes[:, 2]]
        one.PixelSpacing, one.SliceThickness = [PIXEL_MM[1], PIXEL_MM[0]], STEP_MM  # first the distance of rows
        one.RescaleSlope, one.RescaleIntercept = slope, intercept
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
        one.Columns, one.Rows = hu.shape[:2]
        stored = np.round((hu[..., z].astype(float) - intercept) / slope).astype("<u2")
        one.PixelData = stored.T.tobytes()
        change(z, one)
        path = folder / f"IM{(z * 7) % hu.shape[2]:04d}"
        one.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _uncompressed(syntax: UID) -> Callable[[int, Dataset], None]:
    def change(z: int, one: Dataset) -> None:
        if syntax == ExplicitVRBigEndian:
            one.PixelData = one.pixel_array.astype(">u2").tobytes()
        one.file_meta.TransferSyntaxUID = syntax

    return change


def _jpeg_2000(z: int, one: Dataset) -> None:
    file = io.BytesIO()
    Image.fromarray(one.pixel_array).save(file, "JPEG2000", irreversible=False, no_jp2=True)
    put_picture(one, file.getvalue(), JPEG2000Lossless)


def _jpeg_lossless(z: int, one: Dataset) -> None:
    with TemporaryDirectory() as folder:
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetCompressor("JPEG")
        writer.UseCompressionOn()
        writer.SetFileName(f"{folder}/one.dcm")
        writer.Execute(sitk.GetImageFromArray(one.pixel_array))
        put_picture(one, picture_of(pydicom.dcmread(f"{folder}/one.dcm")), JPEGLosslessSV1)


def put_picture(one: Dataset, picture: bytes, syntax: UID | None = None) -> None:
    """Replace the pixel data by a compressed picture, of an even number of bytes."""
    one.file_meta.TransferSyntaxUID = syntax or one.file_meta.TransferSyntaxUID
    one.PixelData = encapsulate([picture])
    one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True


def picture_of(one: Dataset) -> bytes:
    """The compressed picture in the pixel data."""
    return next(generate_frames(one.PixelData, number_of_frames=1))


# What `write_series` takes as `change`, to write in that syntax.
UNCOMPRESSED = {
    "implicit": _uncompressed(ImplicitVRLittleEndian),
    "explicit": _uncompressed(ExplicitVRLittleEndian),
    "big endian": _uncompressed(ExplicitVRBigEndian),
    "deflated": _uncompressed(DeflatedExplicitVRLittleEndian),
}
COMPRESSED = {
    "RLE": lambda z, one: one.compress(RLELossless),
    "JPEG lossless": _jpeg_lossless,
    "JPEG-LS": lambda z, one: one.compress(JPEGLSLossless),
    "JPEG 2000": _jpeg_2000,
}
