import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from torch.overrides import TorchFunctionMode

from lightning_dice.metrics import dice_counts, dice_from_counts, score_case, summarize
from tests import oracle

SPACING = (1.0, 2.0, 3.0)


def box(shape, corner, size, label=1):
    array = np.zeros(shape, np.uint8)
    array[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = label
    return array


def blobs(seed, shape=(14, 12, 10), classes=4):
    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(rng.normal(size=shape), 2) for _ in range(classes)])
    fields[0] += fields.std() / 2
    noisy = fields + np.stack([gaussian_filter(rng.normal(size=shape), 2) for _ in range(classes)]) / 2
    return noisy.argmax(0).astype(np.uint8), fields.argmax(0).astype(np.uint8)


def test_two_boxes_worked_by_hand():
    # 4³ voxels against the same, two further along x: overlap 2·4·4 = 32 of 64, Dice 1/2, Jaccard 32/96.
    # Along x the faces lie 2 voxels = 2 mm apart, and no surface voxel is further from the other surface. The four
    # sides overlap in half. Each surface has 4³ - 2³ = 56 voxels; of them 24 lie in the other's surface (2 slabs of
    # 4² less the core of 2 of 2² … counted out below), so a tolerance of 0 is not 1 and one of 2 mm is.
    truth, prediction = box((12, 10, 10), (2, 3, 3), (4, 4, 4)), box((12, 10, 10), (4, 3, 3), (4, 4, 4))
    score = score_case(prediction, truth, SPACING, 2, surface_tolerance_mm=2.0)[1]
    assert (score.dice, score.jaccard) == (0.5, 32 / 96)
    assert score.hd95_mm == 2.0
    assert score.surface_dice == 1.0
    assert (score.voxels_true, score.voxels_pred) == (64, 64)
    exact = score_case(prediction, truth, SPACING, 2, surface_tolerance_mm=0.0)[1]
    # Shared surface voxels: planes x = 4 and x = 5. On x = 4 the prediction's whole face, 16, meets the truth's ring of
    # 12; on x = 5 the truth's whole face meets the prediction's ring of 12. So 12 + 12 of 56 on either side.
    assert exact.surface_dice == pytest.approx(24 / 56)


@pytest.mark.parametrize("seed", range(5))
def test_overlaps_are_those_of_sets(seed):
    prediction, truth = blobs(seed)
    for score in score_case(prediction, truth, SPACING, 4):
        s, r = ({tuple(v) for v in np.argwhere(a == score.label)} for a in (prediction, truth))
        assert score.dice == pytest.approx(oracle.dsc(s, r))
        assert score.jaccard == pytest.approx(len(s & r) / len(s | r))


def surface(mask):
    """Centres in mm of the voxels that have a face on the outside, by looking at all six neighbours."""
    padded = np.pad(mask, 1)
    inner = np.ones_like(mask)
    for axis in range(3):
        for step in (-1, 1):
            inner &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
    return np.argwhere(mask & ~inner) * SPACING


@pytest.mark.parametrize("seed", range(5))
def test_surface_scores_are_those_of_all_pairs_of_voxels(seed):
    prediction, truth = blobs(seed)
    for score in score_case(prediction, truth, SPACING, 4, surface_tolerance_mm=2.5):
        distances = cdist(surface(prediction == score.label), surface(truth == score.label))
        there, back = distances.min(1), distances.min(0)
        assert score.hd95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
        near = np.concatenate([there, back]) <= 2.5
        assert score.surface_dice == pytest.approx(near.mean(), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_surface_scores_are_monais(seed):
    prediction, truth = blobs(seed, shape=(20, 16, 12))
    hot = [torch.nn.functional.one_hot(torch.from_numpy(a).long(), 4).movedim(-1, 0)[None] for a in (prediction, truth)]
    hd95 = compute_hausdorff_distance(*hot, include_background=True, percentile=95, spacing=SPACING)[0]
    nsd = compute_surface_dice(*hot, [3.0] * 4, include_background=True, spacing=SPACING)[0]
    scores = score_case(prediction, truth, SPACING, 4)
    assert [score.hd95_mm for score in scores] == pytest.approx(hd95.tolist(), rel=1e-6)
    assert [score.surface_dice for score in scores] == pytest.approx(nsd.tolist(), rel=1e-6)


def test_absent_from_both_is_undefined():
    score = score_case(np.zeros((4, 4, 4), int), np.zeros((4, 4, 4), int), SPACING, 2)[1]
    assert all(math.isnan(x) for x in (score.dice, score.jaccard, score.hd95_mm, score.surface_dice))
    assert (score.voxels_true, score.voxels_pred) == (0, 0)


@pytest.mark.parametrize("missing", ["prediction", "truth"])
def test_absent_from_one_is_as_bad_as_can_be(missing):
    full, empty = box((6, 5, 4), (1, 1, 1), (2, 2, 2)), np.zeros((6, 5, 4), np.uint8)
    pair = (empty, full) if missing == "prediction" else (full, empty)
    score = score_case(*pair, SPACING, 2)[1]
    assert (score.dice, score.jaccard, score.surface_dice) == (0, 0, 0)
    assert score.hd95_mm == pytest.approx(math.sqrt(6**2 + 10**2 + 12**2))  # 6·1, 5·2, 4·3 mm


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_missing_an_organ_never_improves_a_score(seed):
    prediction, truth = blobs(seed)
    missed = np.where(prediction == 2, 0, prediction)
    before, after = (score_case(p, truth, SPACING, 4)[2] for p in (prediction, missed))
    if before.voxels_true:
        assert after.dice <= before.dice
        assert after.hd95_mm >= before.hd95_mm
        assert after.surface_dice <= before.surface_dice


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"prediction of shape \(2, 2, 2\) for a truth of shape \(2, 2, 3\)"):
        score_case(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), SPACING, 2)


