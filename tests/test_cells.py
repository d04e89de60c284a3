"""Which runs make a cell: by configuration and folder, agreeing with each other, and none under another's name."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from omegaconf import OmegaConf

from lightning_dice.config import config_folder, plain
from lightning_dice.naming import run_folder
from lightning_dice.paper.folder_names import FolderName
from lightning_dice.paper.grid import read_grid
from lightning_dice.paper.published import TABLE1
from lightning_dice.paper.remarks import remarks_on
from lightning_dice.paper.statistics import compare_cells, ranking
from lightning_dice.paper.table1 import grid_table, latex_table, markdown_table
from tests.grids import PAPER, write_pictures, write_run
from tests.test_config import composed
from tests.test_report import CASES, cases_around, make_report

FIFTY = cases_around([50] * 8)
KINDS = (("simple", ""), ("simple", ", loss.smooth=0.5"), ("my.module.MyLoss", ", loss.gamma=2"))


def cells_of(sweep):
    """By name, only those that have runs or had some."""
    return {cell.name: cell for cell in read_grid(sweep).cells if cell.runs or cell.left_out}


def remarks_of(sweep) -> str:
    grid = read_grid(sweep)
    return "\n".join(remarks_on(grid, compare_cells(grid.cells)))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("loss=simple,lr=0.01,seed=0", FolderName("simple", 0.01, 0, (), 1)),
        ("loss=simple,lr=0.01,seed=12,rerun=3", FolderName("simple", 0.01, 12, (), 3)),
        ("loss=my.Loss,lr=1e-05,seed=0,loss.gamma=2", FolderName("my.Loss", 1e-5, 0, ("loss.gamma=2",), 1)),
        (
            "loss=simple,lr=0.01,seed=0,labels.classes=[liver,spleen],optim.betas=[0.5,0.9],rerun=2",
            FolderName("simple", 0.01, 0, ("labels.classes=[liver,spleen]", "optim.betas=[0.5,0.9]"), 2),
        ),
        ("loss=simple,lr=0.01,seed=0 (copy)", None),
        ("loss=simple,lr=fast,seed=0", None),
        ("loss=simple,lr=nan,seed=0", None),
        ("loss=simple,lr=0.01", None),
        ("loss=simple,lr=0.01,seed=0,", None),
    ],
)
def test_a_folders_name_is_taken_apart(folder, name):
    assert FolderName.of(folder) == name


def test_variants_are_cells_of_their_own_beside_the_papers(tmp_path):
    for number, settings in enumerate([{}, {"loss.smooth": 0.5}, {"optim.eps": 1e-12}]):
        for seed in (0, 1):
            write_run(tmp_path, "simple", 0.01, cases_around([50 + 10 * number] * 8), seed, settings)
    write_run(tmp_path, "my.module.MyLoss", 0.01, cases_around([40] * 8), settings={"loss.gamma": 2})
    cells = read_grid(tmp_path).cells
    assert [cell.name for cell in cells[6:]] == [
        "simple, 0.01, loss.smooth=0.5", "simple, 0.01, optim.eps=1e-12", "my.module.MyLoss, 0.01, loss.gamma=2",
    ]  # fmt: skip
    assert [len(cell.finished) for cell in cells] == [0, 0, 0, 0, 2, 0, 2, 2, 1]
    table = grid_table(cells).set_index(["cell", "row"])
    for name, dice in (
        ("simple, 0.01", 50),
        ("simple, 0.01, loss.smooth=0.5", 60),
        ("simple, 0.01, optim.eps=1e-12", 70),
    ):
        assert table.loc[(name, "liver"), "dice"] == pytest.approx(dice)
    printed = table.reset_index().groupby("cell")["printed"].count()
    assert set(printed[printed > 0].index) == {f"{loss}, {lr:g}" for loss, lr in TABLE1}
    assert set(compare_cells(cells)["cell_a"]) | set(compare_cells(cells)["cell_b"]) == {
        cell.name for cell in cells if cell.runs
    }


def test_variants_stand_side_by_side_in_table_figures_and_page(tmp_path):
    for loss, rest in KINDS:
        settings = dict([rest.removeprefix(", ").split("=")]) if rest else {}
        for lr in (0.001, 0.01):
            run = write_run(tmp_path, loss, lr, FIFTY, settings=settings)
            write_pictures(run, tmp_path / "store", CASES)
    folder = make_report(tmp_path)
    heads = (folder / "table1.md").read_text().splitlines()[4].strip("| ").split(" | ")
    names = [f"{cell}, {lr}{rest}" for cell, rest in KINDS for lr in (0.001, 0.01)]
    assert set(names) < set(heads)
    page, svg = (folder / "index.html").read_text(), (folder / "figure1.svg").read_text()
    for name in names:
        assert f'<th scope="col"><button>{name}</button></th>' in page
        assert f'data-cell="{name}"' in page  # among the worst cases, with a picture
    for setting in ("loss.smooth=0.5", "loss.gamma=2"):
        assert svg.count(setting) == 2
    assert sorted(path.name for path in folder.glob("figure[2-9].png")) == ["figure3.png"]
    assert imread(folder / "figure3.png").shape[1] == 200 * 4.2 * 5  # truth and four cells


def test_shipped_losses_have_columns_and_statistics_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    losses = {"simple": 50, "generalized_dice": 60, "dice_ce": 70}
    for loss, dice in losses.items():
        scores = {f"c{i}": [(dice + i + shift) / 100 for shift in rng.normal(0, 0.5, 8)] for i in range(8)}
        write_run(tmp_path, loss, 0.01, scores)
    write_run(tmp_path, "dice_ce", 0.01, scores, settings={"loss.weighting": "simple"})
    grid = read_grid(tmp_path)
    assert grid.remarks == ()
    assert [cell.name for cell in grid.cells if cell.runs] == [
        "simple, 0.01", "dice_ce, 0.01", "dice_ce, 0.01, loss.weighting=simple", "generalized_dice, 0.01",
    ]  # fmt: skip
    assert [bool(cell.printed) for cell in grid.cells if cell.runs] == [True, False, False, False]
    means = grid_table(grid.cells).set_index(["cell", "row"])["dice"]
    found = [means[f"{loss}, 0.01", "AVG"] for loss in losses]
    assert found == pytest.approx([dice + 3.5 for dice in losses.values()], abs=0.5)
    tests = compare_cells(grid.cells).set_index(["cell_a", "cell_b"])
    pairs = {frozenset(pair) for pair in tests.index}
    assert frozenset({"dice_ce, 0.01", "generalized_dice, 0.01"}) in pairs
    assert frozenset({"simple, 0.01", "dice_ce, 0.01"}) in pairs


def test_another_loss_in_a_weightings_folder_is_filed_as_what_it_is(tmp_path):
    """As runs were named once: by a weighting that the other loss does not even take."""
    write_run(tmp_path, "uniform", 0.001, FIFTY)
    write_run(tmp_path, "my.module.MyLoss", 0.001, FIFTY, seed=1, folder="loss=uniform,lr=0.001,seed=1")
    run = write_run(tmp_path, "uniform", 0.001, FIFTY, seed=2)
    run.config.write_text(run.config.read_text().replace("lightning_dice.loss.DiceLoss", "other.Loss"))
    cells = cells_of(tmp_path)
    assert {name: [run.seed for run in cell.finished] for name, cell in cells.items()} == {
        "uniform, 0.001": [0], "my.module.MyLoss, 0.001": [1], "other.Loss, 0.001": [2],
    }  # fmt: skip
    assert not cells["other.Loss, 0.001"].printed
    assert "loss=uniform,lr=0.001,seed=1: its config.yaml says loss=my.module.MyLoss, and counts as such" in remarks_of(
        tmp_path
    )


def test_a_configuration_that_belies_its_folder_is_believed_and_told(tmp_path):
    write_run(tmp_path, "simple", 0.02, FIFTY, seed=3, folder="loss=simple,lr=0.01,seed=0")
    untold = write_run(tmp_path, "simple", 0.01, FIFTY, seed=1, settings={"loss.smooth": 0.5})
    untold.folder.rename(tmp_path / "loss=simple,lr=0.01,seed=1")
    other = write_run(tmp_path, "simple", 0.01, FIFTY, seed=2, settings={"optim.eps": 1e-12})
    other.folder.rename(tmp_path / "loss=simple,lr=0.01,seed=2,optim.eps=1e-08,labels.classes=all")
    assert set(cells_of(tmp_path)) == {
        "simple, 0.02", "simple, 0.01, loss.smooth=0.5", "simple, 0.01, optim.eps=1e-12, labels.classes=absent",
    }  # fmt: skip
    said = remarks_of(tmp_path)
    assert "loss=simple,lr=0.01,seed=0: its config.yaml says lr=0.02, seed=3, and counts as such" in said
    assert "loss=simple,lr=0.01,seed=1: its config.yaml says loss.smooth=0.5, and counts as such" in said
    assert "labels.classes=all: its config.yaml says optim.eps=1e-12, labels.classes=absent, and counts as such" in said


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"_target_": "my.Net"}, "my.Net"),
        ({"_target_": "lightning_dice.network.UNet3D", "base_channels": 8, "levels": 4}, "unet3d_narrow"),
        (None, "absent"),
        ({"width": 3}, "null"),
    ],
)
def test_a_network_that_belies_its_folder_is_believed_and_told(tmp_path, network, said):
    write_run(tmp_path, "simple", 0.01, FIFTY)
    run = write_run(tmp_path, "simple", 0.01, FIFTY, folder="loss=simple,lr=0.01,seed=0,network=segresnet")
    if network:
        OmegaConf.save(OmegaConf.merge(OmegaConf.load(run.config), {"network": network}), run.config)
    assert f"simple, 0.01, network={said}" in cells_of(tmp_path)
    assert f"network=segresnet: its config.yaml says network={said}, and counts as such" in remarks_of(tmp_path)


def test_a_name_may_leave_out_what_file_systems_mind(tmp_path):
    told = ["compile=true", "betas=[-0.5,0.9]", "where=a_b_c", "nothing=null", "settings=1234abcd"]
    write_run(tmp_path, "simple", 0.001, FIFTY)
    run = write_run(tmp_path, "simple", 0.01, FIFTY, folder=",".join(["loss=simple,lr=0.01,seed=0", *told]))
    text = run.config.read_text() + "compile: true\nbetas: [-0.5, 0.9]\nwhere: a/b c\nnothing: null\n"
    run.config.write_text(text)
    grid = read_grid(tmp_path)
    assert grid.remarks == ()
    assert grid.cells[6].variant == ", ".join(told)
    run.config.write_text(text.replace("-0.5", "0.5"))
    assert "its config.yaml says betas=[0.5,0.9], and" in read_grid(tmp_path).remarks[0]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "simple, 0.01"),
        (["loss.smooth=0.5", "seed=3"], "simple, 0.01, loss.smooth=0.5"),
        (["optim.eps=1e-12", "labels.classes=[liver,vein]"],
         "simple, 0.01, labels.classes=[liver,vein], optim.eps=1e-12"),
        (["+optim.betas=[0.5,0.9]", "compile=true", "loss.normalize=mean"],
         "simple, 0.01, compile=true, loss.normalize=mean, optim.betas=[0.5,0.9]"),
        (["data.preparation.factor=null", "data.preparation.spacing_mm=2.5", "optim.lr=0.0100000001"],
         "simple, 0.0100000001, data.preparation.factor=null, data.preparation.spacing_mm=2.5"),
        (["loss=dice_ce", "loss.weighting=simple"], "dice_ce, 0.01, loss.weighting=simple"),
        (["loss=sum", "loss@loss.second=focal"], "simple+focal, 0.01"),
        (["network=segresnet", "network.init_filters=16"], "simple, 0.01, network=segresnet, network.init_filters=16"),
        (["~network", "+network._target_=my.Net"], "simple, 0.01, network=my.Net"),
        (["transform=flip"], "simple, 0.01, transform=flip"),
        (["labels=phantom_all"], "simple, 0.01, labels=phantom_all"),
        (["prior=half"], "simple, 0.01, prior=half"),
        (["experiment=demo", "prior=false"], "simple, 0.01, prior=false"),  # which begins with half
        (["init_from='runs/a/b/loss=simple,lr=0.01/last.ckpt'"],
         "simple, 0.01, init_from=runs_a_b_loss_simple_lr_0.01_last.ckpt"),
        (["transform=strong", "~data.transform.transforms.blur", "data.transform.transforms.affine.scales=[0.8,1.1]"],
         "simple, 0.01, data.transform.transforms.affine.scales=[0.8,1.1], data.transform.transforms.blur=absent, "
         "transform=strong"),
        ([f"data.exclude=[{','.join(f'case_{i}' for i in range(40))}]", "loss.smooth=0.5"], "simple, 0.01, settings="),
    ],
)  # fmt: skip
def test_the_names_that_training_gives_are_understood(tmp_path, overrides, name):
    """Without a remark: configuration and name say the same."""
    config = plain(composed("train", "loss=simple", "optim.lr=0.01", *overrides))
    run = write_run(tmp_path, "simple", 0.01, FIFTY, folder=run_folder(config).name)
    OmegaConf.save(OmegaConf.create(config), run.config)
    write_run(tmp_path, "uniform", 0.01, FIFTY)
    grid = read_grid(tmp_path)
    (cell,) = (cell for cell in grid.cells if cell.runs and cell.loss != "uniform")
    assert cell.name.startswith(name)
    assert grid.remarks == ()
    assert bool(cell.printed) == (not overrides)


def test_what_all_runs_have_in_common_makes_no_cell_another(tmp_path):
    """A grid on somebody's own data is the paper's six cells, but not with another loss than the paper's."""
    scale, smooth = {"data.patch_size": 96, "trainer.max_steps": 20000}, {"loss.smooth": 0.5}
    for loss in ("uniform", "simple"):
        write_run(tmp_path / "own", loss, 0.01, FIFTY, settings=scale)
        write_run(tmp_path / "other", loss, 0.01, FIFTY, settings=scale | smooth)
    cells = cells_of(tmp_path / "own")
    assert set(cells) == {"uniform, 0.01", "simple, 0.01"}
    assert all(cell.printed for cell in cells.values())
    assert "All runs have data.patch_size=96, trainer.max_steps=20000." in remarks_of(tmp_path / "own")
    assert set(cells_of(tmp_path / "other")) == {"uniform, 0.01, loss.smooth=0.5", "simple, 0.01, loss.smooth=0.5"}


