"""Organs of a label map, drawn or predicted, that are not as organs are."""

import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import label as connected

from lightning_dice.data import organs
from lightning_dice.data.cases import Case, LabelFile
from lightning_dice.data.organs import PIECE_MM, check_missing, check_organs
from tests.conftest import NAMES, PAPER
from tests.damaged import AFFINE, body

LIVER, SPLEEN, GALLBLADDER, VEIN = (NAMES.index(name) for name in ("liver", "spleen", "gallbladder", "vein"))
LARGE = (40, 40, 60)  # of 10 mm: room for more than an abdomen


def declared(*names: str) -> Case:
    ids = ((0, ()), *((NAMES.index(name), (name,)) for name in names))
    return Case("somebody", "image.nii.gz", (LabelFile("label.nii.gz", ids),))


ALL = declared(*NAMES[1:])


def found(hu, label, affine=AFFINE, case=ALL, how="predicted") -> list[tuple[str, str]]:
    findings = list(check_organs(case, PAPER, hu, label, affine, how))
    assert {(one.case, one.file, one.level) for one in findings} <= {("somebody", "label.nii.gz", "warning")}
    return [(one.check, one.value) for one in findings]


def block(index: int, *boxes, shape=LARGE) -> tuple[np.ndarray, np.ndarray]:
    """HU and classes of an organ that is made of boxes, each (start, stop) per axis."""
    label = np.zeros(shape, np.uint8)
    for box in boxes:
        label[tuple(slice(*side) for side in box)] = index
    return np.where(label, 60, -1000).astype(np.int16), label


def test_a_sound_body_gives_nothing():
    assert found(*body(0)) == []


def test_only_declared_organs_are_looked_at():
    hu, label = (array[::-1] for array in body(0))
    assert [check for check, _ in found(hu, label)] == ["left-right"]
    assert not found(hu, label, case=declared("liver", "pancreas"))
    small = AFFINE @ np.diag([0.1, 0.1, 0.1, 1])
    assert found(hu, label, small, declared("liver", "gallbladder"), "labelled") == [
        ("volume", "its labelled liver has 0.5 mL"),
        ("volume", "its labelled gallbladder has 0.012 mL"),
    ]


def test_an_organ_that_the_scan_cuts_may_be_small_but_not_large():
    hu, label = block(LIVER, ((5, 8), (8, 10), (57, 59)))
    assert found(hu, label) == [("volume", "its predicted liver has 12 mL")]
    assert found(*block(LIVER, ((5, 8), (8, 10), (57, 60)))) == []
    assert found(*block(LIVER, ((5, 25), (5, 25), (40, 60)))) == [("volume", "its predicted liver has 8000 mL")]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("codes", ["LPS", "RAS", "SPL", "ARI"])
def test_a_mirrored_scan_is_told_in_any_order_of_voxels(codes, order):
    hu, label = body(0)
    for image, expected in ((label, []), (label[::-1], ["left-right"])):
        turn = nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, ("LPS", codes)))
        turned = nib.Nifti1Image(image, AFFINE).as_reoriented(turn)
        values = nib.Nifti1Image(hu if image is label else hu[::-1], AFFINE).as_reoriented(turn)
        hu_, label_ = (np.asarray(one.dataobj, order=order) for one in (values, turned))
        result = found(hu_, label_, turned.affine)
        assert [check for check, _ in result] == expected
        assert not result or "mm to the left of its spleen" in result[0][1]


def test_an_organ_in_pieces_far_apart_is_told():
    far = ((5, 13), (5, 13), (5, 13)), ((25, 33), (25, 33), (35, 43))
    assert found(*block(LIVER, *far)) == [
        ("pieces", "its predicted liver is in pieces, and the largest has 50% of it"),
    ]
    assert found(*block(VEIN, *far)) == []  # vessels part
    small = ((5, 13), (5, 13), (5, 13)), ((25, 29), (25, 29), (35, 39))  # 64 of 576 mL
    assert found(*block(LIVER, *small)) == []
    corner = ((5, 13), (5, 13), (5, 13)), ((13, 21), (13, 21), (13, 21))
    assert found(*block(LIVER, *corner)) == []


def test_an_organ_from_neck_to_pelvis_is_told():
    """Of a volume, HU and shape that a liver can have, as of muscle and bladder."""
    hu, label = block(LIVER, ((10, 17), (10, 18), (3, 52)))
    assert found(hu, label) == [("height", "its predicted liver is 490 mm tall")]
    assert found(*block(LIVER, ((10, 17), (10, 18), (3, 37)))) == []
    turned, turned_hu = label.transpose(2, 0, 1), hu.transpose(2, 0, 1)
    assert [check for check, _ in found(turned_hu, turned, AFFINE[:, [2, 0, 1, 3]])] == ["height"]
    assert found(turned_hu, turned) == []  # 490 mm from right to left


