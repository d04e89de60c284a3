import copy
import json

import pandas as pd
import pytest

from lightning_dice.errors import InputError
from lightning_dice.runs import (
    METRIC_COLUMNS,
    append_metrics,
    begin_run,
    cut_metrics,
    find_run,
    mark_done,
    read_config,
    read_json,
    run_folder,
)


def open_run(config, data):
    run = find_run(config, data)
    begin_run(run, config, data, {"case_1": "data.exclude"}, {"voxels": [7]}, {"from_step": 0, "device": "cpu"})
    return run


@pytest.fixture
def config(tmp_path):
    return {
        "name": "paper",
        "seed": 3,
        "rerun": False,
        "output_dir": str(tmp_path / "runs"),
        "cache": "here",
        "data": {"name": "phantom", "root": "somewhere", "patch_size": 64, "preparation": {"window_hu": [-500, 500]}},
        "loss": {"_target_": "lightning_dice.loss.DiceLoss", "weighting": "simple"},
        "optim": {"_target_": "torch.optim.Adam", "lr": 0.01, "eps": 1e-8},
        "trainer": {"devices": 1, "max_steps": 10},
    }


def test_a_run_is_foldered_by_its_choices(config, tmp_path):
    assert run_folder(config) == tmp_path / "runs/phantom/paper/loss=simple,lr=0.01,seed=3"
    config["loss"] = {"_target_": "my.module.MyLoss"}
    config["optim"]["lr"] = 0.001
    assert run_folder(config).name == "loss=MyLoss,lr=0.001,seed=3"


def test_a_new_run_writes_its_configuration_and_environment(config):
    run = open_run(config, "data")
    assert read_config(run) == config
    environment = json.loads(run.environment.read_text())
    assert environment["data"] == "data"
    assert environment["classes"] == {"voxels": [7]}
    assert environment["excluded"] == {"case_1": "data.exclude"}
    (session,) = environment["sessions"]
    assert (session["from_step"], session["device"]) == (0, "cpu")
    assert session["versions"]["torch"]
    assert not run.done.exists()


def test_finding_a_run_writes_nothing(config, tmp_path):
    find_run(config, "data")
    assert not list(tmp_path.iterdir())


def test_the_same_configuration_finds_the_run_again_wherever_data_and_device_are(config):
    run = open_run(config, "data")
    again = copy.deepcopy(config)
    again["cache"], again["data"]["root"], again["trainer"]["devices"] = "there", "elsewhere", 2
    assert open_run(again, "data") == run
    assert read_config(run) == config


def test_a_changed_configuration_is_refused_by_name_and_nothing_is_overwritten(config):
    run = open_run(config, "data")
    changed = copy.deepcopy(config)
    changed["optim"]["eps"] = 1e-4
    changed["data"]["preparation"]["window_hu"] = [-160, 240]
    changed["extra"] = 1
    before = run.config.read_bytes()
    with pytest.raises(InputError) as refusal:
        open_run(changed, "data")
    message = str(refusal.value)
    assert "optim.eps: 1e-08 there, 0.0001 here" in message
    assert "data.preparation.window_hu: [-500, 500] there, [-160, 240] here" in message
    assert "extra: absent there, 1 here" in message
    assert "name=" in message
    assert "\n" not in message
    with pytest.raises(InputError, match="other data"):
        open_run(config, "other")
    assert run.config.read_bytes() == before


def test_rerun_starts_over_beside_the_old_run(config):
    first = open_run(config, "data")
    again = {**config, "rerun": True}
    assert open_run(again, "data").folder.name == first.folder.name + ",rerun=2"
    assert open_run(again, "data").folder.name == first.folder.name + ",rerun=3"
    assert open_run(config, "data") == first


def test_done_tells_configurations_and_data_apart(config):
    run = open_run(config, "data")
    mark_done(run, config, "data")
    first = read_json(run.done)
    config["trainer"]["devices"] = 8
    mark_done(run, config, "data")
    assert read_json(run.done) == first
    config["trainer"]["max_steps"] = 11
    mark_done(run, config, "data")
    assert read_json(run.done)["config"] != first["config"]


def test_curves_are_appended_and_cut_for_a_resumed_run(config):
    run = open_run(config, "data")
    cut_metrics(run, 0)  # there are none yet
    append_metrics(run, 10, {"train/loss": -0.5, "train/dice/liver": 0.25})
    append_metrics(run, 10, {"val/loss": -0.75})
    append_metrics(run, 20, {"train/loss": -1e-9})
    table = pd.read_csv(run.metrics)
    assert tuple(table.columns) == METRIC_COLUMNS
    assert table["step"].tolist() == [10, 10, 20]
    assert table["train/loss"].tolist()[::2] == [-0.5, -1e-9]
    assert table["val/loss"].notna().tolist() == [False, True, False]
    cut_metrics(run, 10)
    assert pd.read_csv(run.metrics)["step"].tolist() == [10, 10]


def test_what_is_not_a_run_is_refused(tmp_path):
    from lightning_dice.runs import Run

    with pytest.raises(InputError, match=r"no config\.yaml in it"):
        read_config(Run(tmp_path))
