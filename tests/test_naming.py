"""A run's name says what differs from the paper's cell."""

import hashlib
import json
import subprocess
import sys

import pytest

from lightning_dice.build import settle
from lightning_dice.config import config_folder, plain
from lightning_dice.naming import flat, grid_settings, run_folder
from tests.test_config import composed

CELL = "loss=simple,lr=0.01,seed=0"


def name(*overrides):
    return run_folder(plain(composed("train", "loss=simple", "optim.lr=0.01", *overrides))).name


def test_a_run_stands_below_its_data_set_and_its_experiment():
    config = plain(composed("train", "loss=simple", "optim.lr=0.01", "seed=3", "output_dir=there"))
    assert str(run_folder(config)) == "there/phantom/paper/loss=simple,lr=0.01,seed=3"


@pytest.mark.parametrize("preset", [path.stem for path in sorted((config_folder() / "experiment").glob("*.yaml"))])
@pytest.mark.parametrize("data", ["phantom", "btcv", "totalsegmentator"])
def test_what_an_experiment_sets_is_said_by_its_name(preset, data):
    assert name(f"experiment={preset}", f"data={data}", "data.root=x", "seed=0") == CELL


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("loss.smooth=1", "loss.smooth=1"),
        ("loss.smooth=1.0", "loss.smooth=1"),
        ("loss.pool=sample", "loss.pool=sample"),
        ("loss.normalize=mean", "loss.normalize=mean"),
        ("optim.eps=1e-12", "optim.eps=1e-12"),
        ("optim.betas=[0.8,0.999]", "optim.betas=[0.8,0.999]"),
        (
            "optim._target_=torch.optim.NAdam",
            "optim=torch.optim.NAdam,optim.betas=[0.9,0.999],optim.eps=1e-08",
        ),
        ("+optim.amsgrad=true", "optim=amsgrad"),
        ("+optim.weight_decay=0.1", "optim.weight_decay=0.1"),
        ("schedule=poly", "schedule=poly"),
        ("schedule=warmup_poly", "schedule=warmup_poly"),
        ("schedule._target_=torch.optim.lr_scheduler.ExponentialLR", "schedule=torch.optim.lr_scheduler.ExponentialLR"),
        ("network.base_channels=16", "network.base_channels=16"),
        ("network.base_channels=8", "network=unet3d_narrow"),
        ("network=segresnet", "network=segresnet"),
        ("data.patch_size=[32,64,64]", "data.patch_size=[32,64,64]"),
        ("data.preparation.window_hu=[-160,240]", "data.preparation.window_hu=[-160,240]"),
        ("data.seed=7", "data.seed=7"),
        ("transform=flip", "transform=flip"),
        ("transform=strong", "transform=strong"),
        (
            "data.transform={_target_: torchio.RandomAffine,degrees: 5}",
            "data.transform.degrees=5,transform=torchio.RandomAffine",
        ),
        (
            "data.transform={_target_: torchio.Compose,transforms: [{_target_: my.Spin,by: [1,2]}]}",
            "data.transform.transforms=[_target_(my.Spin),by(1+2)],transform=torchio.Compose",
        ),
        ("+trainer.callbacks=[{_target_: my.Callback,every: 3}]", "trainer.callbacks=[_target_(my.Callback),every(3)]"),
        ("phantoms=12", "phantoms=12"),
        ("overlap=0.5", "overlap=0.5"),
        ("init_from=runs/a/b/last.ckpt", "init_from=runs_a_b_last.ckpt"),
        ("+trainer.gradient_clip_val=1", "trainer.gradient_clip_val=1"),
        ("labels=totalsegmentator", "labels=totalsegmentator"),
        ("labels.classes=[liver,{bowel: [stomach,pancreas]}]", "labels.classes=[liver,bowel(stomach+pancreas)]"),
        ("labels.labels.liver.opacity=1", "labels.labels.liver.opacity=1"),
        ("labels.name=mine", "labels=mine"),
    ],
)
def test_what_differs_is_told(override, told):
    assert name(override) == f"{CELL},{told}"


