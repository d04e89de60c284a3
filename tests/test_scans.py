"""Scans of all formats: voxels and grid against independent readings, damage told in one line."""

import os
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import HTJ2KLossless, RLELossless, SecondaryCaptureImageStorage

from lightning_dice.data.scans import ENDINGS, find_scans, read_scan
from lightning_dice.errors import InputError
from tests.ct_series import (
    AXIAL,
    COMPRESSED,
    PIXEL_MM,
    STEP_MM,
    UNCOMPRESSED,
    affine_of,
    oblique,
    voxels_hu,
    write_series,
)

ORIGIN = (-20.5, -30.25, 100.0)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SMALL = (9, 7, 5)


def itk_affine(image: sitk.Image) -> np.ndarray:
    """Voxel → RAS+, by asking ITK where voxels lie."""
    corners = [image.TransformIndexToPhysicalPoint(index) for index in np.eye(4, 3, -1).astype(int).tolist()]
    affine = np.eye(4)
    affine[:3, 3] = corners[0]
    affine[:3, :3] = (np.array(corners[1:]) - corners[0]).T
    return LPS_TO_RAS @ affine


def refusal(path, match: str, capfd, **arguments) -> None:
    """One line that names the path, and nothing from the libraries."""
    with pytest.raises(InputError, match=match) as caught:
        read_scan(path, **arguments)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")


@pytest.fixture(scope="module")
def series_folder(tmp_path_factory):
    """An oblique series; only read it."""
    folder = tmp_path_factory.mktemp("series") / "Überweisung 腹部"
    write_series(folder, voxels_hu(), oblique(), ORIGIN)
    return folder


@pytest.fixture
def copied(series_folder, tmp_path):
    return shutil.copytree(series_folder, tmp_path / "series")


# --- files


def turned(codes: str, affine: np.ndarray, voxels: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(voxels, affine)
    return image.as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    )


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIL"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_of_any_orientation_is_kept_as_it_is(tmp_path, ending, codes):
    image = turned(codes, affine_of(oblique(), ORIGIN), voxels_hu(shape=SMALL))
    nib.save(image, tmp_path / "as.nii")
    path = tmp_path / f"Müller.v2{ending}"
    sitk.WriteImage(sitk.ReadImage(tmp_path / "as.nii"), path)
    scan = read_scan(path)
    assert scan.name == "Müller.v2"
    assert scan.files == (path,)
    assert not scan.is_dicom
    assert scan.voxels.dtype == np.int16
    assert np.array_equal(scan.voxels, image.dataobj)
    assert scan.affine.dtype == np.float64
    assert np.allclose(scan.affine, image.affine, atol=1e-5)  # NIfTI rounds to float32


def test_a_nifti_affine_is_nibabels_to_the_last_digit(tmp_path):
    image = nib.Nifti1Image(voxels_hu(shape=SMALL), affine_of(oblique(), ORIGIN))
    image.set_qform(affine_of(AXIAL, ORIGIN), 1)  # the sform goes first
    nib.save(image, tmp_path / "ct.nii.gz")
    assert np.array_equal(read_scan(tmp_path / "ct.nii.gz").affine, nib.load(tmp_path / "ct.nii.gz").affine)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "q.nii.gz")
    assert np.allclose(read_scan(tmp_path / "q.nii.gz").affine, affine_of(AXIAL, ORIGIN), atol=1e-5)


@pytest.mark.parametrize(
    ("stored", "slope", "offset", "expected", "dtype"),
    [
        (np.array([0, 1, 4095], np.uint16), 1, -1024, [-1024, -1023, 3071], np.int16),
        (np.array([0, 1, 65535], np.uint16), 1, 0, [0, 1, 65535], np.float32),  # beyond int16
        (np.array([-1024, 7, 3071], ">i2"), 1, 0, [-1024, 7, 3071], np.int16),
        (np.array([0, 1, 3], np.int16), 0.5, 0, [0, 0.5, 1.5], np.float32),
        (np.array([2, 4, -6], np.int16), 0.5, 0, [1, 2, -3], np.int16),
        (np.array([-1000, 40, 70], np.float64), 1, 0, [-1000, 40, 70], np.int16),
        (np.array([-0.25, 40, 70], np.float64), 1, 0, [-0.25, 40, 70], np.float32),
        (np.array([np.nan, np.inf, 70], np.float32), 1, 0, [np.nan, np.inf, 70], np.float32),
        (np.array([1, 2, 16_777_216], np.int32), 1, 0, [1, 2, 16_777_216], np.float32),
    ],
)
def test_integers_come_as_int16_and_all_else_as_float32(tmp_path, stored, slope, offset, expected, dtype):
    voxels = np.broadcast_to(stored, (2, 4, 3)).copy()
    image = nib.Nifti1Image(voxels, np.eye(4), dtype=stored.dtype)
    image.header.set_slope_inter(slope, offset)
    nib.save(image, tmp_path / "ct.nii")
    read = read_scan(tmp_path / "ct.nii").voxels
    assert read.dtype == dtype
    assert np.array_equal(read, np.broadcast_to(expected, (2, 4, 3)), equal_nan=True)


