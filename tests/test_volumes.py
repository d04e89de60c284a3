import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lightning_dice.data.cases import Case, LabelFile
from lightning_dice.data.volumes import Preparation, spacing_mm
from lightning_dice.errors import InputError
from tests.conftest import AFFINE, NAMES, read_volume, tiny_case, write_nifti

IDENTITY = ((0, ()), *((index, (NAMES[index],)) for index in range(1, 8)))


def make_case(folder, hu, label, affine=AFFINE, ids=IDENTITY) -> Case:
    write_nifti(folder / "image.nii.gz", hu, affine)
    write_nifti(folder / "label.nii.gz", label, affine)
    return Case("somebody", folder / "image.nii.gz", (LabelFile(folder / "label.nii.gz", ids),))


def test_the_paper_keeps_each_fourth_voxel_of_a_ras_volume(tmp_path):
    hu, label = tiny_case(0)
    volume = read_volume(make_case(tmp_path, hu, label), Preparation(factor=4))
    ras_hu, ras_label = hu[::-1, ::-1], label[::-1, ::-1]  # the file is LPS
    assert np.array_equal(volume.label, ras_label[::4, ::4, ::4])
    expected = np.clip((ras_hu[::4, ::4, ::4].astype(float) + 500) / 1000, 0, 1)
    assert np.abs(volume.image - expected).max() < 2.0**-12 + 1e-6  # half a float16's last place below 1
    assert spacing_mm(volume.affine) == (12.0, 12.0, 12.0)
    # the first voxel kept is the corner of the RAS volume, the last one of both flipped axes
    corner = AFFINE @ [hu.shape[0] - 1, hu.shape[1] - 1, 0, 1]
    assert np.allclose(volume.affine[:, 3], corner)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIL"])
def test_orientation_does_not_change_what_is_prepared(tmp_path, codes):
    hu, label = tiny_case(1)
    ras = read_volume(make_case(tmp_path, hu, label), Preparation(factor=1))
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(codes))
    turned = [nib.Nifti1Image(array, AFFINE).as_reoriented(turn) for array in (hu, label)]
    assert "".join(nib.aff2axcodes(turned[0].affine)) == codes
    case = make_case(tmp_path / codes, *(np.asarray(x.dataobj) for x in turned), turned[0].affine)
    volume = read_volume(case, Preparation(factor=1))
    assert np.array_equal(volume.image, ras.image)
    assert np.array_equal(volume.label, ras.label)
    assert np.allclose(volume.affine, ras.affine)


def test_an_oblique_volume_keeps_its_obliqueness(tmp_path):
    hu, label = tiny_case(2)
    angle = np.deg2rad(12)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * [0.7, 0.7, 2.0], [10, -20, 30]
    volume = read_volume(make_case(tmp_path, hu, label, affine), Preparation(factor=2))
    assert np.allclose(volume.affine, affine @ np.diag([2, 2, 2, 1]), atol=1e-5)


def test_a_target_spacing_resamples_along_each_axis(tmp_path):
    # HU rise linearly along z, so that linear interpolation is exact
    hu = np.broadcast_to(np.arange(-100, 100, 10, dtype=np.int16), (8, 8, 20)).copy()
    label = np.zeros(hu.shape, np.uint8)
    label[:, :, 10:] = 3
    case = make_case(tmp_path, hu, label, np.diag([1.0, 1.0, 2.0, 1.0]))
    volume = read_volume(case, Preparation(factor=None, spacing_mm=3.0))
    assert volume.image.shape == (3, 3, 14)  # ceil(8 / 3), ceil(8 / 3), ceil(40 / 3)
    assert np.allclose(spacing_mm(volume.affine), 3.0)
    z = 1.5 * np.arange(14)  # in old voxels; the last one lies beyond the volume and takes its edge
    assert np.allclose(volume.image[0, 0].astype(float), (np.minimum(z, 19) * 10 + 400) / 1000, atol=1e-3)
    assert set(np.unique(volume.label)) == {0, 3}
    assert np.array_equal(volume.label[0, 0], np.where(z >= 9.5, 3, 0))


def test_a_volume_of_the_target_spacing_is_left_as_it_is(tmp_path):
    case = make_case(tmp_path, *tiny_case(3))
    same = read_volume(case, Preparation(factor=None, spacing_mm=[3.0, 3.0, 3.001]))
    kept = read_volume(case, Preparation(factor=1))
    assert np.array_equal(same.image, kept.image)
    assert np.array_equal(same.affine, kept.affine)


def test_smoothing_keeps_labels_and_calms_noise(tmp_path):
    case = make_case(tmp_path, *tiny_case(4))
    plain, smooth = (read_volume(case, Preparation(factor=4, smooth=flag)) for flag in (False, True))
    assert np.array_equal(plain.label, smooth.label)
    background = plain.label == 0
    assert smooth.image[background].std() < 0.7 * plain.image[background].std()


