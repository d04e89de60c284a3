"""The study's answer in README, drawn again from the scores in the repository."""

import re
from pathlib import Path

import pytest

from lightning_dice.paper.archive import ARCHIVE, read_archive
from lightning_dice.paper.ensembles import ensemble_table
from lightning_dice.paper.observations import observe
from lightning_dice.paper.predictions import TWICE, observe_predictions
from lightning_dice.paper.published import RATES, WEIGHTINGS
from lightning_dice.paper.table1 import grid_table
from tests.test_config import composed

ROOT = Path(__file__).parents[1]
(FINDINGS,) = re.findall(r"## Findings\n(.*?)\n## ", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
STARTS = {"the paper's start": "", "`prior=half`": "prior=half"}


@pytest.fixture(scope="module")
def archive():
    grid, ensembles = read_archive(ROOT / ".github" / "study" / ARCHIVE)
    return grid.cells, ensembles


@pytest.fixture(scope="module")
def cells(archive):
    return archive[0]


def test_the_scores_are_small_and_of_enough_patients(cells):
    assert (ROOT / ".github" / "study" / ARCHIVE).stat().st_size < 1e6
    assert all(cell.scores["case"].nunique() >= 30 for cell in cells if cell.finished)


def test_readmes_table_is_that_of_the_scores(cells):
    table = grid_table(cells)
    means = table[table["row"] == "AVG organs"].set_index(["lr", "variant", "loss"])
    of_seeds = {(cell.lr, cell.variant, cell.loss): len(cell.finished) for cell in cells}
    whole = {key[:2] for key in of_seeds if all(of_seeds.get((*key[:2], loss), 0) > 1 for loss in WEIGHTINGS)}
    expected = []
    for lr, start in sorted(key for key in whole if key[1] in STARTS.values()):
        of = [means.loc[lr, start, loss] for loss in WEIGHTINGS]
        expected.append((lr, start, *(f"{cell['dice']:.1f} ± {cell['sd_seeds']:.1f}" for cell in of)))
    rows = re.findall(r"^\| (0\.\d+), (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", FINDINGS, re.MULTILINE)
    assert [(float(lr), STARTS[start], *texts) for lr, start, *texts in rows] == expected


def test_readmes_counts_of_runs_are_those_of_the_scores(cells):
    ours = [cell for cell in cells if cell.loss in WEIGHTINGS]
    study = [run for one in ours if one.lr in RATES and one.variant in STARTS.values() for run in one.finished]
    rates = [run for one in ours if one.variant == "prior=half" for run in one.finished if run.seed < 3]
    assert f"all of its {len(study)} runs" in FINDINGS
    assert f"all of its {len(rates)})" in FINDINGS


def test_readmes_answers_are_those_of_the_scores(cells):
    answer = "((?:yes|no|undecided)[^|]*?)"
    told = re.findall(rf"^\| ([^|]+?) \| {answer} \| {answer} \|$", FINDINGS, re.MULTILINE)
    found = zip(*(observe(cells, start) for start in STARTS.values()), strict=True)
    assert told == [(both[0].claim, *(one.told for one in both)) for both in found]


def test_readmes_predictions_are_those_of_the_scores(cells):
    told = re.findall(r"^\| ([^|]+?) \| ([+-][\d.]+) \| ((?:yes|no|undecided)[^|]*?) \|$", FINDINGS, re.MULTILINE)
    found = observe_predictions(cells, "prior=half")
    assert [(claim.replace("`", ""), answer) for claim, _, answer in told] == [(one.claim, one.told) for one in found]
    for (_, points, _), one in zip(told, found, strict=True):
        assert re.search(rf"(gain|at 0\.\d+) {re.escape(points)} \(", one.figures)


def test_the_longer_runs_are_twice_as_long():
    assert f"trainer.max_steps={2 * composed('train', 'experiment=study').trainer.max_steps}" == TWICE


def test_readmes_lost_classes_are_those_of_the_scores(cells):
    def count(label: str, losses: tuple[str, ...], starts: tuple[str, ...]) -> str:
        of_grid = [one for one in cells if one.loss in losses and one.lr in RATES and one.variant in starts]
        lost = [label in run.lost for one in of_grid for run in one.finished]
        return f"{sum(lost)} of {len(lost)}"

    text = " ".join(FINDINGS.split())
    both = count("background", ("simple", "square"), ("",)), count("background", ("simple", "square"), ("prior=half",))
    assert f"without the background (training Dice below 0.2) ended {both[0]}, with `prior=half` {both[1]}" in text
    square, simple = (count("liver", (loss,), ("", "prior=half")) for loss in ("square", "simple"))
    assert f"`square` lost it in {square} runs, `simple` in {simple}" in text


def test_readmes_ensemble_is_that_of_the_scores(archive):
    (row,) = ensemble_table(*archive).dropna(subset="difference").to_dict("records")
    interval = f"{row['difference_low']:+.1f} to {row['difference_high']:+.1f}"
    assert f"{row['AVG organs']:.1f} %, {row['difference']:+.1f} points ({interval}) to the best cell" in FINDINGS
