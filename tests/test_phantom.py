import errno
import os

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import label as components

from lightning_dice.data.phantom.body import NO_GALLBLADDER, SHAPE_XY, SLICES, draw_patient
from lightning_dice.data.phantom.dataset import make_phantom, phantom_cases, write_phantoms
from lightning_dice.errors import InputError
from tests.conftest import NAMES
from tests.full_disk import room_for

# Shares of voxels in one real CT of TotalSegmentator's repository, in the order of NAMES.
REAL_SHARES = np.array([95.5, 0.13, 0.08, 3.0, 0.70, 0.38, 0.10, 0.04]) / 100
VEIN, LIVER, SPLEEN, GALLBLADDER = (NAMES.index(name) for name in ("vein", "liver", "spleen", "gallbladder"))


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(0, case) for case in range(14)]


def shares(phantom) -> np.ndarray:
    return np.bincount(phantom.labels.ravel(), minlength=len(NAMES)) / phantom.labels.size


def centre(phantom, mask) -> np.ndarray:
    """In mm."""
    return nib.affines.apply_affine(phantom.affine, np.argwhere(mask).mean(axis=0))


def test_class_shares_are_within_a_factor_of_two_of_a_real_scans(phantoms):
    ratio = np.mean([shares(phantom) for phantom in phantoms], axis=0) / REAL_SHARES
    assert (ratio > 0.5).all(), dict(zip(NAMES, ratio.round(2), strict=True))
    assert (ratio < 2.0).all(), dict(zip(NAMES, ratio.round(2), strict=True))


def test_no_classifier_of_single_voxels_hu_gets_far(phantoms):
    """For each organ the set of HU with the highest Dice: bins in the order of P(organ | HU), and the best cut."""
    low, bins = -1024, 3000
    histogram = np.zeros((len(NAMES), bins))
    for phantom in phantoms:
        for index in range(len(NAMES)):
            histogram[index] += np.bincount(phantom.hu[phantom.labels == index] - low, minlength=bins)
    everything = histogram.sum(axis=0)
    best = []
    for organ in histogram[1:]:
        order = np.argsort(-organ / np.maximum(everything, 1))
        found, taken = organ[order].cumsum(), everything[order].cumsum()
        best.append((2 * found / (taken + organ.sum())).max())
    assert np.mean(best) < 0.4, dict(zip(NAMES[1:], np.round(best, 2), strict=True))


def test_shapes_types_and_hu_are_a_cts(phantoms):
    for phantom in phantoms:
        assert phantom.hu.shape == phantom.labels.shape
        assert phantom.hu.shape[:2] == SHAPE_XY
        assert SLICES[0] <= phantom.hu.shape[2] <= SLICES[1]
        assert (phantom.hu.dtype, phantom.labels.dtype) == (np.int16, np.uint8)
        assert -1024 <= phantom.hu.min() < -950
        assert 400 < phantom.hu.max() <= 1800
        assert np.array_equal(np.diag(phantom.affine), [3, 3, 3, 1])
    assert len({phantom.hu.shape[2] for phantom in phantoms}) > 5


def test_organs_lie_where_they_belong(phantoms):
    """RAS: x grows to the right, y to the front, z to the head."""
    for phantom in phantoms:
        liver, spleen = (centre(phantom, phantom.labels == index) for index in (LIVER, SPLEEN))
        bone = centre(
            phantom, (phantom.hu > 300) & (np.abs(phantom.affine[0, 3] + 3 * np.arange(128))[:, None, None] < 30)
        )
        assert liver[0] > 40
        assert spleen[0] < -60
        assert bone[1] < min(liver[1], -30)
        pieces, _ = components((phantom.hu > -950) & (phantom.hu < -700))  # the lungs, and rims of skin and of gas
        lungs = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
        assert centre(phantom, lungs)[2] > liver[2] + 20
        sizes = np.bincount(components(phantom.labels == LIVER)[0].ravel())[1:]
        assert sizes.max() > 0.95 * sizes.sum()


def test_organs_have_their_hu_and_neighbours_that_share_it(phantoms):
    enhanced = [p for p in phantoms if np.median(p.hu[p.labels == LIVER]) > 90]
    assert len(enhanced) >= 5
    for phantom in enhanced:
        assert np.median(phantom.hu[phantom.labels == VEIN]) > np.median(phantom.hu[phantom.labels == LIVER]) - 5
        background = phantom.hu[phantom.labels == 0]
        low, high = np.percentile(phantom.hu[phantom.labels == LIVER], [10, 90])
        assert ((background > low) & (background < high)).sum() > 0.3 * (phantom.labels == LIVER).sum()