def test_another_optimiser_and_schedule_are_told_by_their_files_and_what_differs_from_them():
    assert name("optim=sgd", "optim.lr=0.01", "optim.momentum=0.9") == f"{CELL},optim=sgd,optim.momentum=0.9"
    asked = ["schedule=cosine", "schedule.eta_min=1e-5", "trainer.max_steps=20"]
    assert name(*asked) == f"{CELL},schedule=cosine,schedule.eta_min=1e-05,trainer.max_steps=20"
    asked = ["schedule=poly", "schedule.total_iters=30", "experiment=demo", "seed=0"]
    assert name(*asked) == f"{CELL},schedule=poly,schedule.total_iters=30"


def test_several_swaps_are_told_together():
    asked = ["loss=dice_ce", "loss.weighting=simple", "optim=sgd", "schedule=cosine", "network=segresnet"]
    told = "loss=dice_ce,lr=0.01,seed=0,loss.weighting=simple,network=segresnet,optim=sgd,schedule=cosine"
    assert name(*asked) == told


def test_another_network_is_told_by_its_file_and_what_differs_from_it():
    asked = ["experiment=demo", "seed=0", "network=segresnet", "network.init_filters=16", "+network.dropout_prob=0.1"]
    assert name(*asked) == f"{CELL},network=segresnet,network.dropout_prob=0.1,network.init_filters=16"
    assert name("experiment=demo", "seed=0", "network=unet3d") == f"{CELL},network=unet3d"
    assert name("experiment=demo", "seed=0", "network.levels=3") == f"{CELL},network.levels=3"


def test_a_transform_is_told_by_its_file_and_what_differs_from_it():
    few = "data.transform.transforms"
    assert name("transform=spatial", f"{few}.affine.degrees=20") == f"{CELL},{few}.affine.degrees=20,transform=spatial"
    assert name("transform=strong", f"~{few}.elastic") == f"{CELL},{few}.elastic=absent,transform=strong"
    typed = "data.transform={_target_: torchio.Compose,transforms: {flip: {_target_: torchio.RandomFlip,axes: [1,2]}}}"
    assert name(typed) == f"{CELL},{few}.flip.flip_probability=absent,transform=flip"
    assert name("transform=none", "network=segresnet") == f"{CELL},network=segresnet"


