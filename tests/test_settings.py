"""Settings that cannot be are refused by name, value and what was expected, all of them at once."""

import pytest

from lightning_dice.config import plain
from lightning_dice.errors import InputError
from lightning_dice.settings import (
    BenchmarkSettings,
    EvaluateSettings,
    ExportSettings,
    PredictSettings,
    PrepareSettings,
    ReportSettings,
    TrainSettings,
)
from lightning_dice.validation import check, checked
from tests.test_config import composed

COUNT = "expected an integer from 1"
REFUSED = {
    "optim.lr=-1": "expected a finite number above 0",
    "optim.lr=0": "expected a finite number above 0",
    "optim.lr=nan": "expected a finite number above 0",
    "optim.lr=inf": "expected a finite number above 0",
    "optim.lr=abc": "expected a finite number above 0",
    "optim.lr=true": "expected a finite number above 0",
    "data.batch_size=0": COUNT,
    "data.patch_size=0": COUNT,
    "data.patch_size=[64,64]": COUNT,
    "data.samples_per_volume=0": COUNT,
    "data.num_workers=-1": "expected an integer from 0",
    "data.test=1": "expected a share from 0 to below 1",
    "data.transform=3": "expected null, or a transform by its _target_",
    "data.transform=flip": "expected null, or a transform by its _target_",
    "data.preparation.factor=2.5": COUNT,
    "data.preparation.spacing_mm=0": "expected a length from 0.1 to 100 mm",
    "data.preparation.window_hu=[0]": "expected [low, high] in HU",
    "data.name=../../x": "expected a folder's name",
    "data.layout._partial_=0": "expected true",
    "name=../..": "expected a folder's name",
    "name=''": "expected a folder's name",
    "seed=-1": "expected an integer from 0 to 4294967295",
    "seed=1.5": "expected an integer from 0 to 4294967295",
    "seed=5e9": "expected an integer from 0 to 4294967295",
    "phantoms=2.5": COUNT,
    "+network._classes_=''": "expected the name of the constructor's argument for the number of classes",
    "+network._divisor_=0": COUNT,
    "+network._divisor_=two": COUNT,
    "+loss._target_format_=voxels": "expected indices, channel or one_hot",
    "network._target_=''": "expected the dotted name of a class",
    "schedule._target_=''": "expected the dotted name of a class, or null",
    "trainer.devices=0": "expected an integer from 1, or GPUs by their indices",
    "trainer.devices=auto": "expected an integer from 1, or GPUs by their indices",
    "trainer.num_nodes=0": COUNT,
    "trainer.strategy=fsdp": "expected auto, ddp or ddp_find_unused_parameters_true: others, such as fsdp,",
    "trainer.sync_batchnorm=1": "expected true or false",
    "trainer.max_steps=0": COUNT,
    "trainer.val_check_interval=0": COUNT,
    "trainer.val_check_interval=0.5": COUNT,
    "trainer.log_every_n_steps=0": COUNT,
    "+trainer.accumulate_grad_batches=0": COUNT,
    "+trainer.callbacks=3": "expected a list of objects",
    "overlap=1": "expected a share",
    "compile=maybe": "expected true or false",
    "init_from=''": "expected the file of a checkpoint, or null",
    "init_from=3": "expected the file of a checkpoint, or null",
}
UNKNOWN = [
    "+scheduler=cosine", "+ckpt_path=a.ckpt", "+data.workers=2",
    "+trainer.limit_test_batches=1", "+trainer.max_epochs=3", "+trainer.fast_dev_run=true", "+data.preparation.x=1",
]  # fmt: skip


@pytest.mark.parametrize("override", REFUSED)
def test_a_value_that_cannot_be_is_told_in_one_line(override):
    with pytest.raises(InputError) as refusal:
        checked(composed("train", override), TrainSettings)
    message = str(refusal.value)
    assert message.startswith(override.removeprefix("+").partition("=")[0] + "=")
    assert REFUSED[override] in message
    assert "\n" not in message


@pytest.mark.parametrize("override", UNKNOWN)
def test_a_setting_that_would_be_ignored_is_refused_with_the_choices(override):
    with pytest.raises(InputError) as refusal:
        checked(composed("train", override), TrainSettings)
    name = override.removeprefix("+").partition("=")[0]
    assert str(refusal.value).startswith(f"{name}: no such setting; expected one of ")


def test_a_name_of_300_characters_is_cut_short_where_it_is_told():
    with pytest.raises(InputError, match="expected a folder's name: up to 100") as refusal:
        checked(composed("train", f"name={'a' * 300}"), TrainSettings)
    assert len(str(refusal.value)) < 220


@pytest.mark.parametrize(
    "override",
    ["name=2018", "name='my study, 2nd'", "optim.lr=1", "trainer.devices=[1]", "trainer.devices=3",
     "+trainer.gradient_clip_val=1", "+loss.gamma=2", "data.patch_size=[64,64,32]"],
)  # fmt: skip
def test_what_can_be_is_taken_as_it_is(override):
    config = composed("train", override)
    assert checked(config, TrainSettings) == plain(config)


def test_all_problems_are_told_at_once_and_each_once():
    asked = ["seed=-1", "phantoms=0", "data.batch_size=0", "+foo=1", "+trainer.bar=2"]
    with pytest.raises(InputError) as refusal:
        checked(composed("train", *asked), TrainSettings)
    names = [line.partition(":")[0].partition("=")[0] for line in str(refusal.value).splitlines()]
    assert sorted(names) == ["data.batch_size", "foo", "phantoms", "seed", "trainer.bar"]


@pytest.mark.parametrize(
    ("command", "kind", "asked"),
    [
        ("prepare", PrepareSettings, ["check=3"]),
        ("benchmark", BenchmarkSettings, ["steps=0"]),
        ("evaluate", EvaluateSettings, ["run=x", "checkpoint=first"]),
        ("predict", PredictSettings, ["run=x", "input=y", "output=z", "memory_limit_gb=-1"]),
        ("export", ExportSettings, ["format=onnx", "output=y", "run=x", "checkpoint=first"]),
        ("report/report", ReportSettings, ["sweep=x", "+more=1"]),
    ],
)
def test_every_command_checks_its_own(command, kind, asked):
    *good, _ = asked
    folder, _, name = command.rpartition("/")
    checked(composed(name, *good, folder=folder), kind)
    with pytest.raises(InputError, match=rf"^{asked[-1].removeprefix('+').partition('=')[0]}[=:]"):
        checked(composed(name, *asked, folder=folder), kind)


def test_settings_of_a_file_are_told_with_it():
    with pytest.raises(InputError, match=r"^x/config\.yaml: sweep=3: expected a text"):
        check({"sweep": 3, "output": "y"}, ReportSettings, "x/config.yaml: ")
