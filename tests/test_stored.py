"""Broken runs: each is told with file and reason, none counts, and none keeps the others from being reported."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from lightning_dice.errors import InputError
from lightning_dice.paper.grid import read_grid
from lightning_dice.paper.stored import read_run
from tests.grids import write_run
from tests.test_report import CASES, cases_around, make_report

FOUR = cases_around([50] * 8)


def lines(change):
    """A damage of a text file's lines."""
    return lambda text: "".join(change(text.splitlines(keepends=True)))


def keys(**changes):
    """A damage of the configuration."""
    return lambda text: "".join(
        changes.get(line.split(":")[0].strip(), line) for line in text.splitlines(keepends=True)
    )


DAMAGES = [
    ("config.yaml", "loss: [", "cannot be read"),
    ("config.yaml", b"\x00\xff\xfe", "cannot be read"),
    ("config.yaml", "", "holds no settings"),
    ("config.yaml", "- a\n- b\n", "holds no settings"),
    ("config.yaml", "a: b\n", "no seed in it"),
    ("config.yaml", None, "not there"),
    ("config.yaml", keys(lr=""), "no optim.lr in it"),
    ("config.yaml", keys(lr="  lr: fast\n"), "optim.lr='fast': expected a number"),
    ("config.yaml", keys(lr="  lr: .nan\n"), "optim.lr=nan: expected a number"),
    ("config.yaml", keys(lr="  lr: ${seed}\n"), "optim.lr='${seed}': expected a number"),
    ("config.yaml", keys(max_steps="  max_steps: true\n"), "trainer.max_steps=True: expected a number"),
    ("config.yaml", keys(weighting=""), "loss.weighting=None: expected a weighting's name"),
    ("config.yaml", keys(_target_="  _target_: uniform\n"), "loss._target_='uniform': expected module.Class"),
    (
        "config.yaml",
        keys(_target_="  _target_: lightning_dice.losses.SumLoss\n"),
        "loss.first._target_=None: expected module.Class",
    ),
    ("environment.json", "", "empty"),
    ("environment.json", "{", "not JSON"),
    ("environment.json", "[" * 100_000, "not JSON"),
    ("environment.json", "[1]", "expected an object"),
    ("FAILED", "no", "not JSON"),
    ("FAILED", '{"error": "x"}', "lacks error or reason"),
    ("cases.json", "", "empty"),
    ("summary.json", "nothing", "not JSON"),
    ("DONE", "", "empty"),
    ("metrics.csv", "", "empty"),
    ("metrics.csv", b"\x1f\x8b\xff garbage", "no CSV"),
    ("metrics.csv", "a,b\n1,2\n", "not one column step in its first line"),
    ("metrics.csv", lines(lambda rows: [rows[0], *rows]), "column step: could not convert string to float"),
    ("metrics.csv", lines(lambda rows: [*rows[:-1], rows[-1][:20]]), "row 6 has 12 values; expected 19"),
    ("metrics.csv", lines(lambda rows: [*rows, rows[-1].replace("20", "", 1)]), "a point without a step"),
    ("scores.csv", "", "empty"),
    ("scores.csv", lines(lambda rows: rows[:1]), "no rows"),
    ("scores.csv", lines(lambda rows: [*rows[:-1], rows[-1][:25]]), "row 33 has 5 values; expected 9"),
    ("scores.csv", lambda text: text.rstrip("\n")[:-1] + "1", "its last line is cut short"),
    ("scores.csv", lines(lambda rows: rows[:-1]), "case 004 has 7 rows; expected one for each of the 8 classes"),
    ("scores.csv", lines(lambda rows: [*rows, rows[-1]]), "case 004 has 9 rows"),
    ("scores.csv", lines(lambda rows: [*rows[:-1], rows[-2]]), "case 004 has 8 rows; expected one for each"),
    ("scores.csv", lambda text: text.replace("pancreas", "kidney"), "case 001 has 8 rows; expected one for each"),
    ("scores.csv", lines(lambda rows: rows[:-8]), "3 cases, but summary.json counts 4"),
    ("scores.csv", None, "not there, but the run has 4 test cases"),
    ("scores.csv", lambda text: text.replace("surface_dice", "nsd"), "not one column surface_dice"),
    ("scores.csv", lambda text: text.replace("0.485", "48.5", 1), "dice 48.5 of case 001 is out of range"),
    ("scores.csv", lambda text: text.replace("0.485", "much", 1), "column dice: could not convert string to float"),
    ("labels.json", "{", "no label set"),
    ("labels.json", '{"name": "x", "labels": [{"name": "liver", "colour": "#000000"}]}', "no label set"),
    ("cases.json", json.dumps({key: {} for key in [*CASES, "005"]}), "scores.csv: lacks case 005, unlike cases.json"),
    ("cases.json", json.dumps({key: {} for key in CASES[1:]}), "scores.csv: has case 001, unlike cases.json"),
]  # fmt: skip


