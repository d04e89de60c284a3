"""The report of hand-made grids: exact numbers, every state of a cell, and what comes out when files are missing."""

import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from matplotlib.image import imread

from lightning_dice.config import config_folder
from lightning_dice.errors import InputError
from lightning_dice.paper.ensembles import ensemble_table
from lightning_dice.paper.figure1 import grid_curves
from lightning_dice.paper.grid import read_grid
from lightning_dice.paper.interactive import matrix_figure
from lightning_dice.paper.page import page_html
from lightning_dice.paper.published import ROWS, TABLE1
from lightning_dice.paper.segmentations import picture, typical_case
from lightning_dice.paper.statistics import compare_cells
from lightning_dice.paper.table1 import grid_table, score_table
from lightning_dice.paper.variance import variance_table
from lightning_dice.paper.viewer import read_viewed
from lightning_dice.pictures import surfaces
from lightning_dice.pictures.slices import Pictured
from lightning_dice.report import report
from tests.conftest import write_nifti
from tests.grids import PAPER, write_pictures, write_run

# Means in percent, by cell; cases lie 4 points above and below, so that the means are exact.
MEANS = {
    ("uniform", 0.001): [98, 80, 70, 90, 80, 80, 60, 70],
    ("simple", 0.001): [90, 60, 50, 60, 60, 60, 40, 50],
    ("square", 0.001): [70, 50, 40, 10, 20, 10, 30, 40],
    ("uniform", 0.01): [96, 78, 70, 88, 80, 82, 58, 70],
    ("simple", 0.01): [94, 80, 72, 88, 84, 80, 62, 72],
}
CASES = ["001", "002", "003", "004"]  # numbers, as in many data sets, which a table must not take for such


def cases_around(means: list[float]) -> dict[str, list[float]]:
    return {case: [(m + d) / 100 for m in means] for case, d in zip(CASES, (-1.5, -0.5, 0.5, 1.5), strict=True)}


def make_report(sweep: Path, *overrides: str) -> Path:
    with initialize_config_dir(str(config_folder() / "report"), version_base="1.3"):
        return report(compose("report", [f"sweep='{sweep}'", *overrides]))


def small_report(sweep: Path) -> Path:
    """Of a grid with five finished cells and one that is missing."""
    for (loss, lr), means in MEANS.items():
        run = write_run(sweep, loss, lr, cases_around(means))
        write_pictures(run, sweep / "store", CASES)
    return make_report(sweep)


def test_a_report_is_these_files(reported):
    assert sorted(path.name for path in reported.iterdir()) == [
        "figure1.png", "figure1.svg", "figure2.png", "figure3.png", "figure4.png", "index.html",
        "rates.png", "rates.svg", "scores.csv.gz", "statistics.csv", "table1.csv", "table1.md", "table1.tex",
        "variance.csv",
    ]  # fmt: skip


def test_the_scores_alone_give_the_report_but_its_curves_and_pictures(reported, tmp_path):
    folder = make_report(reported / "scores.csv.gz", f"output={tmp_path}")
    assert {path.name for path in reported.iterdir()} - {path.name for path in folder.iterdir()} == {
        "figure1.png", "figure1.svg", "figure2.png", "figure3.png", "figure4.png",
    }  # fmt: skip
    ours, again = (pd.read_csv(path / "table1.csv") for path in (reported, folder))
    pd.testing.assert_frame_equal(again, ours, atol=1e-2, check_dtype=False)
    with pytest.raises(InputError, match=r"output=.*is a file; add output=FOLDER"):
        make_report(reported / "scores.csv.gz")


