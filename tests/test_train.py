"""A whole run, on tiny data: what it leaves, how it goes on, and what evaluation makes of it."""

import json
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tensorboard.plugins.hparams.metadata import (
    EXPERIMENT_TAG,
    SESSION_START_INFO_TAG,
    parse_experiment_plugin_data,
    parse_session_start_info_plugin_data,
)

from lightning_dice.config import config_folder
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.errors import InputError
from lightning_dice.evaluate import evaluate
from lightning_dice.pictures.tables import scores_table
from lightning_dice.predict import predict
from lightning_dice.prepare import prepare
from lightning_dice.recipe import load_network
from lightning_dice.runs import SCORE_COLUMNS, metric_columns
from lightning_dice.train import train
from tests.conftest import NAMES, tiny_case, write_nifti, write_nnunet

STEPS = 6


def composed(command, folder, *overrides):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose(command, [f"cache={folder}/cache", *overrides])


def config_of(folder, root, *overrides):
    return composed(
        "train", folder, "experiment=smoke", "data=nnunet", f"data.root={root}", f"output_dir={folder}/runs",
        "data.patch_size=16", "data.preparation.spacing_mm=3", "data.test=0.25", "data.validation=0.25",
        f"trainer.max_steps={STEPS}", "trainer.log_every_n_steps=1", "trainer.accelerator=cpu",
        "trainer.precision=32-true", "trainer.enable_progress_bar=false",
        "loss=simple", "optim.lr=0.01", *overrides,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(nnunet_root, tmp_path_factory):
    """A finished run; only read it."""
    return train(config_of(tmp_path_factory.mktemp("finished"), nnunet_root))


def test_a_run_leaves_what_the_design_says(finished):
    files = {str(path.relative_to(finished.folder)) for path in finished.folder.rglob("*") if path.is_file()}
    assert {path for path in files if not path.startswith("tensorboard/")} == {
        "config.yaml", "environment.json", "metrics.csv", "scores.csv", "summary.json", "cases.json", "DONE",
        "labels.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "curves.png", "slices.png",
        "predictions/case_1.nii.gz", "predictions/case_4.nii.gz",
    }  # fmt: skip
    *_, data, experiment, name = finished.folder.parts
    assert (data, experiment) == ("nnunet", "smoke")
    assert name.startswith("loss=simple,lr=0.01,seed=0,data.patch_size=16,")
    written = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*") if p.is_file()}
    assert max(written, key=written.get) == finished.done


def test_curves_stand_in_metrics_and_tensorboard(finished):
    table = pd.read_csv(finished.metrics)
    assert tuple(table.columns) == metric_columns(NAMES)
    train_points, val_points = (table[table[f"{stage}/loss"].notna()] for stage in ("train", "val"))
    assert train_points["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert val_points["step"].tolist() == [2, 4, 6]
    assert (train_points["train/loss"] < 0).all()
    assert val_points[[f"val/dice/{name}" for name in NAMES]].notna().all(axis=None)

    events = EventAccumulator(str(finished.tensorboard)).Reload()
    assert {f"{s}/{v}" for s in ("train", "val") for v in ("loss", "dice/liver")} <= set(events.Tags()["scalars"])
    logged = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert [step for step, _ in logged] == train_points["step"].tolist()
    assert [value for _, value in logged] == pytest.approx(train_points["train/loss"].tolist())
    assert [image.step for image in events.Images("validation")] == [2, 4, 6]

    organs = val_points[[f"val/dice/{name}" for name in NAMES[1:]]].mean(axis=1)
    assert [event.value for event in events.Scalars("val/dice")] == pytest.approx(organs.tolist())
    scores = pd.read_csv(finished.scores).groupby("name")["dice"].mean()  # both cases have all classes
    for name, mean in {"dice": scores[list(NAMES[1:])].mean(), "AVG": scores.mean()}.items():
        assert [(event.step, event.value) for event in events.Scalars(f"test/{name}")] == [(6, pytest.approx(mean))]
    assert [(e.step, e.value) for e in events.Scalars("optim/lr")] == [(s, pytest.approx(0.01)) for s in range(1, 7)]
    times = {name: events.Scalars(f"time/{name}") for name in ("seconds_per_iteration", "share_waiting_for_data")}
    assert [[event.step for event in measured] for measured in times.values()] == [[3, 4, 5, 6]] * 2  # two warm up
    summary = json.loads(finished.summary.read_text())
    seconds, shares = ([event.value for event in measured] for measured in times.values())
    timed = 4 * summary["seconds_per_iteration"]
    assert 0 < sum(seconds) < timed  # what is done after the last point belongs to none
    assert np.dot(seconds, shares) == pytest.approx(timed * summary["share_waiting_for_data"], rel=1e-4)


def test_tensorboard_has_settings_tables_and_charts(finished):
    events = EventAccumulator(str(finished.tensorboard)).Reload()
    values = parse_session_start_info_plugin_data(events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content)
    told = {key: value.string_value or value.number_value for key, value in values.hparams.items()}
    assert told == {
        "loss": "simple", "optim.lr": 0.01, "seed": 0.0, "prior": "false", "network": "unet3d_tiny", "optim": "adam",
        "schedule": "constant", "transform": "none", "callbacks": "none", "labels": "paper", "data": "nnunet",
        "name": "smoke", "others": finished.folder.name.removeprefix("loss=simple,lr=0.01,seed=0,"),
    }  # fmt: skip
    columns = parse_experiment_plugin_data(events.SummaryMetadata(EXPERIMENT_TAG).plugin_data.content)
    assert {column.name for column in columns.hparam_infos} == told.keys()
    shown = {column.name for column in columns.hparam_infos if column.differs}  # before the others
    assert shown == {"loss", "optim.lr", "seed", "prior", "others"}
    metrics = [metric.name.tag for metric in columns.metric_infos]
    assert metrics == ["val/dice", "test/dice", "test/AVG"]
    assert set(metrics) <= set(events.Tags()["scalars"])

    texts = {name: events.Tensors(f"{name}/text_summary") for name in ("classes", "test")}
    assert [[text.step for text in written] for written in texts.values()] == [[0], [6]]
    table = texts["classes"][0].tensor_proto.string_val[0].decode()
    environment = json.loads(finished.environment.read_text())
    for name, voxels, weight in zip(NAMES, *(environment["classes"][k] for k in ("voxels", "weights")), strict=True):
        assert re.search(rf"^    {name} +{voxels:,} +[\d.]+ +{re.escape(f'{weight:.3e}')}$", table, re.MULTILINE)
    assert "    AVG organs" in texts["test"][0].tensor_proto.string_val[0].decode()

    (stored,) = events.Tensors(CONFIG_SUMMARY_TAG)
    loss, dice = Layout.FromString(stored.tensor_proto.string_val[0]).category
    assert [chart.title for chart in dice.chart] == list(NAMES)
    for chart in (*loss.chart, *dice.chart):
        found = {t for t in events.Tags()["scalars"] for pattern in chart.multiline.tag if re.match(pattern, t)}
        curve = "loss" if chart.title == "loss" else f"dice/{chart.title}"
        assert found == {f"train/{curve}", f"val/{curve}"}


def test_scores_are_those_of_the_predictions(finished, nnunet_root):
    scores = pd.read_csv(finished.scores)
    assert tuple(scores.columns) == SCORE_COLUMNS
    assert len(scores) == 2 * len(NAMES)
    for case, rows in scores.groupby("case"):
        prediction = nib.load(finished.prediction(case))
        truth = nib.as_closest_canonical(nib.load(nnunet_root / "labelsTr" / f"{case}.nii.gz"))
        assert np.allclose(prediction.affine, truth.affine)
        a, b = np.asarray(prediction.dataobj), np.asarray(truth.dataobj)
        for row in rows.itertuples():
            assert NAMES[row.label] == row.name
            assert (row.voxels_true, row.voxels_pred) == ((b == row.label).sum(), (a == row.label).sum())
            overlap = ((a == row.label) & (b == row.label)).sum()
            assert row.dice == pytest.approx(2 * overlap / (row.voxels_true + row.voxels_pred))


def test_the_summary_holds_means_and_times(finished):
    summary = json.loads(finished.summary.read_text())
    scores = pd.read_csv(finished.scores)
    assert summary["cases"] == 2
    assert summary["classes"]["liver"]["dice"] == pytest.approx(scores[scores["name"] == "liver"]["dice"].mean())
    assert summary["avg_without_background"]["dice"] == pytest.approx(scores[scores["label"] > 0]["dice"].mean())
    assert summary["iterations_timed"] == STEPS - 2
    assert summary["seconds_per_iteration"] > 0
    assert 0 <= summary["share_waiting_for_data"] <= 1
    assert summary["peak_memory_gb"] > 0.1


def test_the_test_used_the_last_weights_and_the_checkpoint_stands_alone(finished):
    network, recipe = load_network(finished.last)
    assert network.classes.in_channels == 2 * recipe.network["base_channels"] == 8
    assert recipe.labels.names == NAMES
    assert recipe.spacing_mm == (3.0, 3.0, 3.0)
    assert recipe.preparation.window_hu == (-500.0, 500.0)
    assert recipe.patch_size == (16, 16, 16)
    assert torch.load(finished.last, weights_only=True)["global_step"] == STEPS


def test_the_counts_behind_the_weights_are_the_training_cases_own(finished, nnunet_root, capsys):
    settings = ("data=nnunet", f"data.root={nnunet_root}", "data.preparation.factor=1", "data.test=0.25")
    data = prepare(composed("prepare", finished.folder.parents[3], *settings, "data.validation=0.25"))
    assert data.split.test == ("case_1", "case_4")
    counts = sum(
        np.bincount(tiny_case(int(case.removeprefix("case_")))[1].ravel(), minlength=8) for case in data.split.train
    )
    assert data.class_voxels == tuple(counts)
    assert f"cases of {nnunet_root}: 8, prepared in" in capsys.readouterr().out


def files_of(run) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_left_alone_and_rerun_starts_another(finished, nnunet_root, capsys):
    folder = finished.folder.parents[3]
    before = files_of(finished)
    assert train(config_of(folder, nnunet_root)) == finished
    assert "finished before" in capsys.readouterr().out
    again = train(config_of(folder, nnunet_root, "rerun=true"))
    assert again.folder.name == finished.folder.name + ",rerun=2"
    assert pd.read_csv(again.scores).equals(pd.read_csv(finished.scores))  # the same seed, the same network
    assert files_of(finished) == before


def test_too_few_patients_are_refused(nnunet_root, tmp_path):
    with pytest.raises(InputError, match=r"5 training patients for data\.batch_size=6"):
        train(config_of(tmp_path, nnunet_root, "data.batch_size=6"))


@pytest.mark.parametrize(
    ("override", "message"),
    [("data.patch_size=18", "data.patch_size=[18, 18, 18]: each side must be divisible by 4"),
     ("trainer.max_steps=0", "trainer.max_steps=0: expected an integer from 1"),
     ("trainer.accelerator=tpus", "trainer: "),
     ("+data.layout.x=0", "data.layout: got an unexpected keyword argument 'x'"),
     ("data.test=1.5", "data.test=1.5: expected a share")],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_in_one_line(nnunet_root, tmp_path, override, message):
    with pytest.raises(InputError) as refusal:
        train(config_of(tmp_path, nnunet_root, override))
    assert str(refusal.value).startswith(message)
    assert not (tmp_path / "runs").exists()


def test_training_without_validation_and_test_cases(nnunet_root, tmp_path, capsys):
    run = train(config_of(tmp_path, nnunet_root, "data.validation=0", "data.test=0", "trainer.max_steps=2"))
    assert run.done.is_file()
    assert not run.scores.exists()
    assert not run.best.exists()
    assert "no test cases, no table" in capsys.readouterr().out


def test_a_run_shorter_than_its_intervals_has_a_point_at_its_end(nnunet_root, tmp_path):
    settings = ("trainer.max_steps=3", "trainer.log_every_n_steps=50", "trainer.val_check_interval=500")
    run = train(config_of(tmp_path, nnunet_root, *settings))
    table = pd.read_csv(run.metrics)
    assert table[table["train/loss"].notna()]["step"].tolist() == [3]
    assert table[table["val/loss"].notna()]["step"].tolist() == [3]


def test_evaluate_scores_the_same_cases_the_same(finished):
    run = evaluate(
        composed("evaluate", finished.folder.parents[3], f"run='{finished.folder}'", "trainer.precision=32-true")
    )
    assert run.folder == finished.folder / "evaluate" / "nnunet,last"
    assert pd.read_csv(run.scores).equals(pd.read_csv(finished.scores))
    native = pd.read_csv(run.native_scores)  # the data are at the network's voxel size, so both grids are one
    pd.testing.assert_frame_equal(native, pd.read_csv(run.scores))


def test_evaluate_scores_on_the_scans_own_grids_too(nnunet_root, tmp_path):
    """Trained on each second voxel; what is scored there is what `predict` makes of the same scans."""
    each_second = ["data.preparation.factor=2", "data.preparation.spacing_mm=null", "data.patch_size=12"]
    run = train(config_of(tmp_path, nnunet_root, *each_second))
    evaluated = evaluate(composed("evaluate", tmp_path, f"run='{run.folder}'", "trainer.precision=32-true"))
    native = pd.read_csv(evaluated.native_scores)
    assert native["case"].unique().tolist() == pd.read_csv(evaluated.scores)["case"].unique().tolist()
    assert json.loads(evaluated.summary.read_text())["native"]["cases"] == 2
    for case, rows in native.groupby("case"):
        scan, output = nnunet_root / "imagesTr" / f"{case}_0000.nii.gz", tmp_path / "out"
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            asked = [f"run='{run.folder}'", f"input={scan}", f"output={output}", "overlap=0", "precision=32-true"]
            predict(compose("predict", asked))
        truth, predicted = (
            np.asarray(nib.load(path).dataobj).ravel()
            for path in (nnunet_root / "labelsTr" / f"{case}.nii.gz", output / f"{case}_0000.nii.gz")
        )
        assert rows["voxels_true"].tolist() == np.bincount(truth, minlength=8).tolist()
        assert np.abs(rows["voxels_pred"] - np.bincount(predicted, minlength=8)).sum() <= 4  # ties, by rounding
        overlap = [((truth == c) & (predicted == c)).sum() * 2 / ((truth == c).sum() + (predicted == c).sum())
                   for c in range(8)]  # fmt: skip
        assert np.allclose(rows["dice"], overlap, atol=5e-3)


def test_evaluate_brings_another_data_set_to_the_networks_voxel_size(finished, tmp_path):
    root = write_nnunet(tmp_path / "other", 2)
    coarse = np.diag([-6.0, -6.0, 6.0, 1.0])
    for number in range(2):
        hu, label = (array[::2, ::2, ::2] for array in tiny_case(number))
        write_nifti(root / "imagesTr" / f"case_{number}_0000.nii.gz", hu, coarse)
        write_nifti(root / "labelsTr" / f"case_{number}.nii.gz", label, coarse)
    config = composed(
        "evaluate",
        tmp_path,
        f"run='{finished.folder}'",
        "checkpoint=best",
        "data=nnunet",
        "data.name=other",
        f"data.root={root}",
    )
    run = evaluate(config)
    assert run.folder.name == "other,best"
    assert pd.read_csv(run.scores)["case"].unique().tolist() == ["case_0", "case_1"]
    assert nib.load(run.prediction("case_0")).header.get_zooms() == (3.0, 3.0, 3.0)
    assert nib.load(run.prediction("case_0")).shape == (24, 20, 28)


def test_evaluate_refuses_what_it_cannot_use(finished, nnunet_root, tmp_path):
    with pytest.raises(InputError, match="checkpoint=first: expected last or best"):
        evaluate(composed("evaluate", tmp_path, f"run='{finished.folder}'", "checkpoint=first"))
    with pytest.raises(InputError, match=r"no config\.yaml in it"):
        evaluate(composed("evaluate", tmp_path, f"run={tmp_path}"))
    scored = finished.folder / "evaluate" / "nnunet,last" / "scores.csv"
    before = scored.read_bytes() if scored.exists() else None
    with pytest.raises(InputError, match=f"^data.root={nnunet_root}: .* was trained on it; leave data= out"):
        evaluate(composed("evaluate", tmp_path, f"run='{finished.folder}'", "data=nnunet", f"data.root={nnunet_root}"))
    assert (scored.read_bytes() if scored.exists() else None) == before  # training cases are in no scores


def partly_annotated(root, organs):
    """The same cases with labels of these organs alone."""
    write_nnunet(root, 8)
    description = json.loads((root / "dataset.json").read_text())
    description["labels"] = {name: value for name, value in description["labels"].items() if name in organs}
    (root / "dataset.json").write_text(json.dumps(description))
    for path in (root / "labelsTr").iterdir():
        image = nib.load(path)
        label = np.asarray(image.dataobj)
        write_nifti(path, np.where(np.isin(label, list(description["labels"].values())), label, 0).astype(np.uint8))
    return root


ORGANS = ("background", "liver", "pancreas")


@pytest.mark.parametrize(("labels", "outputs"), [("present", 3), ("all", 8)])
def test_not_annotated_is_not_background(labels, outputs, tmp_path):
    root = partly_annotated(tmp_path / "partial", ORGANS)
    run = train(config_of(tmp_path, root, f"labels.outputs={labels}", "loss=uniform"))
    network, recipe = load_network(run.last)
    assert recipe.network["num_classes"] == network.classes.out_channels == len(recipe.labels) == outputs
    environment = json.loads(run.environment.read_text())
    assert environment["classes"]["names"] == list(ORGANS)
    assert len(environment["classes"]["weights"]) == 3
    curves = pd.read_csv(run.metrics)
    assert curves["train/dice/liver"].notna().any()
    assert ("train/dice/spleen" in curves) == (labels == "all")
    if labels == "all":
        assert curves[["train/dice/spleen", "val/dice/spleen"]].isna().all(axis=None)
    summary = json.loads(run.summary.read_text())
    assert {name for name, scores in summary["classes"].items() if scores["cases"]} == set(ORGANS)
    told = scores_table(summary).splitlines()
    dashes = [line.split() for line in told if line.startswith("spleen")]
    assert dashes == ([["spleen", *"––––", "0"]] if labels == "all" else [])
    means = [summary["classes"][name]["dice"] for name in ORGANS]
    assert summary["avg"]["dice"] == pytest.approx(np.mean(means))
    indices = {recipe.labels.names.index(name) for name in ORGANS}
    assert set(np.unique(nib.load(run.prediction("case_1")).dataobj)) <= indices


def test_a_network_is_scored_on_the_classes_that_it_shares_with_the_data(finished, tmp_path):
    """Eight classes on a set that has two of them: what it takes for a spleen is no mistake there."""
    root = partly_annotated(tmp_path / "partial", ORGANS)
    run = evaluate(composed("evaluate", tmp_path, f"run='{finished.folder}'", "data=nnunet", f"data.root={root}"))
    scores = pd.read_csv(run.scores)
    assert set(scores.loc[scores["dice"].notna(), "name"]) <= set(ORGANS)
    assert (scores.loc[scores["name"] == "spleen", ["voxels_true", "voxels_pred"]] == 0).all(axis=None)


def test_batches_reach_the_module_as_the_datamodule_draws_them(nnunet_root, tmp_path):
    """Two modules of data with other numbers of workers give a trainer the same patients in the same order."""
    from lightning_dice.build import build_datamodule

    orders = []
    for workers in (0, 2):
        data: CTDataModule = build_datamodule(config_of(tmp_path, nnunet_root, f"data.num_workers={workers}"))
        data.setup()

        class Trainer:
            global_step, max_steps, accumulate_grad_batches, world_size, global_rank = 1, 5, 1, 1, 0
            strategy = type("Strategy", (), {"root_device": torch.device("cpu")})

        data.trainer = Trainer
        orders.append([batch.ids for batch in data.train_dataloader()])
    assert len(orders[0]) == 4
    assert orders[0] == orders[1]
