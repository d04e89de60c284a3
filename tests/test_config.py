"""Every YAML composes and instantiates, and what the user mistypes is refused in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from lightning_dice.build import build_datamodule, build_module, build_trainer, settle
from lightning_dice.config import config_folder, plain
from lightning_dice.data.cases import Split
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.data.store import PreparedCase
from lightning_dice.devices import best_precision
from lightning_dice.errors import InputError
from tests.conftest import NAMES

CONF = config_folder()


def composed(command: str, *overrides: str, folder: str = ""):
    with initialize_config_dir(str(CONF / folder), version_base="1.3"):
        return compose(command, list(overrides))


def names(group: str) -> list[str]:
    return [path.stem for path in sorted((CONF / group).glob("*.yaml")) if path.stem != "base"]


def test_a_checkout_finds_its_configuration():
    assert Path(__file__).parents[1] / "conf" == CONF
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == {
        "callbacks", "data", "experiment", "hydra", "labels", "logger", "loss", "network", "optim", "report",
        "schedule", "sweep", "trainer", "transform",
    }  # fmt: skip


def with_one_case(config, voxels=(9,) * 8) -> CTDataModule:
    """The data module of a configuration, as if it had found a case with so many voxels of each class."""
    data = build_datamodule(config)
    data.taught = NAMES
    affine = tuple(map(tuple, torch.eye(4).tolist()))
    data.cases = {"a": PreparedCase("a", "", "", (4, 4, 4), affine, voxels, (4, 4, 4), (1.0, 1.0, 1.0), "")}
    data.split = Split(("a",), (), ())
    return data


@pytest.mark.parametrize("loss", ["uniform", "simple", "square"])
@pytest.mark.parametrize("experiment", names("experiment"))
def test_every_choice_composes_and_instantiates(loss, experiment):
    config = composed("train", f"loss={loss}", f"experiment={experiment}")
    module_config = composed("train", f"loss={loss}", "network.base_channels=2", "network.levels=2")
    assert plain(config)["name"] == experiment
    module = build_module(module_config, with_one_case(config))
    assert module.loss.weighting == loss
    assert (module.loss.weights == {"uniform": 1.0, "simple": 72 / 73, "square": 72 / 649}[loss]).all()
    assert isinstance(module.configure_optimizers(), torch.optim.Adam)
    trainer = build_trainer(config, logger=False)
    assert trainer.max_steps == config.trainer.max_steps


@pytest.mark.parametrize("data", names("data"))
def test_every_data_set_composes_and_instantiates(data, tmp_path):
    given = [f"data={data}", f"data.root={tmp_path}"]
    if data == "files":  # the one that leaves it all to the user
        given += ["data.name=mine", "data.layout.images=i/*", "data.layout.labels=l/*", "data.layout.ids={liver:1}"]
    assert build_datamodule(composed("train", *given)).name == ("mine" if data == "files" else data)


def test_the_defaults_are_the_papers_and_spelled_out():
    config, spelled = composed("train"), composed("train", "experiment=paper")
    assert plain(config) == plain(spelled)
    assert (config.trainer.max_steps, config.data.batch_size, config.data.patch_size) == (10000, 3, 64)
    assert (config.network.base_channels, config.optim.lr, config.phantoms) == (32, 0.001, 377)
    assert config.data.preparation.window_hu == [-500, 500]
    assert composed("train", "data=nnunet", "data.root=x").data.preparation.factor == 4
    assert config.trainer.get("gradient_clip_val") is None
    assert plain(config)["schedule"] == {"_target_": None}


def test_the_three_losses_differ_in_one_line():
    texts = [(CONF / "loss" / f"{name}.yaml").read_text().splitlines() for name in ("uniform", "simple", "square")]
    differing = [lines for lines in zip(*texts, strict=True) if len(set(lines)) > 1]
    settings = [tuple(line.partition("#")[0].strip() for line in lines) for lines in differing]
    assert settings == [("weighting: uniform", "weighting: simple", "weighting: square")]


def test_the_learning_rate_reaches_the_optimiser_and_any_module_is_a_loss(tmp_path):
    overrides = ("optim.lr=0.5", "optim.eps=1e-4", "loss._target_=torch.nn.CrossEntropyLoss", "network.base_channels=2")
    config = settle(composed("train", *overrides, "+loss.label_smoothing=0.25"))
    assert config.loss == {
        "_target_": "torch.nn.CrossEntropyLoss", "weighting": "uniform", "label_smoothing": 0.25,
    }  # fmt: skip
    datamodule = with_one_case(config)
    module = build_module(config, datamodule)
    optimizer = module.configure_optimizers()
    assert (optimizer.defaults["lr"], optimizer.defaults["eps"]) == (0.5, 1e-4)
    assert isinstance(module.loss.loss, torch.nn.CrossEntropyLoss)
    assert module.loss.loss.label_smoothing == 0.25


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["loss._target_=torch.nn.CrossEntropyLoss", "+loss.gamma=2"],
            "loss._target_=torch.nn.CrossEntropyLoss: CrossEntropyLoss.__init__() got an unexpected",
        ),
        (["loss=focal", "loss.weighting=smple"], "loss: weighting='smple': expected one of uniform, simple, square"),
        (
            ["loss=cross_entropy", "loss.weighting=simple", "+loss.weight=[1,2]"],
            "loss.weighting=simple: there is loss.weight too; leave one of them out",
        ),
        (["loss=dice_ce", "+loss.lambda_ce=-1"], "loss._target_=monai.losses.DiceCELoss: "),
        (["loss=sum", "loss.factors=[1]"], "loss: factors=[1]: expected two finite numbers"),
        (["loss=sum", "+loss.first.gamma=1"], "loss.first: "),
        (["loss=sum", "+loss.second._target_format_=voxels"], "loss.second._target_format_=voxels: expected indices, "),
        (
            ["+loss._target_format_=indices"],
            "loss._target_format_=indices: lightning_dice.loss.DiceLoss takes",
        ),
        (["loss._target_=collections.Counter"], "loss._target_=collections.Counter: makes a Counter; expe"),
        (
            ["loss._target_=torch.nn.CrossEntropyLoss", "loss.smooth=1"],
            "loss.smooth=1: torch.nn.CrossEntropyLoss does",
        ),
        (["loss=simple", "loss._target_=torch.nn.MSELoss"], "loss.weighting=simple: torch.nn.MSELoss does not take it"),
        (["loss._target_=no.such.Loss"], "loss._target_=no.such.Loss: cannot be imported"),
        (["loss.pool=voxel"], "loss: pool='voxel': expected one of batch, sample"),
        (["+loss.gamma=2"], "loss: "),
        (["network._target_=no.such.Net"], "network._target_=no.such.Net: cannot be imported"),
        (
            ["network._target_=torch.nn.Conv3d"],
            "network._classes_=num_classes: torch.nn.Conv3d has no such argument; expected that of the number of "
            "classes, among in_channels, out_channels, kernel_size",
        ),
        (
            ["network=segresnet", "+network.out_channels=3"],
            "network.out_channels=3: is the number of classes, which the data say; leave it out",
        ),
        (
            ["network.levels=2", "network._target_=torch.nn.Conv3d", "+network._classes_=out_channels"],
            "network.levels=2: torch.nn.Conv3d does not take it; expected one of in_channels, out_channels",
        ),
        (["schedule=poly", "+schedule.gamma=1"], "schedule: "),
        (["+schedule.gamma=1"], "schedule.gamma=1: no schedule takes it; add schedule._target_=… or one by its name"),
        (
            ["schedule=warmup_poly", "schedule.warmup=1"],
            "schedule: warmup=1: expected a share above 0 that leaves",
        ),
        (["schedule._target_=no.such"], "schedule: "),
        (
            ["schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"],
            "schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau: makes a ReduceLROnPlateau; expected a sched",
        ),
        (
            ["schedule._target_=builtins.repr"],
            "schedule._target_=builtins.repr: makes a str; expected a schedule by iter",
        ),
        (["optim=sgd", "optim.momentum=-1"], "optim: Invalid momentum"),
        (["optim.betas=[2,3]"], "optim: Invalid beta parameter"),
        (["+optim.momentum=1"], "optim: "),
        (["trainer.accelerator=gpu"], "trainer: "),
        (["trainer.accelerator=tpus"], "trainer: "),
        (["trainer.precision=7"], "trainer: "),
        (["+trainer.callbacks=[{_target_: no.such.Callback}]"], "trainer.callbacks: "),
    ],
)
def test_what_objects_refuse_is_told_before_there_are_data(overrides, message):
    if "trainer.accelerator=gpu" in overrides and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError) as refusal:
        settle(composed("train", *overrides))
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_a_network_of_another_class_takes_what_it_can_of_the_settings():
    overrides = ["experiment=demo", "network._target_=torch.nn.Conv3d", "+network._classes_=out_channels"]
    config = settle(composed("train", *overrides, "+network.in_channels=1", "+network.kernel_size=[3,3,3]"))
    assert config.network.keys() == {"_target_", "_classes_", "in_channels", "kernel_size"}
    module = build_module(config, with_one_case(config))
    assert module.recipe.network == {
        "_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 8, "kernel_size": [3, 3, 3],
    }  # fmt: skip
    assert module.network.weight.shape == (8, 1, 3, 3, 3)


def test_what_is_no_network_is_refused():
    config = settle(composed("train", "network._target_=collections.Counter"))
    with pytest.raises(
        InputError, match=r"^network\._target_=collections\.Counter: makes a Counter; expected a Module"
    ):
        build_module(config, with_one_case(config))


@pytest.mark.parametrize(
    ("overrides", "divisor"),
    [
        (["network=unet3d_narrow"], 8),  # of the network, by its levels
        (["network=unet3d_narrow", "network.levels=3"], 4),
        (["network=monai_unet", "network.channels=[4,8,8,8,8]"], 16),
        (["network=segresnet", "network.init_filters=8"], 8),
        (["network=dynunet", "network.filters=[4,4,4,4,4]", "network._divisor_=32"], 32),
    ],
)
def test_a_patch_must_divide_as_the_network_needs_it(overrides, divisor):
    config = composed("train", *overrides, f"data.patch_size={3 * divisor}")
    assert build_module(config, with_one_case(config)).recipe.patch_size == (3 * divisor,) * 3
    config.data.patch_size = [3 * divisor, 2 * divisor, 5 * divisor // 2]
    with pytest.raises(InputError, match=rf"^data\.patch_size=\[.*\]: each side must be divisible by {divisor} for"):
        build_module(config, with_one_case(config))


@pytest.mark.parametrize(
    ("name", "millions"),
    [("unet3d", 19.07), ("unet3d_narrow", 1.19), ("unet3d_tiny", 0.07), ("monai_unet", 19.23), ("segresnet", 18.80),
     ("dynunet", 16.54)],
)  # fmt: skip
def test_a_network_has_as_many_parameters_as_its_file_says(name, millions):
    assert f"{millions:.2f} million parameters" in (CONF / "network" / f"{name}.yaml").read_text()
    config = composed("train", f"network={name}")
    network = build_module(config, with_one_case(config)).network
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_the_precision_is_the_devices():
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    assert best_precision("cpu") == ("bf16-mixed" if fast else "32-true")


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"LIGHTNING_DICE_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "transform=fip"],
            "transform=fip: no such choice; expected one of flip, intensity, none, spatial, strong",
        ),
        (
            ["train", "loss=smple"],
            "loss=smple: no such choice; expected one of cross_entropy, dice_ce, focal, generalized_dice, simple, ",
        ),
        (["train", "demo"], "demo: expected SETTING=VALUE; a value with =, commas or brackets in quotes"),
        (["train", "data.root=a=b,c"], "data.root=a=b,c: expected SETTING=VALUE;"),
        (["prepare", "data=3"], "data=3: no such choice; expected one of abdomenatlas, "),
        (["train", "callbacks.ema.decay=0.9"], "callbacks.ema: not chosen; add callbacks=ema"),
        (["train", "data.transform._target_=torchio.RandomFlip"], "data.transform is null; give it whole, as 'data.tr"),
        (["train", "labels=true"], "labels=true: no such choice; expected one of dataset, paper, "),
        (
            ["train", "optim.lrr=1"],
            "optim.lrr: no such setting; expected one of _target_, _partial_, lr, betas, eps in optim",
        ),
        (
            ["train", "lerning_rate=1"],
            "lerning_rate: no such setting; expected one of cache, phantoms, labels, data, network",
        ),
        (["train", "data=nnunet"], "data.root: not given; add data.root="),
        (["train", "data=nnunet", "data.root=nowhere"], "nowhere/dataset.json: no such file"),
        (["train", "experiment=smoke", "phantoms=0"], "phantoms=0: expected an integer from 1"),
        (["train", "trainer.devices=2"], "data.batch_size=3: not divisible by the 2 devices, which share"),
        (["train", "+ckpt_path=a.ckpt"], "ckpt_path: no such setting; expected one of cache, phantoms, preset, name"),
        (["benchmark", "rounds=0"], "rounds=0: expected an integer from 1"),
        (["report", "sweep=."], "sweep=.: no run in it"),
        (["evaluate"], "run: not given; add run="),
        (
            ["evaluate", "run=runs/a/b/loss=simple,lr=0.01,seed=0"],
            "runs/a/b/loss=simple,lr=0.01,seed=0: no config.yaml in it",
        ),
        (["evaluate", "data=totalsegmentatr"], "data=totalsegmentatr: no such choice; expected one of"),
        (["prepare", "data=totalsegmentator", "data.root=."], ": no */ct.nii.gz in it"),
    ],
)
def test_what_the_user_mistypes_is_told_in_one_line(arguments, message, tmp_path):
    command, *overrides = arguments
    result = run(f"lightning_dice.{command}", *overrides, folder=tmp_path)
    assert result.returncode == 1, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not list(tmp_path.iterdir())  # nothing half-written
