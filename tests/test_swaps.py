"""What a researcher swaps, swapped on the command line: each choice trains, several at once too."""

import math

import pandas as pd
import pytest

from lightning_dice.errors import InputError
from lightning_dice.runs import read_json
from lightning_dice.train import train
from tests.test_config import names
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
    with pytest.raises(InputError, match=r"Strange: gives a tensor of shape \(1, 16, 16, 16\); expected a finite scal"):
        trained(tmp_path, nnunet_root, *asked)
    assert not list(tmp_path.rglob("config.yaml"))