@pytest.mark.parametrize("swap", ["optim=sgd", "schedule=poly"])
def test_another_optimiser_or_schedule_of_all_runs_makes_no_cell_the_papers(tmp_path, swap):
    for loss in ("uniform", "simple"):
        config = plain(composed("train", f"loss={loss}", "optim.lr=0.01", swap))
        run = write_run(tmp_path, loss, 0.01, FIFTY, folder=run_folder(config).name)
        OmegaConf.save(OmegaConf.create(config), run.config)
    cells = cells_of(tmp_path)
    assert set(cells) == {f"uniform, 0.01, {swap}", f"simple, 0.01, {swap}"}
    assert not any(cell.printed for cell in cells.values())


def test_rates_that_look_alike_are_two_cells(tmp_path):
    write_run(tmp_path, "simple", 0.01, FIFTY)
    write_run(tmp_path, "simple", 0.0100000001, FIFTY, folder="loss=simple,lr=0.0100000001,seed=0")
    cells = cells_of(tmp_path)
    assert list(cells) == ["simple, 0.01", "simple, 0.0100000001"]
    assert not cells["simple, 0.0100000001"].printed


def test_seeds_must_agree_in_settings_and_data_or_are_left_out(tmp_path):
    for seed, dice in enumerate([50, 60, 90, 90]):
        write_run(tmp_path, "simple", 0.01, cases_around([dice] * 8), seed, data="other" if seed == 3 else "same")
    run = write_run(tmp_path, "simple", 0.01, cases_around([90] * 8), seed=4)
    run.config.write_text(run.config.read_text().replace("max_steps: 40", "max_steps: 20"))
    grid = read_grid(tmp_path)
    cell = grid.cells[4]
    assert [run.seed for run in cell.finished] == [0, 1, 2]
    reasons = (
        "seed 3: done, left out, unlike seed 0 (other data)",
        "seed 4: done, left out, unlike seed 0 (trainer.max_steps: 20 instead of 40)",
    )
    assert cell.left_out == reasons
    assert "simple, 0.01: seed 0: done; seed 1: done; seed 2: done; " + "; ".join(reasons) in remarks_of(tmp_path)
    assert cell.matrix().to_numpy().mean() == pytest.approx(2 / 3)


