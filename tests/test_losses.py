"""Losses of other packages: their own values, on the target and with the class weights that they expect."""

import math

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss, FocalLoss, GeneralizedDiceLoss, TverskyLoss
from torch import nn

from lightning_dice.build import build_module, settle
from lightning_dice.errors import InputError
from lightning_dice.losses import TARGETS, AnyLoss, build_loss, warn_of_absent
from tests import oracle
from tests.test_config import composed, names, with_one_case

VOXELS = (5000, 10, 25, 300, 70, 40, 11, 4)
SMALL = ["data.patch_size=8"]


def made(*overrides):
    """The loss of a configuration, with the counts above."""
    config = settle(composed("train", *SMALL, *overrides))
    return build_loss(config.loss, with_one_case(config, VOXELS))


def draw(classes=8):
    """Logits and uint8 indices, as the module gives them, and the latter one-hot by hand; all classes are there."""
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(2, classes, 4, 3, 5, generator=generator)
    target = torch.randint(0, classes, (2, 4, 3, 5), generator=generator).to(torch.uint8)
    one_hot = torch.zeros(2, classes, 4, 3, 5)
    for place in torch.cartesian_prod(*(torch.arange(size) for size in target.shape)).tolist():
        b, x, y, z = place
        one_hot[b, target[b, x, y, z].item(), x, y, z] = 1
    return logits, target, one_hot


def weights(kind) -> torch.Tensor:
    return torch.tensor(oracle.weights(VOXELS, kind))


DIRECTLY = {  # the same through the package's own door, on one-hot targets
    ("loss=dice_ce",): lambda: DiceCELoss(softmax=True),
    ("loss._target_=monai.losses.DiceCELoss", "+loss.softmax=true", "+loss.to_onehot_y=true"): lambda: DiceCELoss(
        softmax=True
    ),
    ("loss=generalized_dice",): lambda: GeneralizedDiceLoss(softmax=True),
    ("loss=tversky",): lambda: TverskyLoss(softmax=True, alpha=0.3, beta=0.7),
    ("loss=focal",): lambda: FocalLoss(use_softmax=True),
    ("loss=focal", "loss.weighting=square", "loss.gamma=3"): lambda: FocalLoss(
        use_softmax=True, gamma=3, weight=weights("square")
    ),
}


@pytest.mark.parametrize("overrides", DIRECTLY, ids=" ".join)
def test_values_and_gradients_are_monais_own(overrides):
    logits, target, one_hot = draw()
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    value, expected = made(*overrides)(ours, target), DIRECTLY[overrides]()(theirs, one_hot)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)


def test_both_parts_of_dice_ce_are_weighted():
    logits, target, one_hot = draw()
    w = weights("simple")
    dice = DiceLoss(softmax=True, weight=w)(logits, one_hot)
    cross_entropy = nn.functional.cross_entropy(logits, target.long(), w)
    loss = made("loss=dice_ce", "loss.weighting=simple")
    assert loss(logits, target).item() == pytest.approx((dice + cross_entropy).item(), rel=1e-6)


@pytest.mark.parametrize("weighting", ["uniform", "simple", "square"])
@pytest.mark.parametrize("asked", ["loss=cross_entropy", "loss._target_=torch.nn.CrossEntropyLoss"])
def test_cross_entropy_is_weighted_by_equations_3_to_5(asked, weighting):
    logits, target, _ = draw()
    loss = made(asked, f"loss.weighting={weighting}")
    w = oracle.weights(VOXELS, weighting)
    summed, share = 0.0, 0.0
    for b, x, y, z in torch.cartesian_prod(*(torch.arange(size) for size in target.shape)).tolist():
        true = target[b, x, y, z].item()
        summed -= w[true] * math.log(oracle.softmax(logits[b, :, x, y, z].double().tolist())[true])
        share += w[true]
    assert loss(logits, target).item() == pytest.approx(summed / share, rel=1e-5)
    assert loss.weights.tolist() == pytest.approx(w)


