from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import label as components

from lightning_dice.config import shipped_labels
from lightning_dice.data.phantom.body import NO_GALLBLADDER, SHAPE_XY, SLICES, draw_patient
from lightning_dice.data.phantom.dataset import VERSION, make_phantom
from tests.conftest import NAMES, PAPER

ALL = shipped_labels("phantom_all").names  # with tumours
# Voxels and mean HU of the paper's classes as this version draws them: who changes them raises VERSION. Another machine
# may round a few voxels otherwise.
THIS_VERSION = {
    (0, 0): (
        [1712625, 4150, 1230, 82110, 9840, 7866, 1739, 1112],
        [-473.17, 131.83, 133.76, 104.97, 105.66, -269.73, 3.36, 79.21],
    ),
    (3, 1): (
        [1697269, 2242, 844, 48567, 5755, 7004, 644, 1003],
        [-596.79, 113.31, 120.63, 100.98, 101.3, -133.57, -13.18, 58.18],
    ),
}  # fmt: skip
# Of the others: mL that the median may have in a scan of the abdomen, which cuts some of them, and median HU with or
# without contrast.
OTHERS = {
    "kidney_right": (60, 250, 20, 200), "kidney_left": (100, 250, 20, 200), "inferior_vena_cava": (40, 150, 20, 150),
    "iliac_artery_left": (3, 25, -10, 180), "iliac_artery_right": (3, 25, -10, 180), "heart": (200, 900, 20, 170),
    "lung_left": (500, 2500, -920, -780), "lung_right": (500, 2500, -920, -780), "duodenum": (30, 120, -20, 80),
    "small_bowel": (400, 1500, -20, 80), "colon": (150, 900, -300, 90), "vertebrae": (300, 900, 130, 450),
    "intervertebral_discs": (50, 200, 50, 110), "spinal_cord": (40, 150, 10, 70), "ribs": (150, 600, 200, 500),
    "sternum": (5, 80, 80, 300), "hip_left": (30, 300, 250, 600), "hip_right": (30, 300, 250, 600),
    "skeletal_muscle": (2000, 7000, 30, 80),
}  # fmt: skip
# Shares of voxels in one real CT of TotalSegmentator's repository, in the order of NAMES.
REAL_SHARES = np.array([95.5, 0.13, 0.08, 3.0, 0.70, 0.38, 0.10, 0.04]) / 100
VEIN, LIVER, SPLEEN, GALLBLADDER = (NAMES.index(name) for name in ("vein", "liver", "spleen", "gallbladder"))


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(0, case) for case in range(14)]


def papers(phantom) -> np.ndarray:
    return np.where(phantom.labels < len(NAMES), phantom.labels, 0).astype(np.uint8)


def shares(phantom) -> np.ndarray:
    return np.bincount(papers(phantom).ravel(), minlength=len(NAMES)) / phantom.labels.size


def of(phantom, name: str) -> np.ndarray:
    return phantom.labels == ALL.index(name)


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
            histogram[index] += np.bincount(phantom.hu[papers(phantom) == index] - low, minlength=bins)
    everything = histogram.sum(axis=0)
    best = []
    for organ in histogram[1:]:
        order = np.argsort(-organ / np.maximum(everything, 1))
        found, taken = organ[order].cumsum(), everything[order].cumsum()
        best.append((2 * found / (taken + organ.sum())).max())
    assert np.mean(best) < 0.4, dict(zip(NAMES[1:], np.round(best, 2), strict=True))


@pytest.mark.parametrize(("seed", "case"), THIS_VERSION)
def test_images_and_the_papers_organs_are_those_of_this_version(seed, case):
    assert VERSION == 3
    phantom, (voxels, hu) = make_phantom(seed, case), THIS_VERSION[seed, case]
    organs = papers(phantom)
    assert np.bincount(organs.ravel()).tolist() == pytest.approx(voxels, rel=1e-3, abs=2)
    means = [phantom.hu[organs == index].mean() for index in range(len(NAMES))]
    assert means == pytest.approx(hu, abs=0.1)


@pytest.mark.parametrize("name", OTHERS)
def test_what_else_is_drawn_is_labelled(phantoms, name):
    masks = [of(phantom, name) for phantom in phantoms]
    assert sum(mask.any() for mask in masks) >= len(masks) - 1
    least_ml, most_ml, low, high = OTHERS[name]
    volumes_ml = [mask.sum() * 27 / 1000 for mask in masks]
    assert least_ml < np.median(volumes_ml) < most_ml
    assert max(volumes_ml) < 2 * most_ml
    for phantom, mask in zip(phantoms, masks, strict=True):
        assert not mask.any() or low < np.median(phantom.hu[mask]) < high


def test_every_value_has_its_name(phantoms):
    assert {*ALL} == {*NAMES, *OTHERS, "liver_tumour"}
    assert {*np.unique([phantom.labels.max() for phantom in phantoms])} == {ALL.index("skeletal_muscle")}
    assert ALL.index("liver_tumour") == ALL.index("skeletal_muscle") + 1