def test_a_liver_of_more_than_twice_the_median_is_told():
    assert found(*block(LIVER, ((10, 24), (10, 24), (10, 26)))) == [("volume", "its predicted liver has 3136 mL")]
    assert found(*block(LIVER, ((10, 24), (10, 24), (10, 25)))) == []  # 2940 mL


def test_an_organ_of_lung_and_bone_is_told():
    hu, label = block(LIVER, ((10, 20), (10, 20), (10, 20)))
    hu[10:20, 10:20, 10] = -800
    assert found(hu, label) == []  # the margin of a lung
    hu[10:20, 10:20, 19] = 700
    assert found(hu, label) == [("organ HU", "its predicted liver is 20% air, lung or bone")]
    hu[label == LIVER] = 0
    assert found(hu, label) == []
    hu[label == LIVER] = -90
    assert found(hu, label) == [("organ HU", "its predicted liver has a median of -90 HU")]


def test_nothing_at_all_is_one_warning():
    hu, label = block(LIVER)
    assert found(hu, label) == [("empty", "holds only background")]


def test_organs_that_are_missing_are_told_where_the_scan_has_room_for_them():
    counts = np.full(len(NAMES), 9)
    assert not list(check_missing(ALL, PAPER, counts, (50, 50, 20), AFFINE))
    counts[[SPLEEN, GALLBLADDER]] = 0
    (one,) = check_missing(ALL, PAPER, counts, (50, 50, 20), AFFINE)
    assert (one.case, one.file, one.level, one.check) == ("somebody", "label.nii.gz", "warning", "missing organ")
    assert one.value == "has no predicted spleen, gallbladder"
    assert one.expected.startswith("all organs in a scan 200 mm tall, unless")
    assert not list(check_missing(ALL, PAPER, counts, (50, 50, 19), AFFINE))  # 190 mm
    assert not list(check_missing(ALL, PAPER.select(["liver"]), (9, 9), (50, 50, 20), AFFINE))
    (other,) = check_missing(ALL, PAPER, counts, (20, 50, 50), AFFINE[:, [2, 0, 1, 3]])
    assert other.value == one.value
    counts[1:] = 0
    assert not list(check_missing(ALL, PAPER, counts, (50, 50, 20), AFFINE))  # told as empty


@pytest.mark.parametrize("spacing", [(0.7, 0.8, 1.25), (0.1, 3, 5), (4, 4, 4)])
def test_pieces_are_those_of_the_whole_grid_and_close_ones_count_as_one(spacing):
    """Against labelling at full resolution, where the gaps are wider than PIECE_MM."""
    rng = np.random.default_rng(0)
    shape = np.array([60, 50, 40])
    affine = np.diag([*spacing, 1.0])
    gap = (np.ceil(2 * PIECE_MM / np.array(spacing)) + 1).astype(int)
    mask = np.zeros(shape * 2 + gap, bool)
    for corner in np.ndindex(2, 2, 2):
        size = rng.integers(shape // 3, shape)
        mask[
            tuple(slice(c * (s + g), c * (s + g) + n) for c, s, g, n in zip(corner, shape, gap, size, strict=True))
        ] = 1
    pieces, count = connected(mask)
    assert count == 8
    voxels = np.bincount(pieces.ravel())[1:]
    share, height = organs._largest_piece(mask, affine)
    assert share == pytest.approx(voxels.max() / voxels.sum())
    z = np.nonzero(pieces == 1 + voxels.argmax())[2]
    assert height == pytest.approx((np.ptp(z) + 1) * spacing[2], abs=2 * PIECE_MM)
    mask[:, :, int(np.median(z))] = False  # a gap of one voxel
    split = np.bincount(connected(mask)[0].ravel())[1:]
    expected = share if spacing[2] < PIECE_MM / 2 else split.max() / split.sum()
    assert organs._largest_piece(mask, affine)[0] == pytest.approx(expected, abs=0.02)
    assert split.max() < 0.9 * voxels.max()


def test_a_large_label_map_is_never_copied_to_a_wider_type(monkeypatch):
    """Added memory: less than 2 bytes per voxel even where an organ fills the scan; int32 would be 4, int64 8."""
    monkeypatch.setattr(organs, "SAMPLE", 10**5)  # of HU, beside that
    shape = (200, 200, 100)
    label = np.full(shape, LIVER, np.uint8)
    label[:, :, ::2] = SPLEEN
    hu = np.zeros(shape, np.int16)
    tracemalloc.start()
    list(check_organs(ALL, PAPER, hu, label, np.diag([0.7, 0.7, 0.7, 1.0]), "predicted"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * label.size


def test_a_sample_of_the_hu_does_for_many_voxels(monkeypatch):
    hu, label = block(LIVER, ((10, 20), (10, 20), (10, 20)))
    hu += np.random.default_rng(0).normal(0, 20, hu.shape).astype(np.int16)
    monkeypatch.setattr(organs, "SAMPLE", 100)
    assert found(hu, label) == []
    hu[label == LIVER] -= 500
    assert [check for check, _ in found(hu, label)] == ["organ HU"]