def test_one_voxel_of_cross_entropy_worked_by_hand():
    # Softmax of (ln 3, 0) is (3/4, 1/4): -ln 3/4 for class 0.
    logits = torch.tensor([math.log(3), 0.0]).reshape(1, 2, 1, 1, 1)
    loss = AnyLoss(nn.CrossEntropyLoss(), "loss", "indices")
    assert loss(logits, torch.zeros(1, 1, 1, 1, dtype=torch.uint8)).item() == pytest.approx(-math.log(3 / 4))


def test_the_sum_of_two_is_their_sum_by_factors():
    logits, target, _ = draw()
    first, second = made("loss=square"), made("loss=focal", "loss.weighting=simple")
    asked = ["loss=sum", "loss@loss.first=square", "loss@loss.second=focal", "loss.second.weighting=simple"]
    expected = 0.5 * first(logits, target).item() + 3 * second(logits, target).item()
    assert made(*asked, "loss.factors=[0.5,3]")(logits, target).item() == pytest.approx(expected, rel=1e-6)


def test_a_target_comes_in_the_format_asked_for():
    target = torch.tensor([[[[0, 2]]]], dtype=torch.uint8)
    given = {name: TARGETS[name](target, 3) for name in TARGETS}
    assert {name: (value.dtype, value.tolist()) for name, value in given.items()} == {
        "indices": (torch.int64, [[[[0, 2]]]]),
        "channel": (torch.int64, [[[[[0, 2]]]]]),
        "one_hot": (torch.float32, [[[[[1, 0]]], [[[0, 0]]], [[[0, 1]]]]]),
    }


def test_a_format_of_ones_own_choice_takes_the_place_of_the_usual_one():
    logits, target, one_hot = draw()
    asked = ["loss._target_=torch.nn.BCEWithLogitsLoss", "+loss._target_format_=one_hot"]
    expected = nn.functional.binary_cross_entropy_with_logits(logits, one_hot)
    assert made(*asked)(logits, target).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", sorted(set(names("loss")) - {"uniform", "simple", "square", "sum"}))
def test_a_loss_is_computed_in_float32_under_autocast(name):
    logits, target, _ = draw()
    loss = made(f"loss={name}")
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits.bfloat16(), target)
    assert value.dtype == torch.float32
    assert value == loss(logits.bfloat16().float(), target)


def test_the_papers_losses_get_the_modules_own_target():
    config = settle(composed("train", "network.base_channels=2", "loss=simple"))
    assert type(build_module(config, with_one_case(config)).loss).__name__ == "DiceLoss"