@pytest.mark.parametrize("name", ["kidney", "lung", "hip", "iliac_artery"])
def test_left_and_right_are_the_patients(phantoms, name):
    for phantom in phantoms:
        if of(phantom, f"{name}_left").any() and of(phantom, f"{name}_right").any():
            left, right = (centre(phantom, of(phantom, f"{name}_{side}"))[0] for side in ("left", "right"))
            assert left < centre(phantom, of(phantom, "vertebrae"))[0] < right


def test_what_is_bright_is_bone_and_what_is_dark_inside_is_lung(phantoms):
    bone = [ALL.index(name) for name in ("vertebrae", "ribs", "sternum", "hip_left", "hip_right")]
    for phantom in phantoms:
        bright = phantom.labels[phantom.hu > 350]
        assert np.isin(bright, bone).mean() > 0.9
        pieces, _ = components((phantom.hu > -920) & (phantom.hu < -780))
        found = phantom.labels[pieces == np.bincount(pieces.ravel())[1:].argmax() + 1]
        assert np.isin(found, [ALL.index("lung_left"), ALL.index("lung_right")]).mean() > 0.95


def test_the_set_of_all_that_is_drawn_knows_what_the_others_know():
    known, drawn = shipped_labels("totalsegmentator"), shipped_labels("phantom_all")
    assert drawn.labels[: len(NAMES)] == PAPER.labels
    assert len({label.colour for label in drawn.labels}) == len(drawn)
    for label in drawn.organs[len(NAMES) - 1 :]:
        if label.name in known.names:
            theirs = known.labels[known.names.index(label.name)]
            assert replace(label, colour=theirs.colour) == theirs


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
        pieces, _ = components((phantom.hu > -920) & (phantom.hu < -780))  # the lungs, and rims of skin, gas and table
        lungs = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
        assert centre(phantom, lungs)[2] > liver[2] + 20
        sizes = np.bincount(components(phantom.labels == LIVER)[0].ravel())[1:]
        assert sizes.max() > 0.95 * sizes.sum()


def test_organs_have_their_hu_and_neighbours_that_share_it(phantoms):
    enhanced = [p for p in phantoms if np.median(p.hu[p.labels == LIVER]) > 90]
    assert len(enhanced) >= 5
    for phantom in enhanced:
        assert np.median(phantom.hu[phantom.labels == VEIN]) > np.median(phantom.hu[phantom.labels == LIVER]) - 5
        background = phantom.hu[papers(phantom) == 0]
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


def test_the_skin_is_smooth(phantoms):
    """The front's height over each place departs little from a curve of the fourth degree across the body."""
    across = 3 * np.arange(-25, 26)
    for phantom in phantoms:
        middle = round(-phantom.affine[0, 3] / 3)
        columns = phantom.hu[middle - 25 : middle + 26] > -400
        height = 3 * (columns.shape[1] - columns[:, ::-1].argmax(axis=1))
        curves = np.polynomial.polynomial.polyfit(across / 75, height, 4)
        rest = height - np.polynomial.polynomial.polyval(across / 75, curves).T
        assert rest.std() < 1.1


def test_no_lung_lies_under_what_rests_on_the_diaphragm_or_hangs_below(phantoms):
    """But for the sides of the heart, and rims."""
    for phantom in phantoms:
        lung = of(phantom, "lung_left") | of(phantom, "lung_right")
        organs = [ALL.index(name) for name in ("liver", "stomach", "spleen", "heart", "small_bowel", "colon")]
        above = np.logical_or.accumulate(np.isin(phantom.labels, organs)[..., ::-1], axis=2)[..., ::-1]
        assert (lung & above).sum() < 0.01 * lung.sum()


def test_the_colon_is_one(phantoms):
    for phantom in phantoms:
        sizes = np.bincount(components(of(phantom, "colon"))[0].ravel())[1:]
        assert sizes.max() > 0.95 * sizes.sum()


def test_the_spine_is_curved_and_thick_muscles_lie_behind_it(phantoms):
    lordoses = []
    for phantom in phantoms:
        x, y, z = (phantom.affine[axis, 3] + 3 * np.arange(size) for axis, size in enumerate(phantom.hu.shape))
        lumbar, thoracic = (
            centre(phantom, of(phantom, "spinal_cord") & (np.abs(z - height) < 10)) for height in (-75, 100)
        )
        lordoses.append(lumbar[1] - thoracic[1])
        muscle = of(phantom, "skeletal_muscle")[:, y < lumbar[1]][..., np.abs(z + 40) < 10]
        for side in (-33, 33):
            columns = 3 * muscle[np.abs(x - lumbar[0] - side) < 6].sum(axis=1)
            assert columns.mean() > 20
    assert np.mean(lordoses) > 12


def test_most_lie_on_a_table(phantoms):
    """Something that is no air, beside and below the patient."""
    assert np.mean([(phantom.hu[[3, -4], :30] > -500).any() for phantom in phantoms]) > 0.7