def test_a_seed_whose_data_nobody_knows_is_left_out(tmp_path):
    for seed in (0, 1):
        run = write_run(tmp_path, "simple", 0.01, FIFTY, seed)
    run.environment.unlink()
    cell = read_grid(tmp_path).cells[4]
    assert cell.left_out == ("seed 1: done, left out, unlike seed 0 (data unknown, no environment.json)",)


def test_the_majority_of_the_finished_seeds_counts(tmp_path):
    for seed in range(4):
        run = write_run(tmp_path, "simple", 0.01, None if seed == 3 else FIFTY, seed)
        if seed in (0, 3):
            run.config.write_text(run.config.read_text() + "overlap: 0.5\n")
    (cell,) = cells_of(tmp_path).values()
    assert [run.seed for run in cell.runs] == [1, 2]
    assert [text.partition(":")[0] for text in cell.left_out] == ["seed 0", "seed 3"]
    assert "overlap: 0.5 instead of absent" in cell.left_out[0]


def test_the_datas_own_seed_may_follow_the_runs_but_is_a_setting_if_it_does_not(tmp_path):
    for seed, of_data in ((0, 0), (1, 1), (2, 0)):
        run = write_run(tmp_path, "simple", 0.01, FIFTY, seed)
        run.config.write_text(run.config.read_text().replace(f"  seed: {seed}", f"  seed: {of_data}"))
    (cell,) = cells_of(tmp_path).values()
    assert [run.seed for run in cell.finished] == [0, 1, 2]  # seed 2 has the data's seed of seed 0
    run.config.write_text(run.config.read_text().replace("  seed: 0", "  seed: 7"))
    (cell,) = cells_of(tmp_path).values()
    assert cell.left_out == ("seed 2: done, left out, unlike seed 0 (data.seed: 7 instead of 0)",)