def test_table_1_has_exactly_the_numbers(reported):
    table = pd.read_csv(reported / "table1.csv").set_index(["loss", "lr", "row"]).sort_index()
    for (loss, lr), means in MEANS.items():
        ours = table.loc[loss, lr]
        organs = means[1:]
        averages = {"AVG": np.mean(means), "MAX": max(means), "MIN": min(means), "AVG organs": np.mean(organs)}
        expected = (
            dict(zip(PAPER.names, means, strict=True))
            | averages
            | {"MAX organs": max(organs), "MIN organs": min(organs)}
        )
        assert ours["dice"].to_dict() == pytest.approx(expected)
        assert ours.loc["liver", "cases"] == 4
        printed = dict(zip(ROWS, TABLE1[loss, lr], strict=True))
        assert ours["printed"].dropna().to_dict() == printed
        assert ours.loc["liver", "difference"] == pytest.approx(means[3] - printed["liver"])
        dice = np.array([means[3] + d for d in (-1.5, -0.5, 0.5, 1.5)]) / 100
        assert ours.loc["liver", "jaccard"] == pytest.approx(100 * np.mean(dice / (2 - dice)))
    assert table.loc["square", 0.01]["dice"].isna().all()
    # The mean of four draws from −1.5 … 1.5: below −1 has probability (1 + 4) / 256 < 0.025, up to −1 it is 15 / 256.
    assert table.loc["uniform", 0.001].loc["liver", ["low", "high"]].tolist() == pytest.approx([89.0, 91.0])


def test_table_1_in_markdown_is_the_papers_with_ours_and_the_best_in_bold(reported):
    text = (reported / "table1.md").read_text()
    lines = {line.split("|")[1].strip(): line for line in reversed(text.splitlines()) if line.startswith("| ")}
    assert lines[""].count("|") == 8
    rows = re.findall(r"^\| (\w+(?: organs)?) \|", text.split("##")[0], re.MULTILINE)
    assert rows == [*ROWS, "AVG organs", "MAX organs", "MIN organs"]
    cells = [cell.strip() for cell in lines["stomach"].split("|")[2:-1]]
    assert cells[0] == "80.0 (96.3, -16.3)"
    assert cells[3] == "**82.0** (93.9, -11.9)"
    assert cells[5] == "– (82.4)"
    assert "AVG 88.9, but its rows average 90.0" in text
    assert "square, 0.01: missing" in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_table_1_in_latex_compiles(reported, tmp_path):
    text = (reported / "table1.tex").read_text()
    assert r"\toprule" in text
    assert r"\textbf{82.0}" in text
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
    (tmp_path / "t.tex").write_text(document)
    asked = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 100}
    result = subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], **asked)
    assert result.returncode == 0, result.stdout[-2000:]


def test_the_paired_tests_are_in_the_csv(reported):
    pairs = pd.read_csv(reported / "statistics.csv")
    assert len(pairs) == 10 * (len(PAPER.names) + 1)
    liver = pairs[(pairs["row"] == "liver") & (pairs["cell_b"] == "square, 0.001")].iloc[0]
    assert liver["cell_a"] == "uniform, 0.001"
    assert liver["p_networks"] == pytest.approx(0.125)  # four cases, all in one direction: 2 / 2⁴
    assert liver["p_networks_holm"] == 1
    assert math.isnan(liver["p_weightings"])  # one seed each
    assert liver["difference"] == pytest.approx(0.8)


def test_figures_show_something(reported):
    for number in (1, 2, 3, 4):
        picture = imread(reported / f"figure{number}.png")[..., :3]
        assert picture.shape[0] > 800
        assert len(np.unique((picture * 255).astype(int) @ (1, 256, 65536))) > 200  # colours
    assert (reported / "figure1.svg").read_text().count("missing") == 1


def test_a_grid_with_a_failed_a_running_and_a_missing_cell_says_so(tmp_path, capsys):
    write_run(tmp_path, "uniform", 0.001, cases_around(MEANS["uniform", 0.001]))
    write_run(tmp_path, "simple", 0.001, None)
    failed = write_run(tmp_path, "square", 0.001, None)
    failed.failed.write_text('{"error": "InputError", "reason": "loss=nan at step 20: the training diverged"}')
    folder = make_report(tmp_path, f"output={tmp_path}/elsewhere")
    said = capsys.readouterr().out
    assert "uniform, 0.001: seed 0: done\n" in said
    assert "simple, 0.001: seed 0: unfinished, step 20 of 40, loss -0.02, validation Dice 0.250\n" in said
    assert "square, 0.001: seed 0: failed (InputError: loss=nan at step 20: the training diverged), step 20 of" in said
    assert "square, 0.01: missing\n" in said
    assert "uniform, 0.001: no picture of 003, 001, 002 (" in said
    assert "uniform is best at 0.001: not known yet" in said
    assert folder == tmp_path / "elsewhere"
    assert "the training diverged" in (folder / "index.html").read_text()
    assert not (folder / "figure2.png").exists()


