"""A class that the training lost is told, and changes nothing."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_dice import lost
from lightning_dice.callbacks.lost import LostClassWarning
from lightning_dice.lost import lost_at_end, lost_classes, shares_of
from lightning_dice.paper.grid import read_grid
from lightning_dice.paper.remarks import remarks_on
from lightning_dice.paper.statistics import compare_cells
from lightning_dice.train import train
from tests.grids import write_run
from tests.test_train import config_of

SHARES = shares_of(["background", "liver", "vein"], [900, 90, 10])


@pytest.mark.parametrize(
    ("dice", "step", "expected"),
    [
        ({"background": 0.1, "liver": 0.9, "vein": 0.0}, 50, ["background"]),
        ({"background": 0.1, "liver": 0.19, "vein": 0.0}, 500, ["background", "liver"]),
        ({"background": 0.2, "liver": 0.9, "vein": 0.0}, 50, []),  # not below
        ({"background": 0.1, "liver": 0.9, "vein": 0.0}, 49, []),  # too early
        ({"background": 0.9, "liver": float("nan"), "vein": 0.0}, 50, []),  # in no patch
    ],
)
def test_large_classes_with_a_low_training_dice_are_lost(dice, step, expected):
    assert SHARES == {"background": 0.9, "liver": 0.09, "vein": 0.01}  # the vein has no more than a hundredth
    assert list(lost_classes(dice, SHARES, step)) == expected


def test_the_last_training_point_counts():
    rows = [
        {"step": 60, "train/loss": -1, "train/dice/background": 0.1, "train/dice/liver": 0.1, "train/dice/vein": 0.1},
        {"step": 80, "train/loss": -1, "train/dice/background": 0.9, "train/dice/liver": 0.05, "train/dice/vein": 0.1},
        {"step": 90, "val/loss": -1},
    ]
    assert lost_at_end(pd.DataFrame(rows), SHARES) == {"liver": 0.05}
    assert lost_at_end(pd.DataFrame(rows[:1] * 0, columns=list(rows[0])), SHARES) == {}


def test_each_class_is_told_once(capsys):
    texts = []
    board = SimpleNamespace(experiment=SimpleNamespace(add_text=lambda *told: texts.append(told)))
    warning = LostClassWarning(SHARES, board)
    warning.log_metrics({"val/dice/background": 0.0}, 60)
    for step, dice in ((40, 0.0), (50, 0.1), (60, 0.05)):
        warning.log_metrics({"train/loss": -1.0, "train/dice/background": dice, "train/dice/liver": 0.9}, step)
    told = capsys.readouterr().out
    assert told.count("warning: ") == 1
    assert "background: training Dice 0.10 at step 50, with 90.0% of the training's voxels" in told
    assert "another seed may find it, or prior=half" in told
    ((tag, text, step),) = texts
    assert (tag, step) == ("lost", 50)
    assert text in told


def test_a_run_says_it_everywhere_and_is_the_same(nnunet_root, tmp_path, monkeypatch, capsys):
    few = ["trainer.max_steps=2", "trainer.val_check_interval=2"]
    unnoticed = train(config_of(tmp_path / "a", nnunet_root, *few))
    assert json.loads(unnoticed.summary.read_text())["lost_classes"] == {}
    assert "does not find it" not in capsys.readouterr().out
    monkeypatch.setattr(lost, "AFTER", 1)
    monkeypatch.setattr(lost, "LOST_BELOW", 1.1)
    run = train(config_of(tmp_path / "b", nnunet_root, *few))
    found = json.loads(run.summary.read_text())["lost_classes"]
    assert "background" in found
    last = pd.read_csv(run.metrics).dropna(subset=["train/loss"]).iloc[-1]
    assert all(last[f"train/dice/{name}"] == pytest.approx(dice) for name, dice in found.items())
    assert capsys.readouterr().out.count("does not find it") == len(found)
    events = EventAccumulator(str(run.tensorboard)).Reload()
    assert "lost/text_summary" in events.Tags()["tensors"]
    assert run.metrics.read_bytes() == unnoticed.metrics.read_bytes()


def test_a_report_names_runs_that_lost_a_class(tmp_path):
    dice = {f"c{number}": [0.5] * 8 for number in range(6)}
    write_run(tmp_path, "uniform", 0.001, dice)
    run = write_run(tmp_path, "simple", 0.01, dice, seed=3)
    run.summary.write_text(json.dumps({"cases": 6, "lost_classes": {"background": 0.031, "liver": 0.1}}))
    grid = read_grid(tmp_path)
    said = "simple, 0.01: seed 3 lost background (0.03), liver (0.10), by the training Dice at the end."
    assert said in remarks_on(grid, compare_cells(grid.cells))
    run.summary.write_text(json.dumps({"cases": 6, "lost_classes": ["liver"]}))
    assert any("lost_classes=['liver']: expected a Dice by class" in c.states for c in read_grid(tmp_path).cells)
