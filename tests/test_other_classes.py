"""Grids of other classes than the paper's: their report has their rows, and nothing of the paper's."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lightning_dice.config import shipped_labels
from lightning_dice.data.labels import LabelSet, label_set
from lightning_dice.errors import InputError
from lightning_dice.paper.figure1 import grid_curves
from lightning_dice.paper.grid import read_grid
from lightning_dice.paper.observations import CLAIMS
from lightning_dice.paper.published import TABLE1
from lightning_dice.paper.statistics import compare_cells
from lightning_dice.paper.stored import read_run
from lightning_dice.paper.table1 import grid_table, latex_table
from tests.grids import PAPER, write_pictures, write_run
from tests.test_pictures import check_legend
from tests.test_report import CASES, make_report

KIDNEYS = label_set("mine", {"kidney_left": {"opacity": 0.5}, "kidney_right": None, "tumour": {"colour": "#ff0000"}})
ROWS = [*KIDNEYS.names, "AVG", "MAX", "MIN", "AVG organs", "MAX organs", "MIN organs"]
EMPTY = r"<ul></ul>|<table></table>|<tbody></tbody>|<h3>[^<]*</h3>\s*<(h|/s)|<h2>[^<]*</h2>\s*<(h2|/s)"
MEANS = {("uniform", 0.01): [98, 90, 80, 40], ("simple", 0.01): [90, 80, 85, 60]}
FOUR = {case: [0.5] * 4 for case in CASES}
EIGHT = {case: [0.5] * 8 for case in CASES}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    sweep = tmp_path_factory.mktemp("sweep")
    for (loss, lr), means in MEANS.items():
        run = write_run(sweep, loss, lr, {case: [mean / 100 for mean in means] for case in CASES}, labels=KIDNEYS)
        write_pictures(run, sweep / "store", CASES)
    return make_report(sweep)


def test_the_table_has_their_rows_and_no_printed_column(reported):
    table = pd.read_csv(reported / "table1.csv")
    assert list(table) == [
        "row", "cell", "loss", "lr", "variant", "cases", "seeds", "dice", "low", "high", "sd_seeds", "jaccard",
    ]  # fmt: skip
    uniform = table[table["cell"] == "uniform, 0.01"]
    assert uniform["row"].tolist() == ROWS
    assert uniform["dice"].tolist() == pytest.approx([98, 90, 80, 40, 77, 98, 40, 70, 90, 40])


def test_table_1_in_markdown_is_theirs_alone(reported):
    text = (reported / "table1.md").read_text()
    assert "paper" not in text.lower()
    rows = re.findall(r"^\| ([\w\\ ]+) \|", text.split("##")[0], re.MULTILINE)
    assert [row.replace("\\", "") for row in rows] == ROWS
    assert re.search(r"^\| kidney\\_left \|.* \| \*\*90\.0\*\* \| 80\.0 \|", text, re.MULTILINE)


def test_table_1_in_latex_escapes_their_names(reported):
    text = (reported / "table1.tex").read_text()
    assert r"kidney\_left &" in text
    assert "mu" not in text


def test_the_statistics_are_of_their_classes(reported):
    pairs = pd.read_csv(reported / "statistics.csv")
    assert pairs["row"].tolist() == [*KIDNEYS.names, "AVG organs"]
    assert pairs.set_index("row").loc["tumour", "difference"] == pytest.approx(-0.2)


def test_the_page_has_no_claims_and_no_empty_section(reported):
    page = (reported / "index.html").read_text()
    body = page[: page.index("<script")]
    assert "paper" not in body.lower()
    assert not [claim for claim in CLAIMS if claim in body]
    assert "<!--" not in body
    assert not re.search(EMPTY, body)
    assert "Worst cases" in body
    for row in ROWS:
        assert f'<th scope="row">{row}</th>' in body
    assert '"colour": [255, 0, 0]' in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert {label["name"]: label["opacity"] for label in data["labels"]}["kidney_left"] == 0.5


def test_a_page_of_a_grid_that_has_just_begun_has_no_empty_section_either(tmp_path):
    write_run(tmp_path, "simple", 0.01, None, labels=KIDNEYS)
    page = (make_report(tmp_path) / "index.html").read_text()
    body = page[: page.index("<script")]
    assert not re.search(EMPTY, body)


def test_figures_are_drawn(reported):
    assert {"figure1.png", "figure1.svg", "figure2.png", "figure3.png"} < {path.name for path in reported.iterdir()}
    svg = (reported / "figure1.svg").read_text()
    assert "kidney_left" in svg
    assert "gallbladder" not in svg


def test_a_run_of_other_classes_is_left_out_with_the_reason(tmp_path):
    write_run(tmp_path, "uniform", 0.001, FOUR, labels=KIDNEYS)
    write_run(tmp_path, "simple", 0.01, EIGHT, seed=0)
    write_run(tmp_path, "simple", 0.01, EIGHT, seed=1, settings={"optim.eps": 1e-3})
    write_run(tmp_path, "simple", 0.01, FOUR, seed=2, labels=KIDNEYS)
    write_run(tmp_path, "square", 0.01, EIGHT, labels=PAPER)
    grid = read_grid(tmp_path)
    cells = {cell.name: cell for cell in grid.cells}
    assert grid.labels == PAPER
    reason = "done, left out, of other classes (background, kidney_left, kidney_right, tumour)"
    assert cells["uniform, 0.001"].left_out == (f"seed 0: {reason}",)
    assert cells["uniform, 0.001"].runs == ()
    assert [run.seed for run in cells["simple, 0.01"].runs] == [0]
    assert cells["simple, 0.01"].left_out == (f"seed 2: {reason}",)
    assert len(cells["square, 0.01"].runs) == 1
    folder = make_report(tmp_path)
    assert "uniform, 0.001: seed 0: done, left out, of other classes" in (folder / "table1.md").read_text()
    assert "| liver | – (96.5)" in (folder / "table1.md").read_text()
    assert "The paper's claims" in (folder / "index.html").read_text()
    assert (folder / "figure1.svg").read_text().count("broken or left out") == 1


def test_the_first_runs_classes_are_the_grids_if_as_many_have_others(tmp_path):
    write_run(tmp_path, "simple", 0.01, FOUR, labels=KIDNEYS)
    write_run(tmp_path, "uniform", 0.01, EIGHT)
    assert read_grid(tmp_path).labels == KIDNEYS
    write_run(tmp_path, "uniform", 0.001, EIGHT)
    assert read_grid(tmp_path).labels == PAPER


def test_a_left_out_runs_settings_make_no_cell_another(tmp_path):
    for loss in ("uniform", "simple"):
        write_run(tmp_path, loss, 0.01, EIGHT, settings={"data.patch_size": 96})
    write_run(tmp_path, "square", 0.01, FOUR, labels=KIDNEYS)
    begun = [cell for cell in read_grid(tmp_path).cells if cell.runs or cell.left_out]
    assert [cell.name for cell in begun] == ["uniform, 0.01", "simple, 0.01", "square, 0.01"]
    assert [bool(cell.runs) for cell in begun] == [True, True, False]


def test_runs_that_show_the_same_classes_otherwise_belong_together(tmp_path):
    """Colours are no part of a result."""
    white = LabelSet("mine", tuple(replace(label, colour="#ffffff") for label in PAPER.labels))
    write_run(tmp_path, "simple", 0.01, EIGHT, seed=0, labels=white)
    write_run(tmp_path, "simple", 0.01, EIGHT, seed=1)
    assert len(read_grid(tmp_path).cells[4].finished) == 2


def test_the_papers_values_join_by_class_whatever_their_order(tmp_path):
    reverse = PAPER.select(PAPER.names[:0:-1])
    write_run(tmp_path, "simple", 0.01, {case: [0.9, 0.8, *[0.5] * 6] for case in CASES}, labels=reverse)
    table = grid_table(read_grid(tmp_path).cells).set_index(["cell", "row"]).loc["simple, 0.01"]
    assert table.index[:3].tolist() == ["background", "pancreas", "gallbladder"]
    assert table.loc["pancreas", ["dice", "printed"]].tolist() == pytest.approx([80, TABLE1["simple", 0.01][7]])


@pytest.mark.parametrize("names", [PAPER.names[1:7], [*PAPER.names[1:], "kidney_left"]])
def test_one_class_more_or_less_is_not_the_papers_table(tmp_path, names):
    labels = label_set("mine", dict.fromkeys(names))
    write_run(tmp_path, "simple", 0.01, {case: [0.5] * len(labels) for case in CASES}, labels=labels)
    assert grid_table(read_grid(tmp_path).cells)["printed"].isna().all()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"name": "x"}', "[" * 100_000])
def test_damaged_classes_are_one_line_and_break_their_run_only(tmp_path, content):
    bad = write_run(tmp_path, "uniform", 0.01, FOUR, labels=KIDNEYS)
    write_run(tmp_path, "simple", 0.01, FOUR, labels=KIDNEYS)
    bad.labels.write_text(content)
    with pytest.raises(InputError, match=r"^loss=uniform,lr=0.01,seed=0/labels\.json: no label set \(.+\)") as refusal:
        read_run(bad)
    assert "\n" not in str(refusal.value)
    text = (make_report(tmp_path) / "table1.md").read_text()
    assert "uniform, 0.01: seed 0: broken (loss=uniform,lr=0.01,seed=0/labels.json: no label set" in text
    assert r"kidney\_left" in text


@pytest.mark.parametrize("count", [30, 117])
def test_a_grid_of_many_classes_has_a_report(tmp_path, count):
    many = shipped_labels("totalsegmentator")
    labels = many.select(many.names[1 : count + 1])
    rng = np.random.default_rng(0)
    for loss in ("uniform", "simple"):
        dice = {f"c{i}": rng.uniform(0.3, 0.9, len(labels)).tolist() for i in range(3)}
        write_run(tmp_path, loss, 0.01, dice, labels=labels)
    cells = read_grid(tmp_path).cells
    figure = grid_curves(cells)
    FigureCanvasAgg(figure)
    assert set(labels.names) < set(check_legend(figure))
    assert len(compare_cells(cells)) == len(labels) + 1
    assert latex_table(grid_table(cells)).count(r"\\") == len(labels) + 6 + 1
    page = (make_report(tmp_path) / "index.html").read_text()
    assert page.count('<th scope="row">') == len(labels) + 6
