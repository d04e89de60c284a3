"""Several runs' networks as one: averaged, or each organ from the run that validates best on it."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_dice.cli import _quoted
from lightning_dice.config import config_folder
from lightning_dice.data.labels import label_set
from lightning_dice.data.volumes import Preparation, prepare_image
from lightning_dice.ensemble import Ensemble
from lightning_dice.errors import InputError
from lightning_dice.evaluate import evaluate
from lightning_dice.inference import plan_slabs, sliding_window, sliding_window_slabs
from lightning_dice.members import _common, load_members
from lightning_dice.network import UNet3D
from lightning_dice.predict import predict
from lightning_dice.recipe import Recipe, load_network
from lightning_dice.runs import Run
from lightning_dice.train import train
from tests.conftest import NAMES, tiny_case, write_nifti
from tests.grids import write_ensemble, write_run
from tests.test_report import make_report
from tests.test_train import composed, config_of

PATCH = (16, 16, 16)
FEW = ("trainer.max_steps=2", "trainer.val_check_interval=1")


@pytest.fixture(scope="module")
def folds(nnunet_root, tmp_path_factory):
    """Three runs, a fold each; only read them."""
    folder = tmp_path_factory.mktemp("folds")
    cut = ("data.validation=0.1", "data.folds=3", *FEW)
    return [train(config_of(folder, nnunet_root, f"data.fold={fold}", *cut)) for fold in range(3)]


@pytest.fixture(scope="module")
def cells(nnunet_root, tmp_path_factory):
    """Two weightings on the same split; only read them."""
    folder = tmp_path_factory.mktemp("cells")
    return [train(config_of(folder, nnunet_root, f"loss={loss}", *FEW)) for loss in ("uniform", "simple")]


def evaluated(folder, runs, *overrides):
    listed = ",".join(f"'{run.folder}'" for run in runs)
    return evaluate(composed("evaluate", folder, f"run=[{listed}]", "trainer.precision=32-true", *overrides))


def softmax(logits):
    """In float64, by numpy."""
    powers = np.exp(logits.double().numpy() - logits.double().numpy().max(axis=0))
    return powers / powers.sum(axis=0)


def random_logits(networks, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(classes, 4, 3, 2, generator=generator) for _ in range(networks)]


def combined(logits, deciding=None):
    networks = [torch.nn.Identity() for _ in logits]
    return Ensemble(networks, deciding).combine(one.clone() for one in logits)


@pytest.mark.parametrize("networks", [2, 5])
def test_the_mean_is_that_of_the_probabilities(networks):
    logits = random_logits(networks, 6, seed=networks)
    expected = np.mean([softmax(one) for one in logits], axis=0)
    assert np.allclose(combined(logits).exp().numpy(), expected, atol=1e-6)
    certain = [torch.full((2, 1, 1, 1), -1e4), torch.full((2, 1, 1, 1), -1e4)]
    certain[0][0], certain[1][0] = 1e4, 1e4
    assert combined(certain).softmax(dim=0).flatten().tolist() == [1, 0]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 4), st.integers(2, 6), st.integers(0, 999))
def test_organs_come_from_the_network_that_decides_on_them(networks, classes, seed):
    """Voxel by voxel, as the rule says it."""
    logits = random_logits(networks, classes, seed)
    deciding = np.random.default_rng(seed).integers(0, networks, classes - 1).tolist()
    p = [softmax(one) for one in logits]
    found = combined(logits, deciding).exp().numpy()
    assert np.allclose(found.sum(axis=0), 1, atol=1e-5)
    for voxel in np.ndindex(found.shape[1:]):
        at = [one[(slice(None), *voxel)] for one in p]
        standing = {c: at[d][c] for c, d in enumerate(deciding, start=1) if at[d].argmax() == c}
        expected = max(standing, key=standing.get) if standing else 0
        here = found[(slice(None), *voxel)]
        assert here.argmax() == expected
        if standing:
            others = np.delete(at[deciding[expected - 1]], expected)
            odds = standing[expected] / (standing[expected] + others.max())
            assert here[expected] == pytest.approx(odds, abs=1e-5)
            assert here[0] == pytest.approx(1 - odds, abs=1e-5)


@pytest.mark.parametrize("deciding", [None, [0, 1, 1, 0, 1, 0, 1]])
def test_slabs_of_an_ensemble_are_the_whole(deciding):
    torch.manual_seed(0)
    networks = [UNet3D(base_channels=2, levels=3).eval() for _ in range(2)]
    image, ensemble = torch.randn(1, 18, 16, 53), Ensemble(networks, deciding)
    whole = sliding_window(ensemble, image, PATCH, 0.5, batch_size=1)
    each = [sliding_window(network, image, PATCH, 0.5, batch_size=1) for network in networks]
    assert torch.equal(whole, ensemble.combine(each))
    slabs = list(sliding_window_slabs(ensemble, image, PATCH, 0.5, batch_size=1, rows=1))
    assert len(slabs) > 1
    assert torch.equal(torch.cat(slabs, dim=-1), whole)
    assert torch.equal(sliding_window(Ensemble(networks[:1]), image, PATCH), sliding_window(networks[0], image, PATCH))


def test_evaluate_scores_the_average_of_several_folds(folds, nnunet_root, tmp_path):
    run = evaluated(tmp_path, folds)
    assert run.folder.parent == folds[0].folder.parent / "evaluate"
    assert run.folder.name.startswith("nnunet,last,combine=mean,runs=")
    assert json.loads(run.ensemble.read_text())["runs"] == [str(fold.folder) for fold in folds]
    scores = pd.read_csv(run.scores)
    assert scores["case"].unique().tolist() == pd.read_csv(folds[0].scores)["case"].unique().tolist()
    for case in scores["case"].unique():
        scan = nib.load(nnunet_root / "imagesTr" / f"{case}_0000.nii.gz")
        image, _ = prepare_image(np.asarray(scan.dataobj), scan.affine, Preparation(factor=None, spacing_mm=3.0))
        tensor = torch.from_numpy(image).float()[None]
        p = np.mean([softmax(sliding_window(load_network(f.last)[0], tensor, PATCH)) for f in folds], axis=0)
        written = np.asarray(nib.load(run.prediction(case)).dataobj)
        first, second = np.sort(p, axis=0)[[-1, -2]]
        assert (written == p.argmax(axis=0))[first - second > 1e-5].all()


def predicted(runs, scan, output, *overrides):
    listed = ",".join(f"'{run.folder}'" for run in runs)
    asked = [f"run=[{listed}]", f"input={scan}", f"output={output}", "precision=32-true", "accelerator=cpu"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        predict(compose("predict", [*asked, *overrides]))
    return np.asarray(nib.as_closest_canonical(nib.load(output / scan.name)).dataobj)


def test_predict_gives_what_evaluate_scores(folds, nnunet_root, tmp_path):
    """The data are at the networks' voxel size, so both grids are one."""
    run = evaluated(tmp_path, folds)
    for case in pd.read_csv(run.scores)["case"].unique():
        label = predicted(folds, nnunet_root / "imagesTr" / f"{case}_0000.nii.gz", tmp_path / "out", "overlap=0")
        assert np.sum(label != np.asarray(nib.load(run.prediction(case)).dataobj)) <= 4  # ties, by rounding