def test_a_last_axis_of_length_one_is_dropped(tmp_path):
    voxels = voxels_hu(shape=SMALL)
    nib.save(nib.Nifti1Image(voxels[..., None], np.eye(4)), tmp_path / "ct.nii.gz")
    assert np.array_equal(read_scan(tmp_path / "ct.nii.gz").voxels, voxels)
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(voxels.T)]), tmp_path / "ct.mha")
    assert np.array_equal(read_scan(tmp_path / "ct.mha").voxels, voxels)


def nifti(voxels=None, affine=None, **header) -> nib.Nifti1Image:
    voxels = voxels_hu(shape=SMALL) if voxels is None else voxels
    image = nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    return image


def flat() -> nib.Nifti1Image:
    """Slices without a distance, which nibabel refuses to set but not to write."""
    header = nib.Nifti1Header()
    header["sform_code"], header["srow_x"], header["srow_y"] = 1, [1, 0, 0, 0], [0, 1, 0, 0]
    return nib.Nifti1Image(voxels_hu(shape=SMALL), None, header)


SHEARED = np.eye(4) + np.array([[0, 0, 0, 0], [0, 0, 0.2, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
RGB = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (lambda: nifti(np.zeros((4, 4), np.int16)), r"has the shape \(4, 4\); expected a 3D volume"),
        (lambda: nifti(np.zeros((4, 4, 4, 2), np.int16)), r"has the shape \(4, 4, 4, 2\); expected a 3D volume"),
        (lambda: flat(), "measure .*0.0.* expected lengths above 0"),
        (lambda: nifti(affine=np.array([[1.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])), "right angle"),
        (lambda: nifti(affine=SHEARED), "axes are 11.3 degrees off a right angle"),
        (lambda: nib.Nifti1Image(voxels_hu(shape=SMALL), None), "does not say where the voxels lie"),
        (lambda: nifti(xyzt_units=1), "its lengths are in meter; expected mm"),
        (lambda: nifti(RGB), "expected one number each"),
        (lambda: nifti(np.zeros((3, 3, 3), np.complex64)), "expected one number each"),
    ],
)
def test_a_nifti_that_is_no_scan_is_refused(tmp_path, capfd, image, message):
    nib.save(image(), tmp_path / "ct.nii.gz")
    refusal(tmp_path / "ct.nii.gz", message, capfd)


def test_a_vector_image_is_refused(tmp_path, capfd):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True), tmp_path / "ct.nrrd")
    refusal(tmp_path / "ct.nrrd", "has 3 numbers per voxel; expected one", capfd)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def no_header(data: bytes) -> bytes:
    return b"\xff" * 352 + data[352:]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"no CT at all\n" * 99, half, no_header])
def test_a_damaged_file_is_told_in_one_line(tmp_path, capfd, ending, damage):
    path = tmp_path / f"ct{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels_hu()), path)
    path.write_bytes(damage(path.read_bytes()))
    refusal(path, r"cannot be read \(.+\); replace the file", capfd)


def test_a_path_that_leads_nowhere_is_told(tmp_path, capfd):
    refusal(tmp_path / "ct.nii.gz", "no such file", capfd)
    refusal(tmp_path / "ct", "no such file", capfd)
    (tmp_path / "link.nrrd").symlink_to(tmp_path / "gone.nrrd")
    refusal(tmp_path / "link.nrrd", "a link to a file that does not exist", capfd)
    (tmp_path / "ct.png").write_bytes(b"picture")
    refusal(tmp_path / "ct.png", "expected a folder of DICOM files, or a file .nii.gz, .nii, .nrrd, .mha", capfd)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_what_may_not_be_read_is_told(copied, tmp_path, capfd):
    nib.save(nifti(), tmp_path / "ct.nii.gz")
    (tmp_path / "ct.nii.gz").chmod(0)
    refusal(tmp_path / "ct.nii.gz", "cannot be opened .Permission denied.", capfd)
    copied.chmod(0)
    try:
        refusal(copied, "cannot be listed .Permission denied.", capfd)
    finally:
        copied.chmod(0o700)


def test_a_forbidden_folder_is_told(copied, capfd, monkeypatch):
    """As above for root, too: the operating system's answer is played."""

    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(copied), "iterdir", forbidden)
    refusal(copied, "cannot be listed .Permission denied.; allow reading the folder", capfd)


