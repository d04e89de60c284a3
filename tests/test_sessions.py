"""Work on a run: what is found, refused, recorded, and kept from others."""

import copy
import json
import subprocess
import sys

import pandas as pd
import pytest

from lightning_dice.config import plain
from lightning_dice.data.labels import label_set
from lightning_dice.errors import InputError
from lightning_dice.naming import run_folder
from lightning_dice.runs import Run, metric_columns, read_config, read_json, read_labels
from lightning_dice.sessions import append_metrics, begin, cut_metrics, find_run, hold, mark_done, mark_failed
from tests.grids import PAPER
from tests.test_config import composed


def open_run(config, data, from_step=0):
    """Begin, and leave a checkpoint as if some steps had been done."""
    run = find_run(config, data)
    begin(
        run, config, data, PAPER, {"case_1": "data.exclude"}, {"voxels": [7]}, {"from_step": from_step, "device": "cpu"}
    )
    run.checkpoints.mkdir(exist_ok=True)
    run.last.touch()
    return run


@pytest.fixture
def config(tmp_path):
    return plain(composed("train", "loss=simple", "optim.lr=0.01", "seed=3", f"output_dir={tmp_path}/runs"))


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


def test_what_a_failed_start_left_does_not_block_the_corrected_command(config):
    run = find_run(config, "data")
    begin(run, config, "data", PAPER, {}, {}, {"from_step": 0})
    append_metrics(run, 10, {"train/loss": 1.0})
    (run.folder / ".123-summary.json").touch()  # half-written
    mark_failed(run, ValueError("a loss that is none"))
    begin(find_run(config, "other data"), config, "other data", PAPER, {}, {}, {"from_step": 0})
    environment = read_json(run.environment)
    assert (environment["data"], len(environment["sessions"])) == ("other data", 1)
    assert not run.failed.exists()
    assert not (run.folder / ".123-summary.json").exists()
    assert len(pd.read_csv(run.metrics)) == 0


def test_finding_a_run_writes_nothing(config, tmp_path):
    find_run(config, "data")
    assert not list(tmp_path.iterdir())


def test_the_same_configuration_finds_the_run_again_wherever_data_and_device_are(config):
    run = open_run(config, "data")
    again = copy.deepcopy(config)
    again["cache"], again["data"]["root"], again["trainer"]["devices"] = "there", "elsewhere", 2
    assert open_run(again, "data") == run
    assert read_config(run) == config


def test_a_changed_configuration_is_refused_by_name_and_nothing_is_overwritten(config, monkeypatch):
    run = open_run(config, "data")
    changed = copy.deepcopy(config)
    changed["optim"]["eps"] = 1e-4
    changed["data"]["preparation"]["window_hu"] = [-160, 240]
    changed["extra"] = 1
    before = run.config.read_bytes()
    assert run_folder(changed) != run.folder
    monkeypatch.setattr("lightning_dice.sessions.run_folder", lambda _: run.folder)  # as if names did not tell
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
    assert tuple(table.columns) == metric_columns(PAPER.names)
    assert table["step"].tolist() == [10, 10, 20]
    assert table["train/loss"].tolist()[::2] == [-0.5, -1e-9]
    assert table["val/loss"].notna().tolist() == [False, True, False]
    cut_metrics(run, 10)
    assert pd.read_csv(run.metrics)["step"].tolist() == [10, 10]


def test_cutting_keeps_points_letter_by_letter_and_drops_what_is_none(config):
    run = open_run(config, "data")
    append_metrics(run, 10, {"train/loss": 0.1 + 0.2})
    append_metrics(run, 20, {"val/loss": 1 / 3})
    whole = run.metrics.read_text()
    header, *points = whole.splitlines(keepends=True)
    cases = [
        "".join([header, points[0], header, points[1]]),  # as two processes leave it
        whole + points[0].replace("10,", "30,", 1),  # made after the checkpoint
        whole + "20,0.5",  # cut in the middle of a line
        whole + "\x00\x00\xff,,\n" + "loss\n",
    ]
    for damaged in cases:
        run.metrics.write_text(damaged)
        cut_metrics(run, 20)
        assert run.metrics.read_text() == whole


def test_an_empty_file_of_points_gets_its_header(config):
    run = open_run(config, "data")
    run.metrics.touch()
    append_metrics(run, 10, {"train/loss": 1.0})
    assert pd.read_csv(run.metrics)["step"].tolist() == [10]


