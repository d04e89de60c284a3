"""Label maps lie where their scan lies: read back by nibabel, SimpleITK, pydicom and highdicom."""

import sys
from xml.etree import ElementTree

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.sr.codedict import codes

from lightning_dice.data.label_maps import LABEL_MAP_ENDINGS, write_dicom_seg, write_label_map
from lightning_dice.data.labels import label_set
from lightning_dice.data.scans import read_scan
from lightning_dice.errors import InputError
from tests.conftest import NAMES, PAPER
from tests.ct_series import AXIAL, PIXEL_MM, STEP_MM, affine_of, oblique, voxels_hu, write_series
from tests.test_scans import ORIGIN, itk_affine, turned

SHAPE = (14, 11, 9)


def label_map(shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(5).integers(0, len(PAPER), shape).astype(np.uint8)


@pytest.fixture(params=["RAS", "LPS", "SAR", "oblique.nrrd", "oblique.mha", "dicom"])
def scan(request, tmp_path):
    """One of each kind and orientation."""
    if request.param == "dicom":
        write_series(tmp_path / "ct", voxels_hu(shape=SHAPE), oblique(), ORIGIN)
        return read_scan(tmp_path / "ct")
    image = nib.Nifti1Image(voxels_hu(shape=SHAPE), affine_of(oblique(), ORIGIN))
    if "oblique" in request.param:
        nib.save(image, tmp_path / "as.nii")
        sitk.WriteImage(sitk.ReadImage(tmp_path / "as.nii"), tmp_path / request.param)
        return read_scan(tmp_path / request.param)
    nib.save(turned(request.param, image.affine, voxels_hu(shape=SHAPE)), tmp_path / "ct.nii.gz")
    return read_scan(tmp_path / "ct.nii.gz")


@pytest.mark.parametrize("ending", LABEL_MAP_ENDINGS)
def test_a_label_map_lies_on_its_scans_grid(tmp_path, scan, ending):
    label = label_map(scan.voxels.shape)
    path = tmp_path / "out" / f"Müller{ending}"
    write_label_map(label, PAPER, scan, path)
    assert list(path.parent.iterdir()) == [path]
    image = sitk.ReadImage(path)
    assert image.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(image).T, label)
    tolerance = 1e-5 if ".nii" in ending else 1e-6  # NIfTI keeps float32, and ITK takes its quaternion
    assert np.allclose(itk_affine(image), scan.affine, atol=tolerance)
    again = read_scan(path)
    assert np.array_equal(again.voxels, label)
    assert np.allclose(again.affine, scan.affine, rtol=1e-6, atol=1e-6)
    if ".nii" in ending:
        image = nib.load(path)
        assert image.get_data_dtype() == np.uint8
        assert np.array_equal(image.dataobj, label)
        assert np.allclose(image.affine, scan.affine, rtol=1e-6, atol=1e-6)
        assert nib.aff2axcodes(image.affine) == nib.aff2axcodes(scan.affine)
        assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (2, 1), (4, 4)])
def test_a_niftis_own_sform_and_qform_are_kept(tmp_path, sform, qform):
    source = nib.Nifti1Image(voxels_hu(shape=SHAPE), None)
    source.set_qform(affine_of(AXIAL, ORIGIN), qform)
    source.set_sform(affine_of(oblique(), (1.0, 2.0, 3.0)), sform)
    source.header["descrip"], source.header["cal_max"] = b"somebody's scan", 300
    nib.save(source, tmp_path / "ct.nii.gz")
    scan = read_scan(tmp_path / "ct.nii.gz")
    write_label_map(label_map(), PAPER, scan, tmp_path / "label.nii.gz")
    kept, written = nib.load(tmp_path / "ct.nii.gz").header, nib.load(tmp_path / "label.nii.gz").header
    for form in ("get_sform", "get_qform"):
        (expected, code), (affine, written_code) = (getattr(h, form)(coded=True) for h in (kept, written))
        assert written_code == code
        assert np.array_equal(affine, expected) if code else affine is None
    assert np.array_equal(nib.load(tmp_path / "label.nii.gz").affine, scan.affine)
    assert written["descrip"].item() == b""  # of the scan, not of the label
    assert written["cal_max"] == 0


def test_a_scan_without_header_codes_gets_scanner_coordinates(tmp_path):
    write_series(tmp_path / "ct", voxels_hu(shape=SHAPE), oblique(), ORIGIN)
    write_label_map(label_map(), PAPER, read_scan(tmp_path / "ct"), tmp_path / "label.nii.gz")
    header = nib.load(tmp_path / "label.nii.gz").header
    assert (header["sform_code"], header["qform_code"]) == (1, 1)
    assert np.allclose(header.get_sform(), header.get_qform(), atol=1e-5)