# --- DICOM


@pytest.mark.parametrize("axes", [AXIAL, AXIAL[:, [1, 2, 0]], oblique()], ids=["axial", "sagittal", "oblique"])
def test_a_series_is_read_as_it_was_written(tmp_path, axes):
    files = write_series(tmp_path / "liver phase", voxels_hu(), axes, ORIGIN)
    scan = read_scan(tmp_path / "liver phase")
    assert scan.name == "liver phase"
    assert scan.is_dicom
    assert scan.files == tuple(files)  # in the order of Z, not of their names
    assert scan.voxels.dtype == np.int16
    assert np.array_equal(scan.voxels, voxels_hu())
    assert np.allclose(scan.affine, affine_of(axes, ORIGIN), atol=1e-9)


def test_a_series_is_what_itks_series_reader_reads(series_folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series_folder)))
    image = reader.Execute()
    scan = read_scan(series_folder)
    assert np.array_equal(scan.voxels, sitk.GetArrayFromImage(image).T)
    assert np.allclose(scan.affine, itk_affine(image), atol=1e-6)
    assert np.allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), [*PIXEL_MM, STEP_MM])


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, 0, np.float32), (0.5, -1024, np.int16), (0.3, -1000, np.float32)]
)
def test_slope_and_intercept_are_applied(tmp_path, slope, intercept, dtype):
    stored = np.random.default_rng(1).integers(0, 2000, SMALL) * 2
    stored[0, 0, 0] = 40000  # not int16's
    write_series(tmp_path, stored * slope + intercept, slope=slope, intercept=intercept)
    read = read_scan(tmp_path).voxels
    assert read.dtype == dtype
    by_hand = np.stack([pydicom.dcmread(file).pixel_array.T for file in read_scan(tmp_path).files], axis=-1)
    assert np.array_equal(by_hand, stored)
    assert np.allclose(read, by_hand * slope + intercept, atol=1e-3)


@pytest.mark.parametrize("syntax", UNCOMPRESSED | COMPRESSED)
def test_a_series_of_any_transfer_syntax_is_read(tmp_path, syntax):
    write_series(tmp_path, voxels_hu(), change=(UNCOMPRESSED | COMPRESSED)[syntax])
    assert np.array_equal(read_scan(tmp_path).voxels, voxels_hu())


def test_what_lies_beside_the_slices_does_not_matter(copied):
    (copied / "README.txt").write_text("not a slice\n" * 50)
    (copied / "empty").touch()
    (copied / ".DS_Store").write_bytes(b"\0" * 128 + b"DICM")
    (copied / "report").mkdir()
    report = pydicom.dcmread(next(copied.glob("IM*")))
    del report.PixelData, report.Rows, report.Columns
    report.Modality, report.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.22"
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID
    report.save_as(copied / "report.dcm")
    assert np.array_equal(read_scan(copied).voxels, voxels_hu())


def test_one_of_several_series_is_chosen_by_its_uid(tmp_path, capfd):
    first, second = "1.2.3.4", "1.2.3.5"
    for path in write_series(tmp_path / "both", voxels_hu(1), series=first):
        path.rename(path.with_name("first" + path.name))
    write_series(tmp_path / "both", voxels_hu(2)[..., :8], series=second)
    listed = r"1.2.3.5 \(CT, Portalvenös, 8 slices\); 1.2.3.4 \(CT, Portalvenös, 24 slices\)"
    refusal(tmp_path / "both", "holds 2 series, choose one by series=UID: " + listed, capfd)
    refusal(tmp_path / "both", "series=1.2.3 is not in it; expected one of: " + listed, capfd, series="1.2.3")
    assert np.array_equal(read_scan(tmp_path / "both", series=first).voxels, voxels_hu(1))
    assert np.array_equal(read_scan(tmp_path / "both", series=second).voxels, voxels_hu(2)[..., :8])
    nib.save(nifti(), tmp_path / "ct.nii")
    refusal(tmp_path / "ct.nii", "series=1: chooses in a folder", capfd, series="1")


def put(z=None, **values):
    """Change attributes of one slice, or of all."""

    def change(number, one):
        if z in (None, number):
            for name, value in values.items():
                setattr(one, name, value)

    return change


def tilt(z, one):
    one.ImagePositionPatient = [ORIGIN[0], ORIGIN[1] + 0.5 * z, ORIGIN[2] + STEP_MM * z]


def colour(z, one):
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0
    one.BitsAllocated = one.BitsStored = 8
    one.HighBit, one.PixelData = 7, bytes(one.Rows * one.Columns * 3)
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage


def no_position(z, one):
    if z == 5:
        del one.ImagePositionPatient


