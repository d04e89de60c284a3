"""Other loggers beside TensorBoard and metrics.csv: they get all that these get, and go on with a run that goes on."""

import json
import struct
import sys

import mlflow
import pandas as pd
import pytest
import wandb
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from lightning_dice import checkpoints
from lightning_dice.build import settle
from lightning_dice.config import plain
from lightning_dice.errors import InputError
from lightning_dice.naming import flat
from lightning_dice.runs import read_config, read_json
from lightning_dice.train import train
from tests.conftest import NAMES
from tests.test_config import composed, names
from tests.test_resume import BreaksOff, assert_same, broken_off  # noqa: F401
from tests.test_train import config_of

OFFLINE = ("logger=[csv,wandb,mlflow]", "logger.wandb.offline=true")


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """As on a machine of somebody who has no account."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_dice.loggers.TRACKING_URI", None)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_CONSOLE", "off")
        for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
            patch.delenv(name, raising=False)
        yield


def settings(folder, root, *overrides):
    asked = ["schedule=poly", "trainer.log_every_n_steps=2", "trainer.val_check_interval=3"]
    return config_of(folder, root, *asked, *overrides)


@pytest.fixture(scope="module")
def whole(nnunet_root, tmp_path_factory):
    """A finished run without other loggers; only read it."""
    return train(settings(tmp_path_factory.mktemp("whole"), nnunet_root))


@pytest.fixture(scope="module")
def resumed(nnunet_root, tmp_path_factory):
    """A run with all loggers that was broken off in its fifth iteration, and went on from the fourth's end."""
    folder = tmp_path_factory.mktemp("resumed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_dice.build.SegmentationModule", BreaksOff)
        patch.setattr(checkpoints, "CHECKPOINT_EVERY", 0.0)
        BreaksOff.place = "training 4"
        with pytest.raises(RuntimeError, match="pulled the plug"):
            train(settings(folder, nnunet_root, *OFFLINE))
        assert wandb.run is None
        return train(settings(folder, nnunet_root, *OFFLINE))


def points(run) -> set[tuple[str, int, float]]:
    """What other loggers are to hold: curves and test scores with their means, each once; and measures beside."""
    curves = pd.read_csv(run.metrics)
    curves["val/dice"] = curves[[f"val/dice/{name}" for name in NAMES[1:]]].mean(axis=1)
    scores = pd.read_csv(run.scores).groupby("name")["dice"].mean()
    test = {f"test/dice/{name}": scores[name] for name in NAMES}
    test |= {"test/dice": scores[list(NAMES[1:])].mean(), "test/AVG": scores.mean()}
    found = {(row.variable, row.step, round(row.value, 5)) for row in curves.melt("step").dropna().itertuples()}
    return found | {(name, 6, round(value, 5)) for name, value in test.items()}


def without_measures(found) -> set[tuple[str, int, float]]:
    """The points but for learning rates, gradients and times, which are there."""
    assert {("lr-Adam", 1, 0.00849), ("lr-Adam", 3, 0.00536)} <= found
    assert {("optim/lr", 2, 0.00849), ("optim/lr", 4, 0.00536)} <= found
    norms = [step for name, step, value in found if name == "optim/gradient_norm" and value > 0]
    assert sorted(norms) == [2, 4, 6]
    return {point for point in found if not point[0].startswith(("lr-", "optim/", "time/"))}


def test_other_loggers_change_nothing_of_the_run(resumed, whole):
    assert_same(resumed, whole)
    assert resumed.folder.name == whole.folder.name
    assert read_json(resumed.done) == read_json(whole.done)
    assert flat(read_config(resumed)) == flat(read_config(whole))


def test_tensorboard_goes_on_without_a_point_twice(resumed):
    events = EventAccumulator(str(resumed.tensorboard)).Reload()
    found = [(name, e.step, round(e.value, 5)) for name in events.Tags()["scalars"] for e in events.Scalars(name)]
    assert without_measures(set(found)) == points(resumed)
    assert len(found) == len(set(found))
    texts = {name: [event.step for event in events.Tensors(f"{name}/text_summary")] for name in ("classes", "test")}
    assert texts == {"classes": [0], "test": [6]}


def test_each_session_has_csv_files_of_its_own(resumed):
    sessions = sorted((resumed.folder / "csv").iterdir())
    assert [session.name for session in sessions] == ["from_step_0", "from_step_4"]
    tables = [pd.read_csv(session / "metrics.csv").melt("step").dropna() for session in sessions]
    found = [{(row.variable, row.step, round(row.value, 5)) for row in table.itertuples()} for table in tables]
    assert without_measures(found[0] | found[1]) == points(resumed)
    assert not found[0] & found[1]
    assert max(step for _, step, _ in found[0]) == 4
    for session in sessions:
        assert yaml.safe_load((session / "hparams.yaml").read_text())["loss.weighting"] == "simple"