def damage(file, how) -> None:
    if how is None:
        file.unlink()
    elif isinstance(how, bytes):
        file.write_bytes(how)
    else:
        file.write_text(how if isinstance(how, str) else how(file.read_text()))


@pytest.mark.parametrize(("name", "how", "reason"), DAMAGES)
def test_a_damaged_file_makes_a_run_broken_and_only_that_run(tmp_path, name, how, reason):
    bad = write_run(tmp_path, "uniform", 0.001, FOUR, seed=0)
    write_run(tmp_path, "uniform", 0.001, cases_around([60] * 8), seed=1)
    read_run(bad)  # sound as yet
    damage(bad.folder / name, how)
    with pytest.raises(InputError) as refusal:
        read_run(bad)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
    cell = read_grid(tmp_path).cells[0]
    assert [run.seed for run in cell.finished] == [1]
    assert cell.states == f"seed 1: done; seed 0: broken ({refusal.value})"
    assert cell.matrix().to_numpy().mean() == pytest.approx(0.6)
    assert name in str(refusal.value)


def test_an_unfinished_run_with_a_point_cut_short_is_broken_too(tmp_path):
    run = write_run(tmp_path, "uniform", 0.001, None)
    assert read_run(run).state == "unfinished, step 20 of 40, loss -0.02, validation Dice 0.250"
    run.metrics.write_text(run.metrics.read_text()[:-30])
    with pytest.raises(InputError, match=r"metrics\.csv: row 4 has"):
        read_run(run)


def test_a_run_without_curves_or_test_cases_is_sound_and_says_so(tmp_path):
    run = write_run(tmp_path, "uniform", 0.001, FOUR)
    run.metrics.unlink()
    assert read_run(run).state == "done, no curves"
    for file in (run.scores, run.summary):
        file.unlink()
    assert read_run(run).state == "done, no curves, no test cases"


def test_cases_are_told_apart_by_their_text(tmp_path):
    names = ["001", "1", "1.0", "NA", "nan", "None", "a,b", 'a"b', "a\u2028b", " a"]
    run = write_run(tmp_path, "uniform", 0.001, {name: [i / 10] * 8 for i, name in enumerate(names)})
    scores = read_run(run).scores
    assert scores["case"].unique().tolist() == names
    assert scores.groupby("case")["dice"].mean().to_dict() == {name: i / 10 for i, name in enumerate(names)}


def test_undefined_scores_stay_undefined(tmp_path):
    run = write_run(tmp_path, "uniform", 0.001, {"a": [0.5] * 7 + [math.nan]})
    scores = read_run(run).scores
    pd.testing.assert_series_equal(scores["dice"], pd.Series([0.5] * 7 + [math.nan], name="dice"))


def test_broken_runs_stand_in_the_report_of_the_sound_ones(tmp_path, capsys):
    write_run(tmp_path, "simple", 0.01, FOUR)
    write_run(tmp_path, "uniform", 0.001, FOUR).scores.write_text("")
    write_run(tmp_path, "square", 0.001, FOUR).config.write_text("")
    (tmp_path / "loss=old").mkdir()
    folder = make_report(tmp_path)
    told = [
        "uniform, 0.001: seed 0: broken (loss=uniform,lr=0.001,seed=0/scores.csv: empty)",
        "square, 0.001: seed 0: broken (loss=square,lr=0.001,seed=0/config.yaml: holds no settings; restore it, or",
        "loss=old: left out, not named as a run's folder, loss=…,lr=…,seed=…",
    ]
    said, markdown = capsys.readouterr().out, (folder / "table1.md").read_text()
    for line in told:
        assert line in said
        assert line.replace("_", r"\_") in markdown
    table = pd.read_csv(folder / "table1.csv").dropna(subset="dice")
    assert table["cell"].unique().tolist() == ["simple, 0.01"]
    assert (folder / "figure1.svg").read_text().count("broken or left out") == 2


def test_a_folder_that_may_not_be_entered_is_told(tmp_path, monkeypatch):
    """With an error that is made up, since root may enter any."""
    closed = write_run(tmp_path, "uniform", 0.001, FOUR)
    write_run(tmp_path, "simple", 0.001, FOUR)
    look = Path.is_file

    def is_file(path: Path) -> bool:
        if path.parent == closed.folder:
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    uniform, simple, *_ = read_grid(tmp_path).cells
    assert uniform.states == f"seed 0: broken ([Errno 13] Permission denied: '{closed.config}')"
    assert simple.states == "seed 0: done"


def test_a_grid_of_broken_runs_only_is_one_line(tmp_path):
    write_run(tmp_path, "uniform", 0.001, FOUR).done.write_text("")
    write_run(tmp_path, "simple", 0.001, FOUR).config.unlink()
    with pytest.raises(InputError) as refusal:
        make_report(tmp_path)
    message = str(refusal.value)
    assert "no run in it can be read" in message
    assert "loss=uniform,lr=0.001,seed=0/DONE: empty" in message
    assert "loss=simple,lr=0.001,seed=0/config.yaml: not there" in message
    assert "\n" not in message
    assert not (tmp_path / "report").exists()
