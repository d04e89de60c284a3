import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss as MonaiDiceLoss

from lightning_dice.loss import POOLS, WEIGHTINGS, DiceLoss, class_weights
from tests import oracle

COUNTS = (5000, 10, 25, 300, 70, 40, 11, 4)


def make_loss(classes=4, **settings_) -> DiceLoss:
    loss = DiceLoss(**settings_)
    loss.set_class_voxels(COUNTS[:classes])
    return loss


def draw(seed, batch=2, classes=4, size=(3, 2, 4)):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, *size, generator=generator)
    return logits, torch.randint(0, classes, (batch, *size), generator=generator)


# ---------------------------------------------------------------------------------------------------------- weights


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=9), st.sampled_from(WEIGHTINGS), st.floats(0.1, 10))
def test_weights_are_equations_3_to_5(counts, weighting, epsilon):
    result = class_weights(counts, weighting, epsilon)
    assert result.dtype == torch.float64
    assert np.allclose(result, oracle.weights(counts, weighting, epsilon), rtol=1e-12, atol=0)


def test_weights_worked_by_hand():
    # N = 12, L = 3: 12 / (3·8 + 1), 12 / (3·4 + 1), 12 / (0 + 1), and with the counts squared 12 / (3·64 + 1), …
    assert class_weights([8, 4, 0], "simple").tolist() == [12 / 25, 12 / 13, 12.0]
    assert class_weights([8, 4, 0], "square").tolist() == [12 / 193, 12 / 49, 12.0]
    assert class_weights([8, 4, 0], "uniform").tolist() == [1.0, 1.0, 1.0]
    assert class_weights([8, 4, 0], "simple", epsilon=2).tolist() == [12 / 26, 12 / 14, 6.0]


def test_equal_frequencies_have_the_simple_weight_one():
    assert torch.allclose(class_weights([10**9] * 8, "simple"), torch.ones(8, dtype=torch.float64), rtol=1e-9)


def test_a_billion_voxels_keep_their_precision():
    # L·R² = 8·10¹⁸ lies beyond int64 when N·… is formed carelessly, and float32 would keep 7 digits
    counts = [10**9, 3 * 10**9, 123_456_789, 10**6, 5, 1, 0, 10**9]
    exact = [sum(counts) / (8 * count**2 + 1) for count in counts]  # Python integers do not overflow
    assert class_weights(counts, "square").tolist() == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize("counts", [[], [[1, 2]], [1, -1], [1.0, math.nan], [1.0, math.inf]])
def test_counts_that_are_none_are_refused(counts):
    with pytest.raises(ValueError, match="voxels_per_class="):
        class_weights(counts, "simple")


@pytest.mark.parametrize(
    ("argument", "value", "choices"),
    [
        ("weighting", "smple", "uniform, simple, square"),
        ("pool", "voxel", "batch, sample"),
        ("normalize", "max", "mean, sum"),
    ],
)
def test_an_unknown_choice_names_the_choices(argument, value, choices):
    with pytest.raises(ValueError, match=f"{argument}='{value}'.*{choices}"):
        DiceLoss(**{argument: value})


# ------------------------------------------------------------------------------------------------------------- loss


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from(WEIGHTINGS), st.sampled_from(POOLS), st.sampled_from([0.0, 1e-5, 1.0]),
    st.sampled_from([None, "none", "mean", "sum"]),
)  # fmt: skip
def test_the_loss_is_equation_6(seed, weighting, pool, smooth, normalize):
    logits, target = draw(seed)
    loss = make_loss(weighting=weighting, pool=pool, smooth=smooth, normalize=normalize)
    w = np.array(oracle.weights(COUNTS[:4], weighting))
    w = w / {"mean": w.mean(), "sum": w.sum()}.get(normalize, 1.0)
    if pool == "batch":
        expected = oracle.dice_loss(logits, target, w, smooth)
    else:
        expected = np.mean([oracle.dice_loss(x[None], t[None], w, smooth) for x, t in zip(logits, target, strict=True)])
    assert loss(logits, target).item() == pytest.approx(expected, rel=2e-6)
    assert loss(logits.double(), target).item() == pytest.approx(expected, rel=1e-12)