class Strange(nn.Module):
    """Gives what it is told to."""

    def __init__(self, gives="none", weight=None):
        super().__init__()
        self.gives = gives

    def forward(self, logits, target):
        return {
            "none": lambda: None,
            "voxels": lambda: logits.mean(dim=1),
            "infinity": lambda: logits.mean() + math.inf,
            "squares": lambda: (logits - target).square().mean(),
            "count": lambda: logits.argmax(dim=1).float().mean(),
        }[self.gives]()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["loss._target_=tests.test_losses.Strange"], "tests.test_losses.Strange: gives a NoneType; expected a finite"),
        (["loss._target_=tests.test_losses.Strange", "+loss.gives=voxels"], "gives a tensor of shape (2, 16, 16, 16)"),
        (["loss._target_=tests.test_losses.Strange", "+loss.gives=infinity"], "gives inf; expected a finite scalar"),
        (["loss._target_=tests.test_losses.Strange", "+loss.gives=count"], " without a gradient; expected a finite"),
        (["loss._target_=tests.test_losses.Strange", "+loss.gives=x"], "(KeyError: 'x'); expected a loss that takes"),
        (["loss=cross_entropy", "+loss.reduction=none"], "CrossEntropyLoss: gives a tensor of shape (2, 16, 16, 16)"),
        (["loss._target_=monai.losses.DiceLoss"], "monai.losses.DiceLoss: takes probabilities, and a network gives lo"),
        (["loss=tversky", "loss.softmax=false"], "add ++loss.softmax=true"),
        (["loss._target_=torch.nn.BCELoss", "+loss._target_format_=one_hot"], "should be between 0 and 1); expected a"),
        (
            ["loss._target_=monai.losses.DiceLoss", "+loss.softmax=true"],
            "monai.losses.DiceLoss: fails on logits (2, 8, 16, 16, 16) and",
        ),
        (["loss=dice_ce", "+loss._target_format_=indices"], "a target of the format indices (ValueError: the number"),
        (["loss._target_=torch.nn.MSELoss"], "torch.nn.MSELoss: fails on logits (2, 8, 16, 16, 16) and a target"),
        (  # which would have the classes' weights along the last side, of 8 voxels
            ["loss._target_=torch.nn.BCEWithLogitsLoss", "loss.weighting=simple", "+loss._target_format_=one_hot"],
            "BCEWithLogitsLoss: fails on logits (2, 8, 16, 16, 16) and a target of the format one_hot (RuntimeError: ",
        ),
        (  # which would have each sample's target for all of them
            ["loss._target_=tests.test_losses.Strange", "+loss.gives=squares", "+loss._target_format_=indices"],
            "tests.test_losses.Strange: fails on logits (2, 8, 16, 16, 16) and a target of the format indices (Runtime",
        ),
    ],
)  # fmt: skip
def test_a_loss_that_cannot_train_is_told_in_one_line_before_the_training(overrides, said):
    with pytest.raises(InputError) as refusal:
        made(*overrides)
    assert str(refusal.value).startswith("loss._target_=")
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_trying_a_loss_changes_no_draw():
    class Drawing(nn.Module):
        def forward(self, logits, target):
            return (logits * torch.rand(())).sum()

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    AnyLoss(Drawing(), "loss", "indices").check(2, (4, 4, 4))
    assert torch.equal(torch.rand(3), expected)


ABSENT = (5000, 10, 25, 0, 70, 40, 0, 4)


@pytest.mark.parametrize(
    "asked",
    [
        ("loss=simple", "loss.smooth=0.5"),
        ("loss=square", "loss.normalize=mean"),
        ("loss=sum", "loss@loss.first=focal", "loss@loss.second=simple", "loss.second.normalize=sum"),
    ],
)
def test_a_class_without_voxels_does_not_take_over_the_loss(asked):
    config = settle(composed("train", *SMALL, *asked))
    build_loss(config.loss, with_one_case(config, VOXELS))
    with pytest.raises(InputError) as refusal:
        build_loss(config.loss, with_one_case(config, ABSENT))
    assert str(refusal.value).startswith(f"{asked[-1]}: no training voxel is liver, gallbladder, whose weight")


@pytest.mark.parametrize("asked", [("loss=simple",), ("loss=uniform", "loss.smooth=1e-5", "loss.normalize=mean")])
def test_a_class_without_voxels_is_harmless_where_its_weight_counts_nothing(asked):
    config = settle(composed("train", *SMALL, *asked))
    logits, target, _ = draw()
    target[(target == 3) | (target == 6)] = 0
    ours = logits.clone().requires_grad_()
    build_loss(config.loss, with_one_case(config, ABSENT))(ours, target).backward()
    assert ours.grad.abs().max() < 1


@pytest.mark.parametrize(
    ("asked", "is_told"),
    [
        (("loss=dice_ce", "loss.weighting=simple"), True),
        (("loss=sum", "loss@loss.first=focal", "loss.first.weighting=square", "loss@loss.second=uniform"), True),
        (("loss=dice_ce",), False),
        (("loss=simple",), False),
    ],
)
def test_the_weight_of_a_class_without_voxels_is_told_with_losses_of_others(asked, is_told, capsys):
    config = settle(composed("train", *SMALL, *asked))
    for voxels, expected in ((VOXELS, False), (ABSENT, is_told)):
        data = with_one_case(config, voxels)
        warn_of_absent(build_loss(config.loss, data), data)
        said = capsys.readouterr().out
        assert said.startswith("warning: liver, gallbladder: no training voxel") if expected else not said