def test_a_run_that_gives_way_to_its_rerun_is_told(tmp_path):
    first = write_run(tmp_path, "simple", 0.01, FIFTY)
    for number in range(2, 12):
        write_run(tmp_path, "simple", 0.01, FIFTY, folder=f"{first.folder.name},rerun={number}")
    (cell,) = cells_of(tmp_path).values()
    assert [run.run.folder.name for run in cell.runs] == [f"{first.folder.name},rerun=11"]
    assert f"seed 0: {first.folder.name} gives way to {first.folder.name},rerun=11" in cell.left_out
    assert len(cell.left_out) == 10


def test_a_case_that_not_all_seeds_scored_is_left_out_and_told(tmp_path):
    """The bad seed lacks the hard case: averaged over what there is, the cell would look better than it is."""
    hard = {"easy": [0.9] * 8, "hard": [0.5] * 8}
    write_run(tmp_path, "simple", 0.01, hard, seed=0)
    write_run(tmp_path, "simple", 0.01, {"easy": [0.7] * 8}, seed=1)
    (cell,) = cells_of(tmp_path).values()
    assert cell.scores["case"].unique().tolist() == ["easy"]
    assert cell.matrix().to_numpy().tolist() == [pytest.approx([0.8] * 8)]
    said = "simple, 0.01: without hard, which not all of its seeds scored; test cases that remain: 1."
    assert said in remarks_of(tmp_path)