def test_two_voxels_worked_by_hand():
    # Softmax of (ln 3, 0) is (3/4, 1/4), of (0, 0) it is (1/2, 1/2); the truth is class 0, then class 1.
    # Class 0: 2·3/4 / (5/4 + 1) = 2/3. Class 1: 2·1/2 / (3/4 + 1) = 4/7. Uniform: -(2/3 + 4/7)/2 = -13/21.
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]], dtype=torch.float64).reshape(1, 2, 1, 1, 2)
    target = torch.tensor([0, 1]).reshape(1, 1, 1, 2)
    assert DiceLoss()(logits, target).item() == pytest.approx(-13 / 21, rel=1e-12)
    # Counts 3 and 1: simple weights 4/(2·3 + 1) = 4/7 and 4/(2·1 + 1) = 4/3; -(4/7·2/3 + 4/3·4/7)/2 = -4/7.
    loss = DiceLoss("simple")
    loss.set_class_voxels([3, 1])
    assert loss(logits, target).item() == pytest.approx(-4 / 7, rel=1e-12)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_perfect_prediction_has_minus_the_mean_weight(weighting):
    loss = make_loss(weighting=weighting)
    target = torch.arange(24).reshape(1, 2, 3, 4) % 4
    logits = 200.0 * torch.nn.functional.one_hot(target, 4).movedim(-1, 1)
    assert loss(logits, target).item() == pytest.approx(-loss.weights.mean().item(), rel=1e-6)
    assert loss.least == -loss.weights.mean().item()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_gradients_are_those_of_the_values(weighting, pool, smooth):
    logits, target = draw(3, classes=3, size=(2, 1, 2))
    target[target == 2] = 1  # class 2 is absent
    loss = make_loss(3, weighting=weighting, pool=pool, smooth=smooth)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.double().requires_grad_())


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("pool", POOLS)
def test_monai_differs_by_the_mean_weight_and_has_the_same_gradient(weighting, pool):
    logits, target = draw(7, batch=3, classes=8, size=(6, 5, 4))
    ours = make_loss(8, weighting=weighting, pool=pool)
    theirs = MonaiDiceLoss(
        softmax=True, to_onehot_y=True, smooth_nr=0, smooth_dr=0, batch=pool == "batch", weight=ours.weights.float()
    )
    a, b = (logits.clone().requires_grad_() for _ in range(2))
    value, reference = ours(a, target), theirs(b, target[:, None])
    assert value.item() == pytest.approx(reference.item() - ours.weights.mean().item(), rel=1e-4)
    value.backward()
    reference.backward()
    assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6 * b.grad.abs().max().item())


def test_an_absent_class_has_dice_0_and_pulls_nowhere():
    logits, target = draw(5)
    target[target == 3] = 0
    loss = DiceLoss("square")
    loss.set_class_voxels((5000, 10, 25, 0))  # its weight is N / ε, by far the largest
    logits.requires_grad_()
    value = loss(logits, target)
    value.backward()
    w = oracle.weights((5000, 10, 25, 0), "square")
    assert value.item() == pytest.approx(oracle.dice_loss(logits.detach(), target, [*w[:3], 0.0]), rel=1e-5)
    # The same without its term: what is left is the pull of the other classes through the softmax.
    without = logits.detach().clone().requires_grad_()
    loss.set_class_voxels((5000, 10, 25, 0))
    loss.weights[3] = 0.0
    loss(without, target).backward()
    assert torch.equal(logits.grad, without.grad)


