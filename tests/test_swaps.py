"""What a researcher swaps, swapped on the command line: each choice trains, several at once too."""

import math

import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_dice.build import build_module, settle
from lightning_dice.checkpoints import read_checkpoint
from lightning_dice.errors import InputError
from lightning_dice.recipe import load_network
from lightning_dice.runs import read_json
from lightning_dice.train import train
from tests.test_config import composed, names, with_one_case
from tests.test_losses import Strange
from tests.test_train import config_of


def trained(folder, root, *overrides):
    few = ["data.test=0", "data.validation=0.25", "trainer.max_steps=2", "trainer.val_check_interval=2"]
    return train(config_of(folder, root, *few, *overrides))


def check_points(run):
    points = pd.read_csv(run.metrics)
    assert points["train/loss"].notna().sum() == points["step"].max()
    assert all(math.isfinite(loss) for stage in ("train", "val") for loss in points[f"{stage}/loss"].dropna())


@pytest.mark.parametrize("loss", names("loss"))
def test_every_shipped_loss_trains(loss, nnunet_root, tmp_path):
    run = trained(tmp_path, nnunet_root, f"loss={loss}")
    check_points(run)
    name = "simple+cross_entropy" if loss == "sum" else loss
    assert run.folder.name.startswith(f"loss={name},lr=0.01,seed=0,data.patch_size=16,")
    classes = read_json(run.environment)["classes"]
    weighted = loss in ("uniform", "simple", "square", "dice_ce", "focal", "cross_entropy")
    assert (classes["weights"] is not None) == weighted


@pytest.mark.parametrize(
    "typed",
    [
        "loss._target_=monai.losses.DiceCELoss +loss.softmax=true +loss.to_onehot_y=true",
        "loss._target_=torch.nn.CrossEntropyLoss",
        "loss._target_=torch.nn.CrossEntropyLoss loss.weighting=square",
        "loss=sum loss@loss.first=generalized_dice loss@loss.second=focal loss.second.weighting=simple",
    ],
)
def test_what_a_user_types_trains(typed, nnunet_root, tmp_path):
    given = [] if typed.startswith("loss=") else ["loss=uniform"]
    check_points(trained(tmp_path, nnunet_root, *given, *typed.split()))


def test_a_loss_that_gives_no_number_leaves_no_run(nnunet_root, tmp_path):
    asked = ["loss=uniform", f"loss._target_={Strange.__module__}.Strange", "+loss.gives=voxels"]
    with pytest.raises(InputError, match=r"Strange: gives a tensor of shape \(2, 16, 16, 16\); expected a finite scal"):
        trained(tmp_path, nnunet_root, *asked)
    assert not list(tmp_path.rglob("config.yaml"))


def rates(run) -> list[float]:
    """Of each iteration, from TensorBoard."""
    events = EventAccumulator(str(run.tensorboard)).Reload()
    (tag,) = [tag for tag in events.Tags()["scalars"] if tag.startswith("lr-")]
    logged = events.Scalars(tag)
    assert [event.step for event in logged] == list(range(len(logged)))
    return [event.value for event in logged]


KINDS = {
    "adam": (torch.optim.Adam, {"amsgrad": False, "weight_decay": 0, "lr": 0.001}),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True, "weight_decay": 0, "lr": 0.001}),
    "adamw": (torch.optim.AdamW, {"amsgrad": False, "weight_decay": 0.01, "lr": 0.001}),
    "sgd": (torch.optim.SGD, {"momentum": 0.99, "nesterov": True, "weight_decay": 3e-5, "lr": 0.001}),
}


@pytest.mark.parametrize("optim", names("optim"))
def test_every_shipped_optimiser_trains(optim, nnunet_root, tmp_path):
    config = settle(composed("train", f"optim={optim}", "network.base_channels=2"))
    made = build_module(config, with_one_case(config)).configure_optimizers()
    kind, defaults = KINDS[optim]
    assert type(made) is kind
    assert {key: made.defaults[key] for key in defaults} == defaults
    run = trained(tmp_path, nnunet_root, f"optim={optim}", "optim.lr=0.01")
    check_points(run)
    assert (f",optim={optim}" in run.folder.name) == (optim != "adam")