def test_a_run_is_held_by_one_process_at_a_time(config):
    run = find_run(config, "data")
    code = "import sys; from lightning_dice.runs import Run; from lightning_dice.sessions import hold; "
    code += "from pathlib import Path\nwith hold(Run(Path(sys.argv[1]))): print('held', flush=True); input()"
    command = [sys.executable, "-c", code, str(run.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process works on this run"), hold(run):
            pass
        other.kill()
    with hold(run):  # the lock ended with its process
        (run.folder / "kept").touch()
    assert [path.name for path in run.folder.iterdir()] == ["kept"]


def test_a_run_that_never_began_leaves_no_folder(config, tmp_path):
    with pytest.raises(InputError, match="no"), hold(find_run(config, "data")):
        raise InputError("no")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"])
def test_a_damaged_file_of_a_run_is_told_in_one_line(config, content):
    run = open_run(config, "data")
    run.environment.write_text(content)
    with pytest.raises(InputError, match=r"environment\.json: ") as refusal:
        find_run(config, "data")
    assert "\n" not in str(refusal.value)
    run.config.write_text(content)
    with pytest.raises(InputError, match=r"config\.yaml: ") as refusal:
        read_config(run)
    assert "\n" not in str(refusal.value)


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no config\.yaml in it"):
        read_config(Run(tmp_path))


def test_the_runs_classes_are_its_curves_columns(config):
    kidneys = label_set("mine", {"kidney_left": None, "tumour": {"opacity": 0.5}})
    run = find_run(config, "data")
    begin(run, config, "data", kidneys, {}, {}, {"from_step": 0})
    assert read_labels(run) == kidneys
    append_metrics(run, 10, {"train/loss": 1.0, "val/dice/tumour": 0.5, "val/dice/liver": 0.25})
    table = pd.read_csv(run.metrics)
    assert list(table) == [
        "step", "train/loss", "train/dice/background", "train/dice/kidney_left", "train/dice/tumour",
        "val/loss", "val/dice/background", "val/dice/kidney_left", "val/dice/tumour",
    ]  # fmt: skip
    assert table.loc[0, "val/dice/tumour"] == 0.5
    whole = run.metrics.read_text()
    cut_metrics(run, 10)
    assert run.metrics.read_text() == whole


def test_a_run_without_a_file_of_its_classes_has_the_papers(tmp_path):
    assert read_labels(Run(tmp_path)) == PAPER


def test_a_run_that_goes_on_keeps_its_classes(config):
    run = open_run(config, "data")
    before = {file.name: file.read_bytes() for file in run.folder.iterdir() if file.is_file()}
    with pytest.raises(InputError, match=r"the run's classes are background, artery, .* and the data's background, a;"):
        begin(run, config, "data", label_set("mine", {"a": None}), {}, {}, {"from_step": 0})
    assert {file.name: file.read_bytes() for file in run.folder.iterdir() if file.is_file()} == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda plain: None,
        lambda plain: [],
        lambda plain: plain | {"labels": []},
        lambda plain: plain | {"labels": plain["labels"][1:]},
        lambda plain: plain | {"labels": [{"name": "background"}, *plain["labels"][1:]]},
        lambda plain: plain | {"labels": [*plain["labels"], {"name": "a", "colour": "red"}]},
        lambda plain: plain | {"labels": [*plain["labels"], {"name": "a,b", "colour": "#000000"}]},
        lambda plain: plain | {"labels": [*plain["labels"], {"name": "a", "colour": "#000000", "opacity": "much"}]},
        lambda plain: plain | {"labels": [*plain["labels"], {"name": "a", "colour": "#000000", "opacity": 2}]},
        lambda plain: plain | {"labels": [*plain["labels"], {"name": "a", "colour": "#000000", "weight": 2}]},
    ],
)
def test_damaged_classes_are_told_in_one_line(tmp_path, damage):
    run = Run(tmp_path)
    run.labels.write_text(json.dumps(damage(PAPER.to_plain())))
    with pytest.raises(InputError, match=r"labels\.json: no label set \(.+\); restore it") as refusal:
        read_labels(run)
    assert "\n" not in str(refusal.value)
    for text in ("", "{", "\x00", "[" * 100_000):
        run.labels.write_text(text)
        with pytest.raises(InputError, match=r"labels\.json: no label set \(.+\); restore it"):
            read_labels(run)