def test_other_scores_are_means_over_cases_with_their_spread_between_seeds(tmp_path):
    for seed, hd95 in enumerate((2.0, 6.0)):
        run = write_run(tmp_path, "uniform", 0.001, cases_around([50] * 8), seed)
        scores = pd.read_csv(run.scores, dtype={"case": str})
        scores["hd95_mm"] = hd95 + (scores["case"] == "001") * 4  # 1 mm more on the average of four
        scores.loc[scores["name"] == "vein", "hd95_mm"] = np.nan
        scores.to_csv(run.scores, index=False)
    table = score_table(read_grid(tmp_path).cells, "hd95_mm").set_index(["cell", "row"])
    liver = table.loc["uniform, 0.001", "liver"]
    assert liver.tolist() == pytest.approx([5.0, np.std([3, 7], ddof=1)])
    assert table.loc["uniform, 0.001", "AVG organs"].tolist() == pytest.approx(liver.tolist())
    assert table.loc["uniform, 0.001", "vein"].isna().all()
    assert table.loc["square, 0.01"].isna().all(axis=None)


def test_a_grid_that_has_just_begun_has_a_report_too(tmp_path):
    write_run(tmp_path, "simple", 0.001, None)
    folder = make_report(tmp_path)
    assert pd.read_csv(folder / "table1.csv")["dice"].isna().all()
    assert pd.read_csv(folder / "statistics.csv").empty
    assert "| liver | – (96.5) | – (73.4) |" in (folder / "table1.md").read_text()


def test_seeds_are_averaged_case_by_case(tmp_path):
    means = MEANS["square", 0.001]
    for seed, offset in ((0, -5), (1, 1), (2, 4)):
        write_run(tmp_path, "uniform", 0.001, cases_around([m + offset for m in means]), seed)
    write_run(tmp_path, "uniform", 0.001, None, seed=3)
    folder = make_report(tmp_path)
    table = pd.read_csv(folder / "table1.csv").set_index(["loss", "lr", "row"]).sort_index()
    assert table.loc["uniform", 0.001].loc["liver", ["dice", "cases"]].tolist() == pytest.approx([10, 4])
    assert "Scores are means over seeds: 3 of uniform, 0.001." in (folder / "table1.md").read_text()
    cells = read_grid(tmp_path).cells
    loss = grid_curves(cells).axes[0]
    assert [line.get_alpha() for line in loss.lines] == ([0.35] * 4 + [None]) * 2  # a thin line each, and their mean
    assert loss.get_ylabel().startswith("loss = −mean(w·Dice), Eq. 6")


def test_a_rerun_takes_the_place_of_the_run_before_it(tmp_path):
    write_run(tmp_path, "uniform", 0.001, cases_around([50] * 8))
    again = write_run(tmp_path / "x", "uniform", 0.001, cases_around([60] * 8))
    again.folder.rename(tmp_path / f"{again.folder.name},rerun=2")
    write_run(tmp_path / "x", "uniform", 0.001, None).folder.rename(tmp_path / f"{again.folder.name},rerun=3")
    table = pd.read_csv(make_report(tmp_path) / "table1.csv").set_index(["loss", "lr", "row"]).sort_index()
    assert table.loc["uniform", 0.001].loc["liver", "dice"] == pytest.approx(60)


def broken(file: Path, how: str) -> None:
    """Damage a prediction, or make it one of another grid or with a class that there is not."""
    image = nib.load(file)
    label = np.asarray(image.dataobj)
    if how == "missing":
        file.unlink()
    elif how == "cut short":
        file.write_bytes(file.read_bytes()[:200])
    elif how == "no gzip":
        file.write_bytes(b"\x1f\x8b\x08\x00" + b"x" * 500)
    else:
        changed = label[:-1] if how == "another grid" else np.where(label == 3, 99, label).astype(np.uint8)
        write_nifti(file, changed, image.affine)


