"""All scores of a grid in one file, and the report drawn from it again."""

import gzip

import numpy as np
import pandas as pd
import pytest

from lightning_dice.config import shipped_labels
from lightning_dice.data.labels import label_set
from lightning_dice.errors import InputError
from lightning_dice.paper.archive import archive_table, read_archive, write_archive
from lightning_dice.paper.ensembles import ensemble_table, read_ensembles
from lightning_dice.paper.grid import read_grid
from lightning_dice.paper.observations import observe
from lightning_dice.paper.predictions import observe_predictions
from lightning_dice.paper.remarks import remarks_on
from lightning_dice.paper.statistics import compare_cells
from lightning_dice.paper.table1 import grid_table
from lightning_dice.paper.variance import variance_table
from lightning_dice.runs import Run, write_json
from tests.grids import write_ensemble, write_run

PRIOR = {"prior": "half"}


def read(sweep):
    """Grid and ensembles, as the report reads them."""
    grid = read_grid(sweep)
    return grid, read_ensembles(sweep, grid)[0]


def scores(mean: float, cases: int = 8, classes: int = 8) -> dict[str, list[float]]:
    """With one that is undefined, and more decimals than a file has."""
    drawn = np.random.default_rng(round(100 * mean)).normal(mean, 0.03, (cases, classes)).clip(0, 1)
    drawn[0, -1] = np.nan
    return {f"c{number}": row for number, row in enumerate(drawn.tolist())}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    for seed in range(3):
        for number, loss in enumerate(("uniform", "simple", "square")):
            for lr, more in ((0.001, 0.0), (0.01, 0.1)):
                write_run(folder, loss, lr, scores(0.5 + more + number / 20 + seed / 200), seed)
                write_run(folder, loss, lr, scores(0.6 + more + number / 20 + seed / 200), seed, PRIOR)
        write_run(folder, "square", 0.1, scores(0.9 + seed / 200), seed, PRIOR)
        write_run(folder, "dice_ce", 0.01, scores(0.2 + seed / 200), seed, PRIOR)
        runs = [f"loss={loss},lr=0.01,seed={seed}" for loss in ("uniform", "simple")]
        write_ensemble(folder, f"phantom,last,combine=mean,runs={seed}", scores(0.7 + seed / 200), runs=runs)
    write_ensemble(folder, "phantom,last,combine=mean,runs=3", scores(0.8, 5), runs=["loss=a", "loss=b", "loss=c"])
    write_run(folder, "uniform", 0.1, None)  # unfinished
    lost = Run(folder / "loss=simple,lr=0.01,seed=1")
    write_json(lost.summary, {"cases": 8, "lost_classes": {"background": 0.0, "liver": 0.12}})
    return folder


def test_the_report_of_the_archive_is_that_of_the_runs(sweep, tmp_path):
    ours, combined = read(sweep)
    write_archive(tmp_path / "scores.csv.gz", ours, combined)
    again, ensembles = read_archive(tmp_path / "scores.csv.gz")
    cells = [cell for cell in ours.cells if cell.finished]
    assert [cell.name for cell in again.cells] == [cell.name for cell in cells]
    assert again.labels == shipped_labels("paper")
    for make, digits in ((grid_table, 1e-3), (variance_table, 1e-3), (compare_cells, 1e-3)):
        pd.testing.assert_frame_equal(make(again.cells), make(cells), atol=digits, check_dtype=False)
    assert [(one.name, one.runs, one.told) for one in ensembles] == [(one.name, one.runs, one.told) for one in combined]
    assert [len(one.scores[1]) for one in ensembles] == [3, 1]  # seeds
    made = ensemble_table(again.cells, ensembles), ensemble_table(cells, combined)
    pd.testing.assert_frame_equal(*made, atol=1e-3)
    for start in ("", "prior=half"):
        found, expected = (observe(of, start) + observe_predictions(of, start) for of in (again.cells, cells))
        assert [(one.claim, one.answer) for one in found] == [(one.claim, one.answer) for one in expected]
    told = remarks_on(again, compare_cells(again.cells))
    assert told == remarks_on(ours, compare_cells(ours.cells))
    assert "uniform, 0.1: seed 0: unfinished, step 20 of 40, loss -2, validation Dice 0.250" in told
    assert "simple, 0.01: seed 1 lost background (0.00), liver (0.12), by the training Dice at the end." in told


def test_remarks_and_ensembles_outlive_the_second_archive(sweep, tmp_path):
    write_archive(tmp_path / "first.csv.gz", *read(sweep))
    write_archive(tmp_path / "second.csv.gz", *read_archive(tmp_path / "first.csv.gz"))
    assert (tmp_path / "first.csv.gz").read_bytes() == (tmp_path / "second.csv.gz").read_bytes()