def test_nifti_holds_a_label_table(tmp_path):
    nib.save(nib.Nifti1Image(voxels_hu(shape=SHAPE), np.eye(4)), tmp_path / "ct.nii.gz")
    write_label_map(label_map(), PAPER, read_scan(tmp_path / "ct.nii.gz"), tmp_path / "label.nii.gz")
    (extension,) = nib.load(tmp_path / "label.nii.gz").header.extensions
    assert extension.get_code() == 0
    content = extension.get_content()
    table = ElementTree.fromstring(content if isinstance(content, str) else content.rstrip(b"\0"))
    assert table.tag == "CaretExtension"
    found = table.findall("VolumeInformation/LabelTable/Label")
    assert [(int(one.get("Key")), one.text) for one in found] == list(enumerate(NAMES))
    red = [round(255 * float(one.get("Red"))) for one in found]
    assert red == [label.rgb[0] for label in PAPER.labels]
    assert [one.get("Alpha") for one in found] == ["0"] + ["1"] * 7


def test_seg_nrrd_holds_slicers_segments(tmp_path):
    nib.save(nib.Nifti1Image(voxels_hu(shape=SHAPE), np.eye(4)), tmp_path / "ct.nii.gz")
    scan = read_scan(tmp_path / "ct.nii.gz")
    write_label_map(label_map(), PAPER, scan, tmp_path / "label.seg.nrrd")
    header = (tmp_path / "label.seg.nrrd").read_bytes().partition(b"\n\n")[0].decode()
    assert "space: left-posterior-superior" in header
    fields = dict(line.split(":=") for line in header.splitlines() if ":=" in line)
    assert fields["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert fields["Segmentation_ReferenceImageExtentOffset"] == "0 0 0"
    assert [fields[f"Segment{n}_Name"] for n in range(7)] == list(NAMES[1:])
    assert [fields[f"Segment{n}_LabelValue"] for n in range(7)] == list("1234567")
    assert fields["Segment0_Color"] == "0.835294 0.368627 0"  # 213, 94, 0
    assert {fields[f"Segment{n}_Extent"] for n in range(7)} == {"0 13 0 10 0 8"}
    assert {fields[f"Segment{n}_Layer"] for n in range(7)} == {"0"}
    write_label_map(label_map(), PAPER, scan, tmp_path / "label.nrrd")
    assert b"Segment0" not in (tmp_path / "label.nrrd").read_bytes()


def test_another_ending_is_refused(tmp_path):
    nib.save(nib.Nifti1Image(voxels_hu(shape=SHAPE), np.eye(4)), tmp_path / "ct.nii.gz")
    scan = read_scan(tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match=r"label.png: cannot be written; expected the ending .nii.gz"):
        write_label_map(label_map(), PAPER, scan, tmp_path / "label.png")
    with pytest.raises(ValueError, match=r"expected uint8 \(14, 11, 9\)"):
        write_label_map(label_map()[1:], PAPER, scan, tmp_path / "label.nii.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["ct.nii.gz"]


# --- DICOM SEG


@pytest.fixture(scope="module", params=[AXIAL, oblique()], ids=["axial", "oblique"])
def series(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct")
    write_series(folder, voxels_hu(), request.param, ORIGIN)
    return read_scan(folder)


def boxes(shape, organs) -> np.ndarray:
    """A box of each organ, off centre, so that no flip goes unseen."""
    label = np.zeros(shape, np.uint8)
    for organ in organs:
        label[3 + 7 * organ : 9 + 7 * organ, 2 * organ : 3 * organ + 4, organ : 2 * organ + 3] = organ
    return label


def test_a_dicom_seg_holds_the_organs_where_they_are(tmp_path, series):
    label = boxes(series.voxels.shape, organs=(1, 2, 3, 5, 7))
    write_dicom_seg(label, PAPER, series, tmp_path / "organs.dcm")
    seg = highdicom.seg.segread(tmp_path / "organs.dcm")
    names = [seg.get_segment_description(number).segment_label for number in seg.segment_numbers]
    assert names == ["artery", "vein", "liver", "stomach", "pancreas"]  # the absent ones are left out
    uids = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in series.files]
    frames = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    assert frames.shape == (24, 48, 64, 5)
    for column, name in enumerate(names):
        assert np.array_equal(frames[..., column].T, label == NAMES.index(name))

    # and without highdicom: each frame's own position against the scan's affine
    plain = pydicom.dcmread(tmp_path / "organs.dcm")
    to_voxel = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ series.affine)
    rebuilt = np.zeros_like(label)
    for frame, groups in zip(plain.pixel_array, plain.PerFrameFunctionalGroupsSequence, strict=True):
        corner = to_voxel @ [*groups.PlanePositionSequence[0].ImagePositionPatient, 1]
        assert np.allclose(corner, np.round(corner), atol=1e-5)
        assert np.allclose(corner[:2], 0, atol=1e-5)
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        rebuilt[..., round(corner[2])][frame.T > 0] = NAMES.index(names[number - 1])
    assert np.array_equal(rebuilt, label)
    shared = plain.SharedFunctionalGroupsSequence[0]
    assert [float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing] == [PIXEL_MM[1], PIXEL_MM[0]]
    assert np.isclose(float(shared.PixelMeasuresSequence[0].SpacingBetweenSlices), STEP_MM)


def test_segments_have_codes_and_colours(tmp_path, series):
    write_dicom_seg(boxes(series.voxels.shape, range(1, 8)), PAPER, series, tmp_path / "organs.dcm")
    seg = highdicom.seg.segread(tmp_path / "organs.dcm")
    described = [seg.get_segment_description(number) for number in seg.segment_numbers]
    meant = [one.segmented_property_type.meaning for one in described]
    assert meant == ["Artery", "Portal vein", "Liver", "Spleen", "Stomach", "Gallbladder", "Pancreas"]
    assert described[2].segmented_property_type == codes.SCT.Liver
    for one, label in zip(described, PAPER.organs, strict=True):
        colour = highdicom.color.CIELabColor.from_dicom_value(one.RecommendedDisplayCIELabValue).to_rgb()
        assert np.abs(np.array(colour) - label.rgb).max() <= 2
    ct = pydicom.dcmread(series.files[0])
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == (ct.StudyInstanceUID, ct.FrameOfReferenceUID)
    assert seg.SeriesInstanceUID != ct.SeriesInstanceUID


def test_classes_without_a_code_are_told_and_written_as_tissue(tmp_path, series, capsys):
    own = label_set("own", {"kidney_left": {"snomed": "Kidney"}, "tumour": None, "other": None})
    write_dicom_seg(boxes(series.voxels.shape, (1, 2)), own, series, tmp_path / "organs.dcm")
    assert f"{tmp_path}/organs.dcm: tumour without a SNOMED CT code, written as tissue" in capsys.readouterr().out
    seg = highdicom.seg.segread(tmp_path / "organs.dcm")
    described = [seg.get_segment_description(number) for number in seg.segment_numbers]
    assert [one.segment_label for one in described] == ["kidney_left", "tumour"]
    assert [one.segmented_property_type.meaning for one in described] == ["Kidney", "Tissue"]
    assert [one.segmented_property_category.meaning for one in described] == ["Anatomical Structure", "Tissue"]


def test_a_code_that_is_none_is_refused(tmp_path, series):
    own = label_set("own", {"kidney_left": {"snomed": "Kidnee"}})
    with pytest.raises(InputError, match="Kidnee: no SNOMED CT code"):
        write_dicom_seg(boxes(series.voxels.shape, (1,)), own, series, tmp_path / "organs.dcm")
    assert not list(tmp_path.glob("*.dcm"))


def test_what_cannot_be_a_dicom_seg_is_told(tmp_path, series, monkeypatch):
    with pytest.raises(InputError, match=r"no organ was found .* cannot be empty"):
        write_dicom_seg(np.zeros(series.voxels.shape, np.uint8), PAPER, series, tmp_path / "organs.dcm")
    nib.save(nib.Nifti1Image(voxels_hu(shape=SHAPE), np.eye(4)), tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match="ct is no DICOM series"):
        write_dicom_seg(label_map(), PAPER, read_scan(tmp_path / "ct.nii.gz"), tmp_path / "organs.dcm")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r'needs highdicom; pip install "lightning-dice\[dicom\]"'):
        write_dicom_seg(boxes(series.voxels.shape, (3,)), PAPER, series, tmp_path / "organs.dcm")
    assert [path.name for path in tmp_path.iterdir()] == ["ct.nii.gz"]


def test_a_slice_without_a_study_is_told(tmp_path):
    def anonymous(z, one):
        del one.PatientID

    write_series(tmp_path / "ct", voxels_hu(), change=anonymous)
    scan = read_scan(tmp_path / "ct")
    with pytest.raises(InputError, match=r"repeats what this slice lacks \(.*PatientID"):
        write_dicom_seg(boxes(scan.voxels.shape, (3,)), PAPER, scan, tmp_path / "organs.dcm")