def test_an_optimiser_that_wants_several_losses_is_refused():
    with pytest.raises(
        InputError, match=r"^optim._target_=torch.optim.LBFGS: asks for the loss several times in an it"
    ):
        settle(composed("train", "optim._target_=torch.optim.LBFGS", "~optim.betas", "~optim.eps"))


RATES = {  # of eight iterations from 0.01, by hand
    "poly": [0.01 * (1 - t / 8) ** 0.9 for t in range(8)],
    "cosine": [0.005 * (1 + math.cos(math.pi * t / 8)) for t in range(8)],
    "warmup_poly": [0.001, 0.0055, *(0.01 * (1 - t / 6) ** 0.9 for t in range(6))],
}


@pytest.mark.parametrize("schedule", RATES)
def test_every_shipped_schedule_steps_once_an_iteration(schedule, nnunet_root, tmp_path):
    asked = [f"schedule={schedule}", "trainer.max_steps=8", "trainer.val_check_interval=8"]
    asked += ["schedule.warmup=0.25"] if schedule == "warmup_poly" else []
    run = trained(tmp_path, nnunet_root, *asked)
    assert rates(run) == pytest.approx(RATES[schedule], rel=1e-5)
    check_points(run)
    points = pd.read_csv(run.metrics)
    assert points.drop(columns="step").notna().any(axis=1).all()  # the rates make no points of their own


def test_an_iteration_of_several_batches_is_one_step_of_the_schedule(nnunet_root, tmp_path):
    run = trained(tmp_path, nnunet_root, "schedule=poly", "+trainer.accumulate_grad_batches=2")
    (state,) = read_checkpoint(run.last)["lr_schedulers"]
    assert state["last_epoch"] == 2


def test_without_a_schedule_there_is_none(nnunet_root, tmp_path):
    assert set(names("schedule")) == {"constant", *RATES}
    run = trained(tmp_path, nnunet_root)
    assert read_checkpoint(run.last)["lr_schedulers"] == []
    events = EventAccumulator(str(run.tensorboard)).Reload()
    assert not [tag for tag in events.Tags()["scalars"] if tag.startswith("lr")]
    assert "schedule" not in run.folder.name


def test_one_of_each_at_once(nnunet_root, tmp_path):
    before = trained(tmp_path, nnunet_root, "network=segresnet", "network.init_filters=8")
    asked = ["loss=dice_ce", "loss.weighting=simple", "optim=sgd", "optim.lr=0.02", "schedule=cosine", "overlap=0.5"]
    asked += ["transform=flip", "network=segresnet", "network.init_filters=8", f"init_from='{before.last}'"]
    asked += ["callbacks=[early_stopping,ema]", "logger=csv", "data.validation=0.1", "data.folds=3", "data.fold=1"]
    run = trained(tmp_path, nnunet_root, *asked, "+trainer.gradient_clip_val=1", "labels.classes=[liver,spleen]")
    check_points(run)
    assert run.folder.name.startswith("loss=dice_ce,lr=0.02,seed=0,")
    checkpoint = read_checkpoint(run.last)
    (optimizer,) = checkpoint["optimizer_states"]
    assert "momentum_buffer" in optimizer["state"][0]
    assert optimizer["param_groups"][0]["lr"] == pytest.approx(0)  # at the end of the cosine
    network, recipe = load_network(run.last)
    assert type(network).__name__ == "SegResNet"
    assert recipe.labels.names == ("background", "liver", "spleen")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["schedule=poly", "schedule.power=abc"], "schedule: unsupported operand"),
        (["schedule=poly", "schedule.power=-1"], "schedule: 0.0 cannot be raised to a negative power"),
        (
            ["schedule=cosine", "schedule.eta_min=-1"],
            r"schedule: comes to a learning rate of -.*; expected",
        ),
        (["schedule._target_=torch.optim.lr_scheduler.ExponentialLR", "+schedule.gamma=1e9"], "a learning rate of inf"),
    ],
)
def test_a_schedule_that_fails_later_is_refused_before_anything_is_written(settings, said, nnunet_root, tmp_path):
    with pytest.raises(InputError, match=said):
        train(config_of(tmp_path, nnunet_root, *settings, "trainer.max_steps=60"))
    assert not (tmp_path / "runs").exists()