def test_an_all_background_crop_is_finite_and_only_background_pulls():
    logits, _ = draw(6)
    target = torch.zeros(2, 3, 2, 4, dtype=torch.long)
    for weighting in WEIGHTINGS:
        x = logits.clone().requires_grad_()
        loss = make_loss(weighting=weighting)
        value = loss(x, target)
        value.backward()
        s = logits.softmax(1)[:, 0].double().sum()
        assert value.item() == pytest.approx((-loss.weights[0] * 2 * s / (s + 48) / 4).item(), rel=1e-5)
        assert x.grad.isfinite().all()
        assert (x.grad[:, 0] < 0).all()
        assert (x.grad[:, 1:] > 0).all()


def test_a_class_neither_there_nor_predicted_to_the_last_bit_is_finite():
    logits = torch.zeros(1, 2, 1, 1, 3)
    logits[:, 1] = -1e4  # its softmax underflows to 0
    logits.requires_grad_()
    value = DiceLoss()(logits, torch.zeros(1, 1, 1, 3, dtype=torch.long))
    value.backward()
    assert value.item() == -0.5
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integer_targets_with_and_without_a_channel(dtype):
    logits, target = draw(8)
    expected = make_loss(weighting="simple")(logits, target)
    assert make_loss(weighting="simple")(logits, target.to(dtype)) == expected
    assert make_loss(weighting="simple")(logits, target[:, None].to(dtype)) == expected


@given(st.permutations(range(4)), st.sampled_from(WEIGHTINGS))
@settings(deadline=None, max_examples=15)
def test_the_order_of_classes_does_not_matter(order, weighting):
    logits, target = draw(9)
    renamed = torch.tensor(order).argsort()[target]
    loss = DiceLoss(weighting)
    loss.set_class_voxels([COUNTS[k] for k in order])
    assert loss(logits[:, order], renamed).item() == pytest.approx(
        make_loss(weighting=weighting)(logits, target).item(), rel=1e-5
    )


def test_the_loss_stays_float32_under_autocast():
    logits, target = draw(10)
    half = logits.bfloat16()
    loss = make_loss(weighting="square")
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, target)
    assert value.dtype == torch.float32
    assert value == loss(half.float(), target)
    assert loss.weights.dtype == torch.float64


def test_counts_may_be_given_again():
    logits, target = draw(11)
    loss = make_loss(weighting="simple")
    first = loss(logits, target)
    loss.set_class_voxels((1, 2, 3, 4))
    assert loss(logits, target) != first
    assert loss(logits, target).item() == pytest.approx(
        oracle.dice_loss(logits, target, oracle.weights((1, 2, 3, 4), "simple")), rel=1e-5
    )


def test_a_state_dict_holds_no_weights():
    assert not make_loss(weighting="simple").state_dict()


@pytest.mark.parametrize("weighting", ["simple", "square"])
def test_missing_counts_are_told(weighting):
    with pytest.raises(RuntimeError, match=r"set_class_voxels\(counts\)"):
        DiceLoss(weighting)(*draw(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, t: (x[:, :3], t.clamp(max=2)), "logits with 3 classes: the class counts given are for 4"),
        (lambda x, t: (x, t[:, :2]), r"target of shape \(2, 2, 2, 4\) .* expected \(2, 3, 2, 4\)"),
        (lambda x, t: (x, t.float()), "target of type torch.float32"),
        (lambda x, t: (x, t > 1), "target of type torch.bool"),
        (lambda x, t: (x, t + 1), "labels from 1 to 4: expected 0 to 3"),
        (lambda x, t: (x, t - 1), "labels from -1 to 2: expected 0 to 3"),
    ],
)
def test_arguments_that_do_not_fit_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        make_loss(weighting="simple")(*change(*draw(1)))


@pytest.mark.parametrize("name", ["epsilon", "smooth"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "abc", None, True])
def test_numbers_that_are_none_are_refused_at_once(name, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        DiceLoss(**{name: value})


def test_without_epsilon_an_absent_class_would_weigh_infinitely():
    with pytest.raises(ValueError, match="epsilon=0: expected a finite number above 0"):
        class_weights([3, 0], "simple", epsilon=0)