def test_seeds_without_a_case_in_common_have_no_mean_and_a_report(tmp_path, capsys):
    write_run(tmp_path, "simple", 0.01, {"a": [0.9] * 8}, seed=0)
    write_run(tmp_path, "simple", 0.01, {"b": [0.7] * 8}, seed=1)
    folder = make_report(tmp_path)
    assert pd.read_csv(folder / "table1.csv")["dice"].isna().all()
    assert "nan" not in capsys.readouterr().out
    assert (
        "without a, b, which not all of its seeds scored; test cases that remain: 0."
        in (folder / "table1.md").read_text()
    )


def test_a_score_that_only_some_seeds_define_is_told(tmp_path):
    write_run(tmp_path, "simple", 0.01, {"a": [0.9] * 7 + [math.nan], "b": [0.9] * 8}, seed=0)
    write_run(tmp_path, "simple", 0.01, {"a": [0.9] * 7 + [0.0], "b": [0.9] * 8}, seed=1)
    assert (
        "Scores that only some of a cell's seeds define, with means over those seeds: 1 of simple, 0.01."
        in remarks_of(tmp_path)
    )


def test_cells_that_differ_in_more_than_their_names_are_told(tmp_path):
    write_run(tmp_path, "uniform", 0.001, FIFTY)
    write_run(tmp_path, "simple", 0.01, FIFTY, settings={"optim.eps": 1e-12, "loss.smooth": 0.5})
    assert "differs" not in remarks_of(tmp_path)
    run = write_run(tmp_path, "square", 0.01, FIFTY, data="other")
    run.config.write_text(run.config.read_text().replace("max_steps: 40", "max_steps: 20"))
    assert (
        "square, 0.01 differs from uniform, 0.001 in more than its name says: "
        "trainer.max_steps: 20 instead of 40; other data." in remarks_of(tmp_path)
    )