def test_several_masks_are_painted_in_order(tmp_path):
    hu, _ = tiny_case(5)
    first, second = np.zeros(hu.shape, np.uint8), np.zeros(hu.shape, np.uint8)
    first[:10], second[5:] = 1, 1
    write_nifti(tmp_path / "image.nii.gz", hu)
    write_nifti(tmp_path / "first.nii.gz", first)
    write_nifti(tmp_path / "second.nii.gz", second)
    files = (
        LabelFile(tmp_path / "first.nii.gz", ((0, ()), (1, ("liver",)))),
        LabelFile(tmp_path / "second.nii.gz", ((0, ()), (1, ("spleen",)))),
    )
    volume = read_volume(Case("somebody", tmp_path / "image.nii.gz", files), Preparation(factor=1))
    assert np.array_equal(volume.label[::-1, 0, 0], [3] * 5 + [4] * (hu.shape[0] - 5))


def test_a_scaled_header_and_a_float_label_are_read(tmp_path):
    hu, label = tiny_case(6)
    case = make_case(tmp_path, hu, label.astype(np.float32))
    scaled = nib.Nifti1Image((hu + 1000) // 2, AFFINE)
    scaled.header.set_slope_inter(2.0, -1000)  # nibabel stores the array as it is, and scales on reading
    nib.save(scaled, case.image)
    volume = read_volume(case, Preparation(factor=1, window_hu=(-1000, 1000)))
    assert np.abs(volume.image[::-1, ::-1].astype(float) * 2000 - 1000 - hu).max() < 3  # the header's step is 2 HU
    assert np.array_equal(volume.label[::-1, ::-1], label)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_images_and_labels_may_be_of_any_format(tmp_path, ending):
    case = make_case(tmp_path, *tiny_case(7))
    files = [case.image, case.labels[0].path]
    for path in files:
        sitk.WriteImage(sitk.ReadImage(path), path.with_name(path.name.replace(".nii.gz", ending)))
    image, label = (path.with_name(path.name.replace(".nii.gz", ending)) for path in files)
    other = Case("somebody", image, (LabelFile(label, IDENTITY),))
    volume, expected = (read_volume(one, Preparation(factor=2)) for one in (other, case))
    assert np.array_equal(volume.image, expected.image)
    assert np.array_equal(volume.label, expected.label)
    assert np.allclose(volume.affine, expected.affine)


def four_d(hu, label):
    return np.stack([hu, hu], axis=-1), label


def not_finite(hu, label):
    hu = hu.astype(np.float32)
    hu[1, 2, 3] = np.nan
    hu[0, 0, 0] = np.inf
    return hu, label


def undeclared(hu, label):
    label[0, 0, 0] = 42
    return hu, label


def fractional(hu, label):
    return hu, np.where(label == 1, 0.5, label).astype(np.float32)


def cropped(hu, label):
    return hu, label[1:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (four_d, r"image.nii.gz: has the shape \(24, 20, 28, 2\)"),
        (not_finite, "image.nii.gz: 2 voxels are NaN or infinite"),
        (undeclared, r"label.nii.gz: holds the label values \[42\]"),
        (fractional, r"label.nii.gz: holds the label values \[0.5\]"),
        (cropped, r"label.nii.gz: has the shape \(23, 20, 28\); expected its image's \(24, 20, 28\)"),
    ],
)
def test_damaged_voxels_are_told_in_one_line(tmp_path, damage, message):
    case = make_case(tmp_path, *damage(*tiny_case(7)))
    with pytest.raises(InputError, match=f"somebody: .*{message}") as refusal:
        read_volume(case, Preparation())
    assert "\n" not in str(refusal.value)


def test_a_label_on_another_grid_is_refused(tmp_path):
    case = make_case(tmp_path, *tiny_case(8))
    shifted = AFFINE.copy()
    shifted[2, 3] += 1.5
    write_nifti(case.labels[0].path, tiny_case(8)[1], shifted)
    with pytest.raises(
        InputError, match=r"label.nii.gz: has its origin at \(0, 0, 1.5\) mm; expected its image's \(0, 0, 0\) mm"
    ):
        read_volume(case, Preparation())


@pytest.mark.parametrize("content", [None, b"", b"no CT at all", "truncated"])
def test_an_unreadable_file_is_told_in_one_line(tmp_path, content):
    case = make_case(tmp_path, *tiny_case(9))
    if content is None:
        case.image.unlink()
    else:
        case.image.write_bytes(case.image.read_bytes()[:3000] if content == "truncated" else content)
    with pytest.raises(InputError, match=r"somebody: .*image.nii.gz: (cannot be read|no such file)") as refusal:
        read_volume(case, Preparation())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": None}, "give one of them"),
        ({"factor": 4, "spacing_mm": 3}, "give one of them"),
        ({"factor": 0}, "factor=0"),
        ({"factor": None, "spacing_mm": -1}, "spacing_mm=-1"),
        ({"factor": None, "spacing_mm": [1, 2]}, "spacing_mm="),
        ({"window_hu": (500, -500)}, "window_hu="),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Preparation(**settings)