@pytest.mark.parametrize("combine", ["mean", "organs"])
def test_an_ensemble_keeps_to_the_memory_by_slabs(cells, tmp_path, combine):
    hu = np.random.default_rng(0).normal(0, 200, (20, 18, 90)).astype(np.int16)
    write_nifti(tmp_path / "long.nii.gz", hu)
    further = load_members(cells, "last", "mean").networks.further_weights
    assert further == sum(weight.nbytes for weight in load_network(cells[1].last)[0].parameters())
    asked = hu.shape, 2, (1, 1, 1), len(NAMES), PATCH, 0.5
    rows, peak = plan_slabs(*asked, 8.0, further_weights=further)
    assert plan_slabs(*asked, 8.0)[1] == pytest.approx(peak - further / 1e9, abs=1e-9)
    low = round(peak - 1e-3, 6)
    assert plan_slabs(*asked, low)[0] < rows
    limits = [f"memory_limit_gb={limit}" for limit in (8.0, low)]
    out = tmp_path / "out"
    maps = [predicted(cells, tmp_path / "long.nii.gz", out, limit, f"combine={combine}") for limit in limits]
    assert np.array_equal(*maps)


def test_each_organ_comes_from_the_run_that_validates_best_on_it(cells, tmp_path, capsys):
    tables = [pd.read_csv(run.metrics)[[f"val/dice/{name}" for name in NAMES[1:]]].dropna().iloc[-1] for run in cells]
    expected = {name: int(b > a) for name, a, b in zip(NAMES[1:], *tables, strict=True)}
    members = load_members(cells, "last", "organs")
    assert {organ: cells.index(run) for organ, run in members.deciding.items()} == expected
    assert "combine=organs: " in capsys.readouterr().out
    run = evaluated(tmp_path, cells, "combine=organs")
    described = json.loads(run.ensemble.read_text())
    assert described["organs"] == {organ: str(cells[place].folder) for organ, place in expected.items()}
    assert len(pd.read_csv(run.scores)) == 2 * len(NAMES)