def test_a_transform_that_the_name_says_is_no_other_difference(tmp_path):
    """Its settings stand below data."""
    write_run(tmp_path, "uniform", 0.001, FIFTY)
    run = write_run(tmp_path, "uniform", 0.001, FIFTY, folder="loss=uniform,lr=0.001,seed=0,transform=flip")
    config = OmegaConf.load(run.config)
    config.data.transform = OmegaConf.load(config_folder() / "transform" / "flip.yaml")
    OmegaConf.save(config, run.config)
    assert [*cells_of(tmp_path)][-1] == "uniform, 0.001, transform=flip"
    assert "differs" not in remarks_of(tmp_path)


@pytest.mark.parametrize("seeds", [3, 2])
def test_many_cells_are_told_in_few_words(tmp_path, seeds):
    for seed in range(seeds):
        for number in range(8):
            dice = {f"c{case}": [0.5 + number / 50 + case / 100 + seed / 1000] * 8 for case in range(6)}
            write_run(tmp_path, "uniform", 0.001 * (number + 1), dice, seed)
    write_run(tmp_path, "simple", 0.001, dice)
    grid = read_grid(tmp_path)
    pairs = compare_cells(grid.cells)
    said = "\n".join(remarks_on(grid, pairs))
    few = "uniform, 0.001; uniform, 0.002; uniform, 0.003; uniform, 0.004; uniform, 0.005 and 3 more"
    assert f"Scores are means over seeds: {seeds} of {few}; 1 of simple, 0.001." in said
    assert f"{few}: fewer than 5 seeds. The tests" in said
    assert "is over 28 pairs of cells: with so many even a large difference may not be distinguishable" in said
    last = ranking(grid.cells, pairs)[-1]
    assert last.startswith("uniform, 0.001: mean organ Dice")
    assert re.search(r"distinguishable from uniform, 0\.008; .*; uniform, 0\.004 and 2 more", last)  # the best first


def test_cells_tested_on_different_cases_or_classes_say_so(tmp_path):
    write_run(tmp_path, "uniform", 0.001, {f"c{i}": [0.9] * 8 for i in range(7)})
    lacking = [math.nan if name == "vein" else 0.5 for name in PAPER.names]
    write_run(tmp_path, "simple", 0.001, {f"c{i}": lacking for i in range(2, 7)})
    said = remarks_of(tmp_path)
    assert "tested on different cases (7 of uniform, 0.001; 5 of simple, 0.001)" in said
    assert "5 test cases: no signed-rank test of so many can give a p below 0.0625" in said
    assert "Intervals over fewer than 6 cases are too narrow: simple, 0.001." in said
    assert "simple, 0.001: AVG, MAX and MIN are over 7 of 8 classes, without vein, and do not compare" in said
    table = grid_table(read_grid(tmp_path).cells).set_index(["cell", "row"])
    of_fewer = table.loc["simple, 0.001"]
    assert of_fewer["printed"].notna().sum() == 11
    assert np.isnan(of_fewer.loc[["AVG", "MAX", "MIN", "vein"], "difference"].astype(float)).all()
    assert of_fewer.loc["liver", "difference"] == pytest.approx(50 - 73.4)
    assert "50.0 (74.2)" in markdown_table(table.reset_index(), [])


def test_latex_names_the_papers_cells_as_the_paper_and_others_as_text(tmp_path):
    write_run(tmp_path, "simple", 0.01, FIFTY, settings={"loss.smooth": 0.5})
    head = next(line for line in latex_table(grid_table(read_grid(tmp_path).cells)).splitlines() if "W_u" in line)
    assert [text.strip(" \\") for text in head.split("&")[5:]] == [
        r"$W_s, \mu_2 = 0.01$",
        r"$W_q, \mu_2 = 0.01$",
        "simple, 0.01, loss.smooth=0.5",
    ]


def test_a_class_of_few_patients_is_told(tmp_path):
    rare = {f"c{i}": [0.9] * 7 + [0.5 if i < 2 else math.nan] for i in range(7)}
    write_run(tmp_path, "uniform", 0.001, rare)
    write_run(tmp_path, "simple", 0.001, rare)
    assert f"all cells: fewer than 3 test cases have {PAPER.names[-1]}, too few" in remarks_of(tmp_path)
    write_run(tmp_path / "all", "uniform", 0.001, {f"c{i}": [0.9] * 8 for i in range(2)})
    assert "fewer than 3" not in remarks_of(tmp_path / "all")