def test_mlflow_goes_on_with_its_run(resumed):
    client = mlflow.MlflowClient(f"sqlite:///{resumed.folder.parents[2]}/mlflow.db")
    experiment = client.get_experiment_by_name("nnunet/smoke")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == resumed.folder.name
    assert run.info.status == "FINISHED"
    assert run.data.params["loss.weighting"] == "simple"
    assert flat(read_config(resumed)).keys() - run.data.params.keys() == {"data.exclude"}  # an empty list
    found = {
        (name, point.step, round(point.value, 5))
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    }
    assert without_measures(found) == points(resumed)
    assert {s["loggers"]["mlflow"] for s in read_json(resumed.environment)["sessions"]} == {run.info.run_id}


def wandb_records(data: bytes) -> list[wandb_internal_pb2.Record]:
    """Of a .wandb file, a LevelDB log after 7 bytes: blocks of 32 KiB of fragments, with checksum, length, kind."""
    place, whole, found = 7, b"", []
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # full, or the last fragment
            found.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return found


def test_wandb_goes_on_with_its_run(resumed):
    ids = {session["loggers"]["wandb"] for session in read_json(resumed.environment)["sessions"]}
    assert len(ids) == 1
    files = sorted((resumed.folder / "wandb").glob("offline-run-*/*.wandb"))
    assert {file.stem for file in files} == {f"run-{ids.pop()}"}
    assert len(files) == 2
    found, begun, settings = set(), [], {}
    for file in files:
        for record in wandb_records(file.read_bytes()):
            if record.HasField("run"):
                begun.append((record.run.project, record.run.display_name, record.run.run_group))
                updates = record.run.config.update
            else:
                updates = record.config.update
            settings |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in updates}
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            found |= {
                (key, row["trainer/global_step"], round(value, 5))
                for key, value in row.items()
                if key.startswith(("train/", "val/", "test/", "lr-", "optim/", "time/"))
            }
    assert set(begun) == {("lightning_dice", resumed.folder.name, "nnunet/smoke")}
    assert without_measures(found) == points(resumed)
    assert settings["loss.weighting"] == "simple"


def test_a_run_may_go_on_with_other_loggers(whole, nnunet_root, tmp_path, broken_off):  # noqa: F811
    BreaksOff.place = "training 3"
    with pytest.raises(RuntimeError, match="pulled the plug"):
        train(settings(tmp_path, nnunet_root))
    (config,) = tmp_path.rglob("config.yaml")
    before = yaml.safe_load(config.read_text())
    for key in ("logger", "callbacks"):  # as runs were before there was a choice
        del before[key]
    config.write_text(yaml.safe_dump(before))
    run = train(settings(tmp_path, nnunet_root, "logger=csv"))
    assert_same(run, whole)
    assert [session.name for session in (run.folder / "csv").iterdir()] == ["from_step_3"]


@pytest.mark.parametrize("logger", names("logger"))
def test_every_file_is_a_logger_of_its_name_and_no_part_of_a_run(logger):
    config = settle(composed("train", f"logger={logger}"))
    assert set(config.logger) == {logger}
    assert flat(plain(config)) == flat(plain(composed("train")))


def test_a_loggers_arguments_are_settings():
    config = composed("train", "logger=[csv,wandb]", "logger.wandb.project=mine", "+logger.wandb.tags=[a]")
    assert plain(config)["logger"]["wandb"] == {
        "_target_": "pytorch_lightning.loggers.WandbLogger", "project": "mine", "offline": False, "tags": ["a"],
    }  # fmt: skip


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_package_that_is_not_installed_is_told_with_its_extra(package, nnunet_root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    said = rf"^logger\.{package}: the package {package} is not installed; pip install 'lightning-dice\[{package}\]'$"
    with pytest.raises(InputError, match=said):
        train(settings(tmp_path, nnunet_root, f"logger={package}"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["logger=csv", "+logger.csv.speed=1"], "logger.csv: got an unexpected keyword argument 'speed'"),
        (["+logger.mine._target_=no.such.Logger"], "logger.mine._target_=no.such.Logger: cannot be imported"),
        (["logger=wandb"], "logger.wandb: No API key configured. Use `wandb login` to log in."),
        (["logger=wandb", "logger.wandb.offline=true", "+logger.wandb.speed=1"], "logger.wandb: "),
        (["logger=mlflow", "logger.mlflow.tracking_uri=nowhere://x"], "logger.mlflow: "),
    ],
)
def test_a_logger_that_cannot_begin_is_refused_before_anything_is_written(
    overrides, said, nnunet_root, tmp_path, monkeypatch
):
    wandb.teardown()  # it remembers that it was offline
    monkeypatch.delenv("WANDB_MODE", raising=False)  # which Lightning sets
    with pytest.raises(InputError) as refusal:
        train(settings(tmp_path, nnunet_root, *overrides))
    assert str(refusal.value).startswith(said)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "runs").exists()