def copied(run, folder, **curves):
    """A run of its own, with other validation Dice at its end."""
    subprocess.run(["cp", "-r", run.folder, folder], check=True)
    table = pd.read_csv(run.metrics)
    for name, dice in curves.items():
        table.loc[table["val/loss"].notna(), f"val/dice/{name}"] = dice
    table.to_csv(Run(folder).metrics, index=False)
    return Run(folder)


def test_organs_follow_the_curves_up_to_the_checkpoint(cells, tmp_path):
    best = {"liver": 0.9, "vein": float("nan")}
    runs = [copied(cells[0], tmp_path / "a", spleen=0.9, vein=float("nan")), copied(cells[1], tmp_path / "b", **best)]
    chosen = load_members(runs, "last", "organs")
    assert chosen.deciding["spleen"] == runs[0]
    assert chosen.deciding["liver"] == runs[1]
    overall = [pd.read_csv(run.metrics).filter(regex="val/dice/(?!background)").iloc[-1].mean() for run in runs]
    assert chosen.deciding["vein"] == runs[int(overall[1] > overall[0])]  # which none could validate on
    only = load_members([copied(runs[0], tmp_path / "c", **dict.fromkeys(NAMES[1:], 1.0)), runs[1]], "last", "organs")
    assert len(only.networks.networks) == 1  # that decides on nothing is left out
    later = pd.read_csv(runs[1].metrics)
    later.loc[len(later)] = later.iloc[-1].where(~later.columns.str.startswith("val/dice"), 1.0)
    later.loc[len(later) - 1, "step"] = 9
    later.to_csv(runs[1].metrics, index=False)  # a validation after the checkpoint
    assert load_members(runs, "last", "organs").deciding == chosen.deciding


def edited(run, folder, **data):
    """A run whose configuration says something else about its data."""
    subprocess.run(["cp", "-r", run.folder, folder], check=True)
    config = yaml.safe_load(run.config.read_text())
    config["data"] |= data
    Run(folder).config.write_text(yaml.safe_dump(config))
    return Run(folder)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"test": 0.5}, "data.test: 0.25 there, 0.5 here"), ({"split_seed": 1}, "data.split_seed: 0 there, 1 here")],
)
def test_no_network_is_scored_on_cases_that_it_was_trained_on(cells, tmp_path, setting, message):
    with pytest.raises(InputError, match=rf"may have other test cases .*{message}"):
        evaluated(tmp_path, [cells[0], edited(cells[1], tmp_path / "other", **setting)])