@pytest.mark.parametrize("how", ["missing", "cut short", "no gzip", "another grid", "another class"])
def test_a_prediction_that_cannot_be_shown_is_told_and_its_scores_count(tmp_path, how):
    run = write_run(tmp_path, "uniform", 0.001, cases_around([50] * 8))
    write_pictures(run, tmp_path / "store", CASES)
    cell = read_grid(tmp_path).cells[0]
    assert isinstance(picture(cell, "002"), Pictured)
    broken(run.prediction("002"), how)
    told = picture(cell, "002")
    if how == "missing":  # the same of all cases, and told once
        assert told == f"no label map in {run.predictions}"
    else:
        assert told.startswith(f"{run.prediction('002')}: broken (")
    assert isinstance(picture(cell, "001"), Pictured)
    assert [state.state for state in read_grid(tmp_path).cells[0].finished] == ["done"]


def test_the_cases_pictured_are_capped_and_share_one_grid(tmp_path, monkeypatch):
    for loss in ("uniform", "simple"):
        write_pictures(write_run(tmp_path, loss, 0.001, cases_around([50] * 8)), tmp_path / "store", CASES)
    coarse = write_run(tmp_path, "square", 0.001, cases_around([50] * 8))
    write_pictures(coarse, tmp_path / "store", CASES)
    for case in CASES:
        label = np.asarray(nib.load(coarse.prediction(case)).dataobj)
        write_nifti(coarse.prediction(case), label, np.diag([6.0, 6.0, 6.0, 1.0]))
    monkeypatch.setattr("lightning_dice.paper.viewer.MOST_PACKED", 100)
    viewed = read_viewed(read_grid(tmp_path).cells)
    assert list(viewed.cases) == ["003"]  # the typical one
    assert list(viewed.cases["003"]["predictions"]) == list(viewed.typical) == ["uniform, 0.001", "simple, 0.001"]
    assert viewed.remarks == [
        "6 of 9 predictions are not pictured, to keep the page small.",  # of the two worst
        "square, 0.001: no picture of 003 (on another grid than that of uniform, 0.001)",
    ]


def test_what_pictures_are_made_of_may_be_missing_or_broken(tmp_path):
    run = write_run(tmp_path, "uniform", 0.001, cases_around([50] * 8))
    write_pictures(run, tmp_path / "store", CASES)
    cell = read_grid(tmp_path).cells[0]
    assert picture(cell, "009") == f"{run.cases}: no image and label of 009 in it"
    (tmp_path / "store" / "001.label.npy").write_bytes(b"")
    assert "001.label.npy: broken (" in picture(cell, "001")
    run.cases.write_text('{"001": 3}')
    assert picture(cell, "001") == f"{run.cases}: no image and label of 001 in it"
    run.cases.unlink()
    assert picture(cell, "001") == f"{run.cases}: not there"
    del cell.finished[0].config["data"]["preparation"]
    assert picture(cell, "001") == f"{run.config}: no data.preparation.window_hu in it"


def test_the_typical_case_is_one_that_all_cells_scored(tmp_path):
    write_run(tmp_path, "uniform", 0.001, {case: [(number + 1) / 10] * 8 for number, case in enumerate("abcde")})
    write_run(tmp_path, "simple", 0.001, {"a": [0.1] * 8, "b": [0.2] * 8})
    assert typical_case(read_grid(tmp_path).cells) == "b"


