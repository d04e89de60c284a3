"""The study's answer in README, drawn again from the scores in the repository."""

import re
from pathlib import Path

import pytest

from lightning_dice.paper.archive import ARCHIVE, read_archive
from lightning_dice.paper.observations import observe
from lightning_dice.paper.table1 import grid_table

ROOT = Path(__file__).parents[1]
(FINDINGS,) = re.findall(r"## Findings\n(.*?)\n## ", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
STARTS = {"the paper's start": "", "`prior=half`": "prior=half"}


@pytest.fixture(scope="module")
def cells():
    return read_archive(ROOT / ".github" / "study" / ARCHIVE).cells


def test_the_scores_are_small_and_of_enough_patients(cells):
    assert (ROOT / ".github" / "study" / ARCHIVE).stat().st_size < 1e6
    assert all(cell.scores["case"].nunique() >= 30 for cell in cells if cell.finished)


def test_readmes_table_is_that_of_the_scores(cells):
    table = grid_table(cells)
    means = table[table["row"] == "AVG organs"].set_index(["lr", "variant", "loss"])
    rows = re.findall(r"^\| (0\.\d+), (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", FINDINGS, re.MULTILINE)
    assert len(rows) == len(means) / 3
    for rate, start, *told in rows:
        for loss, text in zip(("uniform", "simple", "square"), told, strict=True):
            cell = means.loc[float(rate), STARTS[start], loss]
            assert text == f"{cell['dice']:.1f} ± {cell['sd_seeds']:.1f}"


def test_readmes_answers_are_those_of_the_scores(cells):
    rows = re.findall(r"^\| ([^|]+?) \| (\w[^|]*?) \| (\w[^|]*?) \|$", FINDINGS, re.MULTILINE)
    told = {claim: answers for claim, *answers in rows}
    found = zip(*(observe(cells, start) for start in STARTS.values()), strict=True)
    assert told == {both[0].claim: [one.told for one in both] for both in found}