def test_a_summary_worked_by_hand():
    nan = math.nan
    rows = [
        ("a", 0, "background", 0.9, 0.8, 1.0, 1.0), ("b", 0, "background", 0.7, 0.6, 3.0, 0.8),
        ("a", 1, "liver", 0.5, 0.4, 10.0, 0.5), ("b", 1, "liver", nan, nan, nan, nan),
        ("a", 2, "spleen", 0.0, 0.0, 100.0, 0.0), ("b", 2, "spleen", 0.2, 0.1, 50.0, 0.4),
        ("a", 3, "vein", nan, nan, nan, nan), ("b", 3, "vein", nan, nan, nan, nan),
    ]  # fmt: skip
    columns = ["case", "label", "name", "dice", "jaccard", "hd95_mm", "surface_dice"]
    summary = summarize(pd.DataFrame(rows, columns=columns))
    assert summary["cases"] == 2
    assert summary["classes"]["background"] == pytest.approx(
        {"dice": 0.8, "jaccard": 0.7, "hd95_mm": 2.0, "surface_dice": 0.9, "cases": 2}
    )
    assert summary["classes"]["liver"] == {
        "dice": 0.5,
        "jaccard": 0.4,
        "hd95_mm": 10.0,
        "surface_dice": 0.5,
        "cases": 1,
    }
    assert summary["classes"]["vein"] == {
        "dice": None,
        "jaccard": None,
        "hd95_mm": None,
        "surface_dice": None,
        "cases": 0,
    }
    assert summary["avg"]["dice"] == pytest.approx((0.8 + 0.5 + 0.1) / 3)
    assert summary["avg_without_background"]["dice"] == pytest.approx((0.5 + 0.1) / 2)
    assert summary["max"]["dice"] == pytest.approx(0.8)
    assert summary["min"]["dice"] == pytest.approx(0.1)
    assert summary["max"]["hd95_mm"] == pytest.approx(75.0)


def test_dice_from_counts_of_several_batches():
    prediction, truth = blobs(0)
    halves = [
        dice_counts(torch.from_numpy(p), torch.from_numpy(t), 5)
        for p, t in zip(np.split(prediction, 2), np.split(truth, 2), strict=True)
    ]
    dice = dice_from_counts(sum(halves))
    assert dice[:4].tolist() == pytest.approx([score.dice for score in score_case(prediction, truth, SPACING, 4)])
    assert dice[4].isnan()


@pytest.mark.parametrize("shape", [(40,), (3, 4, 5, 6), (2, 16, 16, 16), (1, 2, 200, 90)])
def test_counts_of_many_classes_take_no_more_room_than_the_voxels(shape):
    generator = torch.Generator().manual_seed(0)
    prediction, target = (torch.randint(0, 104, shape, generator=generator) for _ in range(2))
    with TorchRecorder() as made:
        counts = dice_counts(prediction, target, 104)
    expected = [[((one == c) & (two == c)).sum() for c in range(104)] for one, two in
                ((prediction, target), (prediction, prediction), (target, target))]  # fmt: skip
    assert counts.tolist() == torch.tensor(expected).tolist()
    assert made.most <= max(2 * prediction.numel(), 104**2)


class TorchRecorder(TorchFunctionMode):
    """The elements of the largest tensor that was made."""

    most = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.most = max(self.most, result.numel() if isinstance(result, torch.Tensor) else 0)
        return result