def test_the_matrix_of_differences_is_blank_where_there_is_no_comparison(tmp_path):
    for loss, case, dice in (("uniform", "a", 0.9), ("simple", "a", 0.5), ("square", "b", 0.5)):
        write_run(tmp_path, loss, 0.001, {f"{case}{i:02d}": [dice + i / 1000] * 8 for i in range(20)})
    cells = read_grid(tmp_path).cells
    pairs = compare_cells(cells)
    heat = matrix_figure(pairs).data[0]
    assert list(heat.x) == ["uniform, 0.001", "simple, 0.001"]
    write_run(tmp_path, "square", 0.01, {f"{case}{i:02d}": [0.4 + i / 1000] * 8 for i in range(20) for case in "ab"})
    heat = matrix_figure(compare_cells(read_grid(tmp_path).cells)).data[0]
    names = ["uniform, 0.001", "simple, 0.001", "square, 0.001", "square, 0.01"]
    values = pd.DataFrame(heat.z, heat.y, heat.x).loc[names, names].to_numpy()
    assert np.round(values[0], 6).tolist() == pytest.approx([0, 40, math.nan, 50], nan_ok=True)
    assert np.round(values[2], 6).tolist() == pytest.approx([math.nan, math.nan, 0, 10], nan_ok=True)
    texts = pd.DataFrame(heat.text, heat.y, heat.x)
    assert texts.loc["uniform, 0.001", "square, 0.001"] == ""
    assert texts.loc["uniform, 0.001", "square, 0.01"] == "+50.0<br>p &lt; 0.001 °"


def test_many_variants_still_have_figures_and_a_page(tmp_path):
    for number in range(40):
        write_run(tmp_path, "simple", 0.01, None, settings={"loss.smooth": number / 10})
    cells = read_grid(tmp_path).cells
    assert len(cells) == 6 + 40  # loss.smooth=0.0, if named, is a variant too
    tables = grid_table(cells), compare_cells(cells), {}, variance_table(cells), ensemble_table(cells, [])
    page = page_html(cells, *tables, {}, {}, {}, {}, {})
    assert page.count('<th scope="col"><button>simple, 0.01, loss.smooth=') == 40
    assert len(grid_curves(cells).axes) == 3 * len(cells)


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(InputError, match="no run in it"):
        make_report(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        make_report(tmp_path / "nowhere")


def test_a_report_loads_no_torch():
    code = "import sys, lightning_dice.report; sys.exit('torch' in sys.modules or 'pytorch_lightning' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_surfaces_lie_where_the_label_map_has_them():
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (30, 32, 28)), indexing="ij"), axis=-1)
    label = np.where(np.linalg.norm(grid - (14, 18, 12), axis=-1) < 8, PAPER.names.index("liver"), 0)
    (liver,) = surfaces.surfaces_of(label, PAPER, (2.0, 2.0, 3.0))
    assert liver.organ.name == "liver"
    assert liver.vertices.mean(axis=0) == pytest.approx([28, 36, 36], abs=0.5)  # mm
    assert np.ptp(liver.vertices, axis=0) == pytest.approx([31, 31, 46], abs=2.5)
    assert liver.triangles.max() == len(liver.vertices) - 1


@pytest.mark.parametrize("has_gl", [True, False])
def test_renderings_look_from_the_front(has_gl, monkeypatch):
    if has_gl and not surfaces.has_off_screen_gl():
        pytest.skip("no off-screen GL here")
    monkeypatch.setattr(surfaces, "has_off_screen_gl", lambda: has_gl)
    label = np.zeros((40, 20, 40), np.uint8)
    label[2:10, 6:14, 4:36] = PAPER.names.index("spleen")  # on the patient's left
    label[30:38, 6:14, 24:36] = PAPER.names.index("stomach")  # on the right, above
    found = surfaces.surfaces_of(label, PAPER, (3.0, 3.0, 3.0))
    picture = surfaces.render(found, surfaces.bounds_of(found)).astype(int)
    blue, yellow = (
        np.argwhere(mask) for mask in (picture[..., 2] > picture[..., 0] + 60, picture[..., 0] > picture[..., 2] + 60)
    )
    width, height = picture.shape[1], picture.shape[0]
    assert yellow[:, 1].max() < width / 2 < blue[:, 1].min()  # right is on the left
    assert yellow[:, 0].mean() < 0.45 * height  # the head is up
    assert np.ptp(blue[:, 0]) > 0.5 * height