def test_runs_that_do_not_go_together_are_refused(cells, folds, nnunet_root, tmp_path):
    with pytest.raises(InputError, match=r"may have other validation cases .*data.fold: 0 there, 1 here"):
        evaluated(tmp_path, folds, "combine=organs")
    with pytest.raises(InputError, match=r"combine=organs: chooses among runs"):
        evaluated(tmp_path, cells[:1], "combine=organs")
    with pytest.raises(InputError, match=r"names .* twice"):
        evaluated(tmp_path, [cells[0], cells[0]])
    (tmp_path / "link").symlink_to(cells[0].folder)
    with pytest.raises(InputError, match=r"names .* twice"):
        evaluated(tmp_path, [cells[0], Run(tmp_path / "link")])
    with pytest.raises(InputError, match=r"combine=best: expected mean or organs"):
        evaluated(tmp_path, cells, "combine=best")
    none = train(config_of(tmp_path, nnunet_root, "data.validation=0", *FEW))
    with pytest.raises(InputError, match=r"may have other validation cases"):
        evaluated(tmp_path, [cells[0], none], "combine=organs")
    other = train(config_of(tmp_path, nnunet_root, "data.validation=0", "seed=1", *FEW))
    with pytest.raises(InputError, match=r"has no validation up to its last checkpoint"):
        evaluated(tmp_path, [none, other], "combine=organs")
    for setting, told in (
        ("labels.classes=[liver,spleen]", "has classes background, liver, spleen, and"),
        ("data.patch_size=8", r"has data.patch_size \(8, 8, 8\), and"),
        ("data.preparation.window_hu=[-100,300]", "has data.preparation "),
    ):
        unlike = train(config_of(tmp_path, nnunet_root, setting, *FEW))
        with pytest.raises(InputError, match=rf"run={unlike.folder.parent}.*: {told}".replace(r"\,", ",")):
            evaluated(tmp_path, [cells[0], unlike])


def test_classes_are_compared_beyond_those_that_a_line_has_room_for():
    """Of two data sets, or orders, that part after the tenth."""
    names = [f"organ_{number}" for number in range(1, 13)]
    sets = [label_set("many", {name: {} for name in own}) for own in (names, [*names[:10], *names[:9:-1]])]
    recipes = [Recipe(labels, Preparation(), (1.0, 1.0, 1.0), PATCH, {}) for labels in sets]
    with pytest.raises(InputError, match=r"^run=B: has classes organ_10, organ_12, .* A organ_10, organ_11, organ_12;"):
        _common([Run(Path("A")), Run(Path("B"))], recipes)