def test_patients_differ_and_one_in_twenty_has_no_gallbladder(phantoms):
    patients = [draw_patient(np.random.default_rng((0, case))) for case in range(2000)]
    without = np.mean([not patient.gallbladder for patient in patients])
    assert abs(without - NO_GALLBLADDER) < 4 * np.sqrt(NO_GALLBLADDER * (1 - NO_GALLBLADDER) / 2000)
    for phantom, patient in zip(phantoms, patients, strict=False):
        assert (phantom.labels == GALLBLADDER).any() == patient.gallbladder
    livers = [(phantom.labels == LIVER).sum() for phantom in phantoms]
    assert np.std(livers) > 0.1 * np.mean(livers)


def files(root) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_bytes_depend_on_seed_and_number_alone(tmp_path):
    for name, cases, seed, workers in (("a", 2, 3, 1), ("b", 3, 3, 2), ("c", 1, 4, 1)):
        write_phantoms(tmp_path / name, cases, seed, workers, progress=False)
    a, b, c = (files(tmp_path / name) for name in "abc")
    images = [name for name in a if name.endswith(".nii.gz")]
    assert len(images) == 4
    assert all(a[name] == b[name] for name in images)
    assert len(b) == 7
    assert c["imagesTr/phantom_0000_0000.nii.gz"] != a["imagesTr/phantom_0000_0000.nii.gz"]
    assert a["imagesTr/phantom_0001_0000.nii.gz"] != a["imagesTr/phantom_0000_0000.nii.gz"]

    made, image = make_phantom(3, 1), nib.load(tmp_path / "a" / "imagesTr" / "phantom_0001_0000.nii.gz")
    assert np.array_equal(np.asanyarray(image.dataobj), made.hu)
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(image.affine, made.affine)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


def test_an_interrupted_generation_goes_on_where_it_stopped(tmp_path):
    write_phantoms(tmp_path, 2, workers=1, progress=False)
    whole = files(tmp_path)
    label = tmp_path / "labelsTr" / "phantom_0001.nii.gz"
    label.unlink()
    (tmp_path / "labelsTr" / ".123-phantom_0001.nii.gz").write_bytes(b"half")  # of a killed process
    kept = tmp_path / "imagesTr" / "phantom_0000_0000.nii.gz"
    os.utime(kept, (1, 1))
    cases = phantom_cases(tmp_path, 2)
    assert [case.id for case in cases] == ["phantom_0000", "phantom_0001"]
    assert kept.stat().st_mtime == 1
    assert label.read_bytes() == whole["labelsTr/phantom_0001.nii.gz"]


def test_a_folder_of_other_phantoms_is_refused_and_left_alone(tmp_path):
    write_phantoms(tmp_path, 1, workers=1, progress=False)
    before = files(tmp_path)
    for cases, seed in ((2, 0), (1, 5)):
        with pytest.raises(InputError, match=r"dataset.json: describes another data set") as refusal:
            write_phantoms(tmp_path, cases, seed)
        assert "\n" not in str(refusal.value)
    assert files(tmp_path) == before
    with pytest.raises(InputError, match="phantoms=0"):
        write_phantoms(tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null"])
def test_a_damaged_description_is_refused_in_a_line(tmp_path, content):
    write_phantoms(tmp_path, 1, workers=1, progress=False)
    (tmp_path / "dataset.json").write_bytes(content)
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"dataset.json: (cannot be read|describes another).* data.root ") as refusal:
        phantom_cases(tmp_path, 1)
    assert "\n" not in str(refusal.value)
    assert files(tmp_path) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_told_and_leaves_no_half_of_a_phantom(tmp_path, workers):
    for room, name in ((100, "dataset.json"), (50_000, "imagesTr/phantom_000")):
        with room_for(room), pytest.raises(OSError, match="File too large") as failure:
            write_phantoms(tmp_path / "phantoms", 2, workers=workers, progress=False)
        assert failure.value.errno == errno.EFBIG
        assert failure.value.filename.startswith(str(tmp_path / "phantoms" / name))
        assert list(files(tmp_path / "phantoms")) == (["dataset.json"] if room > 100 else [])


def test_half_a_phantom_is_drawn_again_and_what_a_kill_left_is_removed(tmp_path):
    write_phantoms(tmp_path, 1, workers=1, progress=False)
    whole = files(tmp_path)
    (tmp_path / "imagesTr" / "phantom_0000_0000.nii.gz").unlink()
    (tmp_path / "labelsTr" / ".123-phantom_0000.nii.gz").write_bytes(b"half")
    write_phantoms(tmp_path, 1, workers=1, progress=False)
    assert files(tmp_path) == whole