def unknown_syntax(z, one):
    one.compress(RLELossless)
    one.file_meta.TransferSyntaxUID = HTJ2KLossless


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(Modality="MR"), "has the modality MR; expected CT"),
        (colour, r"holds colour pictures \(3 samples per pixel\)"),
        (put(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "is a localizer"),
        (tilt, "axes are 11.3 degrees off a right angle, as with a tilted gantry.*dcm2niix"),
        (put(3, ImagePositionPatient=list(ORIGIN)), r"IM0000 and IM0021 lie at the same position, \[-20.5, -30.25, 1"),
        (put(3, ImagePositionPatient=[ORIGIN[0], ORIGIN[1], 108.25]), "are 1.75 to 3.25 mm apart.*dcm2niix"),
        (put(3, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "IM0000 has the orientation .* and IM0021 .*parallel"),
        (put(3, PixelSpacing=[1.25, 0.8]), r"IM0000 has 64 × 48 pixels of 1.25 × 0.75 mm and IM0021 64 × 48 pixels"),
        (no_position, r"IM0011: the DICOM attribute \(0020,0032\) is ''; expected 3 numbers"),
        (put(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "expected"),
        (put(PixelSpacing=[0, 0.75]), "expected"),
        (unknown_syntax, r"cannot be decoded \(transfer syntax 1.2.840.10008.1.2.4.201\)"),
    ],
)
def test_a_series_that_is_no_even_ct_is_refused(tmp_path, capfd, change, message):
    write_series(tmp_path, voxels_hu(), change=change)
    capfd.readouterr()
    refusal(tmp_path, message, capfd)


def test_rounded_positions_are_no_gap(tmp_path):
    def rounded(z, one):
        one.ImagePositionPatient = [*ORIGIN[:2], round(0.625 * z, 1)]

    write_series(tmp_path, voxels_hu(), change=rounded)
    assert np.isclose(read_scan(tmp_path).affine[2, 2], 0.625, atol=0.005)


@pytest.mark.parametrize("z", [1, 12, 22])
def test_a_missing_slice_is_told(copied, capfd, z):
    files = read_scan(copied).files
    files[z].unlink()
    pair = f"{files[z - 1].name} and {files[z + 1].name}"
    refusal(copied, f"the 23 slices are 2.5 to 5 mm apart, the most between {pair}; .* a slice is missing", capfd)


def test_a_slice_among_others_of_another_size_is_told(tmp_path, capfd):
    write_series(tmp_path, voxels_hu()[..., :12], series="1.2")
    for path in write_series(tmp_path / "more", voxels_hu(shape=(32, 48, 12)), series="1.2"):
        path.rename(tmp_path / f"more{path.name}")
    (tmp_path / "more").rmdir()
    refusal(tmp_path, "IM0000 has 64 × 48 pixels .* and moreIM0000 32 × 48 pixels", capfd)


@pytest.mark.parametrize("length", [140, 600, 4000])
def test_a_truncated_slice_is_named(copied, capfd, length):
    victim = read_scan(copied).files[-1]  # the last: it would leave no gap
    victim.write_bytes(victim.read_bytes()[:length])
    refusal(copied, f"{victim.name}: cannot be decoded .*damaged", capfd)


def test_a_folder_without_a_series_is_told(copied, tmp_path, capfd):
    (tmp_path / "none").mkdir()
    refusal(tmp_path / "none", "no DICOM slice in it", capfd)
    one = copied / "IM0003"
    refusal(one, f"one file of a DICOM series; give its folder, {copied}", capfd)
    (copied / "IM9999").symlink_to(copied / "gone")
    refusal(copied, "IM9999: a link to a file that does not exist", capfd)
    (copied / "IM9999").unlink()
    for path in copied.iterdir():
        if path != one:
            path.unlink()
    refusal(copied, "has one slice, as localizers have", capfd)


# --- finding


def test_scans_are_found_by_name(series_folder, tmp_path):
    assert find_scans(series_folder) == [series_folder]
    shutil.copytree(series_folder, tmp_path / "b")
    for name in ("c.nii.gz", "a.NRRD", "d.mha", ".hidden.nii.gz", "notes.txt"):
        (tmp_path / name).write_bytes(b"something")
    (tmp_path / "empty").mkdir()
    assert [path.name for path in find_scans(tmp_path)] == ["a.NRRD", "b", "c.nii.gz", "d.mha"]
    assert find_scans(tmp_path / "c.nii.gz") == [tmp_path / "c.nii.gz"]
    assert find_scans(str(tmp_path / "b")) == [tmp_path / "b"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.nii.gz", "no such file"), ("notes.txt", "expected a folder of DICOM files"), ("empty", "no scan in it")],
)
def test_nothing_to_find_is_told(tmp_path, name, message):
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"{name}: .*{message}"):
        find_scans(tmp_path / name)