def test_voxel_sizes_may_differ_a_little(cells, tmp_path, capsys):
    def resized(name, size):
        run = Run(tmp_path / name)
        subprocess.run(["cp", "-r", cells[0].folder, run.folder], check=True)
        checkpoint = torch.load(run.last, weights_only=True)
        checkpoint["lightning_dice"]["recipe"]["spacing_mm"] = size
        torch.save(checkpoint, run.last)
        return run

    near, far = resized("near", (3.0, 3.0, 3.3)), resized("far", (3.0, 3.0, 4.0))
    assert load_members([cells[0], near], "last", "mean").recipe.spacing_mm == pytest.approx((3, 3, 3.15))
    assert "voxel sizes differ (3 × 3 × 3, 3 × 3 × 3.3 mm); all networks get 3 × 3 × 3.15 mm" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"voxel sizes of 3 × 3 × 3 and 3 × 3 × 4 mm; expected at most 25%"):
        load_members([cells[0], far], "last", "mean")


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        ("run=A", "run='A'"),
        ("run=[A,B]", "run=['A','B']"),
        ("run=[r/loss=a,lr=1,seed=0,r/loss=b,lr=1]", "run=['r/loss=a,lr=1,seed=0','r/loss=b,lr=1']"),
        ("run=[loss=a,lr=1,loss=b,lr=1]", "run=['loss=a,lr=1','loss=b,lr=1']"),
        ("run=[loss=a,lr=1,x=2,loss=b,lr=1]", "run=['loss=a,lr=1,x=2','loss=b,lr=1']"),
        ("run=[r/c=[a,b], B]", "run=['r/c=[a,b]','B']"),
        ("run=['A','B']", "run=['A','B']"),
    ],
)
def test_runs_are_typed_with_the_commas_of_their_names(typed, understood, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("loss=a,lr=1", "loss=a,lr=1,x=2", "loss=b,lr=1", "r/c=[a,b]"):
        (tmp_path / folder).mkdir(parents=True)
    assert _quoted(typed, ["run"]) == understood


def test_it_works_as_typed(cells, tmp_path):
    write_nifti(tmp_path / "scan.nii.gz", tiny_case(3)[0])
    runs = f"run=[{cells[0].folder},{cells[1].folder}]"
    asked = [runs, f"input={tmp_path / 'scan.nii.gz'}", f"output={tmp_path / 'out'}", "combine=organs", "mirror=true"]
    done = subprocess.run(
        [sys.executable, "-m", "lightning_dice.predict", *asked], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "scan.nii.gz").is_file()
    assert "Traceback" not in done.stderr


def test_a_report_shows_ensembles_beside_the_single_cells(tmp_path, capsys):
    cases = [f"c{number}" for number in range(8)]
    rng = np.random.default_rng(0)
    low, high = ({case: (base + 0.05 * rng.random(8)).tolist() for case in cases} for base in (0.5, 0.7))
    write_run(tmp_path, "uniform", 0.001, low)
    write_run(tmp_path, "simple", 0.01, high)
    better = {case: [value + 0.1 for value in values] for case, values in high.items()}
    organs = dict.fromkeys(NAMES[1:4], "r/loss=a") | dict.fromkeys(NAMES[4:], "r/loss=<b>")
    write_ensemble(tmp_path, "phantom,last,combine=organs,runs=1", better, combine="organs", organs=organs,
                   runs=["r/loss=a", "r/loss=<b>"])  # fmt: skip
    write_ensemble(tmp_path, "phantom,best,combine=mean,runs=2", {c: low[c] for c in cases[1:]}, checkpoint="best")
    write_ensemble(tmp_path, "other,last,combine=mean,runs=3", low, data="another")
    damaged = write_ensemble(tmp_path, "phantom,last,combine=mean,runs=4", low)
    damaged.scores.write_text("case,label\n")
    folder = make_report(tmp_path)
    told = capsys.readouterr().out
    assert (
        "evaluate/phantom,last,combine=mean,runs=4: left out (phantom,last,combine=mean,runs=4/scores.csv: not" in told
    )
    table = pd.read_csv(folder / "ensembles.csv", index_col="name")
    best, mean = "best run per organ of 2 runs (1)", "mean probabilities by best checkpoints of 2 runs (2)"
    assert table.index.tolist() == [best, "simple, 0.01", "uniform, 0.001", mean] or table.index.tolist() == [
        best, "simple, 0.01", mean, "uniform, 0.001"
    ]  # fmt: skip
    assert (table["cases"] == 7).all()  # those that all scored
    expected = 100 * np.mean([high[case][1:] for case in cases[1:]])
    assert table.loc["simple, 0.01", "AVG organs"] == pytest.approx(expected)
    row = table.loc[best]
    assert row["difference"] == pytest.approx(10)
    assert row["difference_low"] == pytest.approx(10, abs=1e-6)  # each case gains as much
    assert table.loc[mean, "liver"] == pytest.approx(100 * np.mean([low[case][3] for case in cases[1:]]))
    assert f"{best}: mean organ Dice {row['AVG organs']:.1f} %, +10.0 points to the best cell, simple, 0.01 (" in told
    page = (folder / "index.html").read_text()
    assert "artery, vein, liver of loss=a; spleen, stomach, gallbladder, pancreas of loss=&lt;b&gt;" in page
    assert "id='ensembles'" in page


def test_ensembles_of_the_same_cells_are_one_over_seeds(tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = [f"loss={loss},lr=0.01,seed={{}},prior=half" for loss in ("uniform", "simple")]
    drawn = {}
    for seed in range(3):
        drawn[seed] = {f"c{number}": (0.6 + 0.1 * rng.random(8)).tolist() for number in range(8)}
        write_run(tmp_path, "uniform", 0.01, drawn[seed], seed, {"prior": "half"})
        better = {case: [value + 0.02 + seed / 100 for value in values] for case, values in drawn[seed].items()}
        runs = [name.format(seed) for name in (names if seed else reversed(names))]  # in any order
        write_ensemble(tmp_path, f"phantom,last,combine=mean,runs=d{seed}", better, runs=runs)
    across = [names[0].format(seed) for seed in range(2)]  # which has no seed of its own
    write_ensemble(tmp_path, "phantom,last,combine=mean,runs=e", drawn[0], runs=across)
    folder = make_report(tmp_path)
    table = pd.read_csv(folder / "ensembles.csv", index_col="name")
    row = table.loc["mean probabilities of 2 runs, 3 seeds (d0…)"]
    assert (row["runs"], row["seeds"], row["difference"]) == (6, 3, pytest.approx(3))
    assert row["difference_low"] < 3 < row["difference_high"]
    assert table.loc["mean probabilities of 2 runs (e)", "seeds"] == 1
    said = capsys.readouterr().out
    assert "3 seeds (d0…): mean organ Dice" in said
    assert "over 8 cases and at least 3 seeds)" in said
    assert "over 8 cases of these networks)" in said


@pytest.mark.filterwarnings("error")
def test_an_organ_of_one_patient_has_the_mean_of_that_one(tmp_path):
    """No resampling of patients has a say in it, which would draw some without the organ, and warn of that."""
    dice = {f"c{number}": [0.5] * 7 + [0.25 if number == 2 else math.nan] for number in range(6)}
    write_run(tmp_path, "uniform", 0.001, {case: [value / 2 for value in values] for case, values in dice.items()})
    write_ensemble(tmp_path, "phantom,last,combine=mean,runs=1", dice)
    table = pd.read_csv(make_report(tmp_path) / "ensembles.csv", index_col="name")
    assert table[NAMES[-1]].tolist() == [25, 12.5]
    assert table["AVG organs"].tolist() == pytest.approx([100 * 3.25 / 7, 50 * 3.25 / 7])


def test_ensembles_without_a_case_in_common_are_not_left_out_in_silence(tmp_path, capsys):
    write_run(tmp_path, "uniform", 0.001, {f"c{number}": [0.5] * 8 for number in range(6)})
    write_ensemble(tmp_path, "phantom,last,combine=mean,runs=1", {"other": [0.5] * 8})
    folder = make_report(tmp_path)
    assert "Ensembles: left out, since no test case is common" in capsys.readouterr().out
    assert not (folder / "ensembles.csv").exists()


def test_an_ensemble_counts_once_and_stays_within_100_percent(tmp_path):
    for seed in range(2):
        dice = {f"c{number}": [0.97 + 0.02 * seed + number / 1000] * 8 for number in range(6)}
        write_run(tmp_path, "uniform", 0.01, dice, seed)
        runs = [f"loss={loss},lr=0.01,seed={seed}" for loss in ("uniform", "simple")]
        for data in ("phantom", "again"):  # the same data under two names
            write_ensemble(tmp_path, f"{data},last,combine=mean,runs=d{seed}", dice, runs=runs)
    table = pd.read_csv(make_report(tmp_path) / "ensembles.csv", index_col="name")
    assert table.loc["mean probabilities of 2 runs, 2 seeds (d0…)", "runs"] == 4
    assert (table["high"] == 100).all()


def test_a_report_without_ensembles_has_no_table_of_them(tmp_path):
    """Nor those of an earlier report."""
    write_run(tmp_path, "uniform", 0.001, {f"c{number}": [0.5] * 8 for number in range(6)})
    write_ensemble(tmp_path, "phantom,last,combine=mean,runs=1", {f"c{number}": [0.5] * 8 for number in range(6)})
    folder = make_report(tmp_path)
    assert (folder / "ensembles.csv").exists()
    (folder / "figure2.png").touch()
    (folder / "my_notes.txt").touch()
    shutil.rmtree(tmp_path / "evaluate")
    make_report(tmp_path)
    assert not (folder / "figure2.png").exists()
    assert (folder / "my_notes.txt").exists()
    assert not (folder / "ensembles.csv").exists()
    assert "id='ensembles'" not in (folder / "index.html").read_text()