def test_the_same_scores_give_the_same_bytes(sweep, tmp_path):
    for name in ("a", "b"):
        write_archive(tmp_path / name, *read(sweep))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_jaccard_follows_from_dice(sweep, tmp_path):
    write_archive(tmp_path / "scores.csv.gz", *read(sweep))
    table = read_archive(tmp_path / "scores.csv.gz")[0].cells[0].finished[0].scores
    np.testing.assert_allclose(table["jaccard"], table["dice"] / (2 - table["dice"]))


def test_a_single_rate_of_the_prior_answers_no_claim_but_its_predictions(sweep):
    cells = read_grid(sweep).cells
    found = {one.claim: one.answer for one in observe_predictions(cells, "prior=half")}
    assert found == {
        "a rate of 0.1 helps square": "yes",
        "the best weighting is above Dice with cross-entropy, each at its best rate": "yes",
    }
    assert observe_predictions(cells, "") == []


@pytest.mark.parametrize("is_archived", [False, True])
def test_a_best_rate_is_that_of_the_best_validation(tmp_path, is_archived):
    folder = tmp_path / "sweep"
    for lr, validated, tested in ((0.001, 0.4, 0.8), (0.01, 0.6, 0.5)):
        for loss, more in (("uniform", 0.1), ("dice_ce", 0.0)):
            for seed in range(2):
                run = write_run(folder, loss, lr, scores(tested + more + seed / 200), seed)
                curves = pd.read_csv(run.metrics)
                curves.loc[curves["val/dice/liver"].notna(), "val/dice/liver"] = validated
                curves.to_csv(run.metrics, index=False)
    grid = read_grid(folder)
    write_archive(tmp_path / "scores.csv.gz", grid, [])
    again, _ = read_archive(tmp_path / "scores.csv.gz")
    (found,) = observe_predictions((again if is_archived else grid).cells, "")
    assert "uniform at 0.01 − dice_ce at 0.01 +10" in found.figures


def test_without_validation_no_rate_is_best(tmp_path):
    for loss in ("uniform", "dice_ce"):
        run = write_run(tmp_path, loss, 0.001, scores(0.5))
        pd.read_csv(run.metrics).iloc[:4].to_csv(run.metrics, index=False)
    assert observe_predictions(read_grid(tmp_path).cells, "") == []


def test_other_classes_come_back(tmp_path):
    labels = label_set("mine", {"heart": {}, "Lung, left": {}})
    write_run(tmp_path / "sweep", "uniform", 0.001, scores(0.5, classes=3), labels=labels)
    write_archive(tmp_path / "scores.csv.gz", read_grid(tmp_path / "sweep"), [])
    again, _ = read_archive(tmp_path / "scores.csv.gz")
    assert again.labels.names == ("background", "heart", "lung_left")
    assert np.isfinite(again.cells[-1].matrix()["heart"]).all()


def cut(table, rows):
    """Of these rows, those of the first ensemble's first seed."""
    return rows & table["ensemble"].eq(table["ensemble"].dropna().iloc[0]) & table["seed"].eq(0)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda table: table.drop(columns="seed"), "no column seed"),
        (lambda table: table[:0], "no rows"),
        (lambda table: table[table["remark"].notna()], "no rows"),
        (lambda table: table.assign(lr=table["lr"].mask(table["seed"] == 1)), "a row without a rate"),
        (lambda table: table.assign(seed=table["seed"].mask(table["lr"] == 0.1)), ".*NA"),
        (lambda table: table.assign(dice=1.5), "a dice out of range"),
        (lambda table: pd.concat([table, table[:1]]), "a score twice"),
        (lambda table: table.assign(data=table["seed"].map("fingerprint {}".format)), "seeds of one cell on different"),
        (lambda table: table[1:], "a case without all 8 classes"),
        (lambda table: table[~cut(table, table["case"].eq("c1"))], "an ensemble.s seeds with unlike cases"),
        (lambda table: table[~cut(table, table["label"].eq(1))], "a case without all 8 classes"),
        (lambda table: table.assign(runs=table["runs"].mask(table["ensemble"].notna())), ".*NA"),
        (lambda table: table.replace({"name": {"liver": "lever"}, "label": {3: 9}}), "classes and their indices"),
    ],
)
def test_what_is_no_such_table_is_refused_in_a_line(sweep, tmp_path, damage, told):
    file = tmp_path / "scores.csv.gz"
    file.write_bytes(gzip.compress(damage(archive_table(*read(sweep))).to_csv(index=False).encode()))
    with pytest.raises(InputError, match=rf"^sweep=.*scores\.csv\.gz: no table of scores \({told}.*expected"):
        read_archive(file)


def test_damaged_files_are_refused_in_a_line(sweep, tmp_path):
    file = tmp_path / "scores.csv.gz"
    write_archive(file, *read(sweep))
    for content in (file.read_bytes()[:2000], b"", b"\x1f\x8bnot", gzip.compress(b"\xff\xfe\x00")):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"no table of scores \(.*expected a report's"):
            read_archive(file)