def test_the_default_run_is_what_it_was_before_there_were_transforms_to_choose():
    """`DONE` has a digest of these settings."""
    settings = plain(composed("train"))
    assert not any(key.startswith("data.fold") for key in flat(settings))
    settings["data"] = {key: value for key, value in settings["data"].items() if key not in ("folds", "fold")}
    text = json.dumps(flat(settings["data"]), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "147c29c50aadddd4"


def test_a_fold_is_told():
    assert name("data.fold=1", "data.folds=5") == f"{CELL},data.fold=1,data.folds=5"


def test_a_network_of_the_users_own_goes_by_its_class_and_its_settings():
    asked = ["~network", "+network._target_=my.module.Net", "+network._classes_=classes", "+network.width=3"]
    assert name(*asked) == f"{CELL},network=my.module.Net,network._classes_=classes,network.width=3"


def test_a_network_recorded_before_networks_had_files_of_their_own_is_the_same():
    config = plain(composed("train", "experiment=demo", "loss=simple", "optim.lr=0.01"))
    config["network"] = {"_target_": "lightning_dice.network.UNet3D", "base_channels": 8, "levels": 4}
    assert run_folder(config).name == "loss=simple,lr=0.01,seed=0"


@pytest.mark.parametrize(
    "override",
    [
        "data.num_workers=8",
        "trainer.devices=[0]",
        "trainer.devices=3",
        "trainer.strategy=ddp",
        "trainer.accelerator=cpu",
        "cache=elsewhere",
        "data.on_error=skip",
    ],
)
def test_where_and_on_what_a_run_is_computed_is_not_told(override):
    assert name(override) == CELL


def test_a_data_set_under_a_name_of_its_own_differs_from_the_paper_where_it_does():
    assert name("data=nnunet", "data.root=x", "data.name=mine") == CELL
    own = ["data.name=mine", "data.layout.images=i/*", "data.layout.labels=l/*", "data.layout.ids={liver:1}"]
    differing = "data.preparation.factor=null,data.preparation.spacing_mm=3"
    assert name("data=files", "data.root=x", *own) == f"{CELL},{differing}"


def test_a_loss_of_the_users_own_goes_by_its_class_and_its_settings():
    config = plain(composed("train"))
    config["loss"] = {"_target_": "my.module.MyLoss", "gamma": 2, "reduction": "mean"}
    told = "loss=my.module.MyLoss,lr=0.001,seed=0,loss.gamma=2,loss.reduction=mean"
    assert run_folder(config).name == told


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["loss=dice_ce"], "dice_ce"),
        (["loss=dice_ce", "loss.weighting=square"], "dice_ce,lr=0.01,seed=0,loss.weighting=square"),
        (["loss=tversky", "loss.alpha=0.5"], "tversky,lr=0.01,seed=0,loss.alpha=0.5"),
        (["loss=cross_entropy", "+loss.label_smoothing=0.1"], "cross_entropy,lr=0.01,seed=0,loss.label_smoothing=0.1"),
        (["loss=focal", "+loss._target_format_=one_hot"], "focal,lr=0.01,seed=0,loss._target_format_=one_hot"),
        (["loss=uniform", "loss._target_=torch.nn.CrossEntropyLoss"], "cross_entropy"),
        (["loss=square", "loss._target_=torch.nn.CrossEntropyLoss"],
         "cross_entropy,lr=0.01,seed=0,loss.weighting=square"),
        (
            ["loss=uniform", "loss._target_=monai.losses.DiceCELoss", "+loss.softmax=true", "+loss.to_onehot_y=true"],
            "dice_ce",
        ),
        (  # not all that the file sets
            ["loss=uniform", "loss._target_=monai.losses.TverskyLoss", "+loss.softmax=true", "+loss.to_onehot_y=true"],
            "monai.losses.TverskyLoss,lr=0.01,seed=0,loss.softmax=true,loss.to_onehot_y=true",
        ),
        (["loss=uniform", "loss._target_=torch.nn.NLLLoss"], "torch.nn.NLLLoss"),
        (["loss=sum"], "simple+cross_entropy"),
        (
            ["loss=sum", "loss@loss.first=focal", "loss@loss.second=square", "loss.second.smooth=1",
             "loss.factors=[1,2]"],
            "focal+square,lr=0.01,seed=0,loss.factors=[1,2],loss.second.smooth=1",
        ),
    ],
)  # fmt: skip
def test_another_loss_is_told_by_its_file_or_its_class_and_what_differs_from_it(asked, told):
    config = settle(composed("train", "optim.lr=0.01", *asked))
    assert run_folder(plain(config)).name == f"loss={told}{'' if ',lr=' in told else ',lr=0.01,seed=0'}"


def test_close_rates_have_names_of_their_own():
    names = {name(f"optim.lr={lr}") for lr in ("0.0012345678", "0.00123456", "1e-5", "0.1")}
    assert {"loss=simple,lr=1e-05,seed=0", "loss=simple,lr=0.1,seed=0"} < names
    assert len(names) == 4


def test_many_settings_are_told_by_a_short_hash():
    many = [f"data.exclude=[{','.join(f'patient_{i}' for i in range(count))}]" for count in (40, 41)]
    names = [name(override) for override in many]
    assert all(found.startswith(f"{CELL},settings=") and len(found) < 60 for found in names)
    assert len(set(names)) == 2
    others = [name(many[0], override) for override in ("seed=1", "optim.lr=1", "loss=square")]
    assert {other.partition("settings=")[2] for other in others} == {names[0].partition("settings=")[2]}


def test_a_name_stays_within_its_folder():
    assert "/" not in name("+optim.x='../../y'").replace(CELL, "")


def test_a_command_tells_what_differs_too(tmp_path):
    """Within Hydra's own application the preset is composed in another way."""
    code = """
import sys, types
from lightning_dice.cli import command
from lightning_dice.naming import run_folder
from lightning_dice.config import plain
sys.modules["lightning_dice.train"] = types.SimpleNamespace(train=lambda config: print(run_folder(plain(config))))
command("train")
"""
    asked = [sys.executable, "-c", code, "experiment=demo", "name=mine", "loss=square", "loss.smooth=1"]
    said = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=100).stdout
    assert said == "runs/phantom/mine/loss=square,lr=0.001,seed=0,loss.smooth=1\n"


@pytest.mark.parametrize(("typed", "told"), [((), "false"), (("prior=true",), "true"), (("prior=half",), "half")])
def test_runs_of_a_grid_are_compared_by_their_starts(typed, told):
    assert grid_settings(plain(composed("train", *typed)))["prior"] == told
