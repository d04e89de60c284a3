"""A data set of other organs goes the whole way with no edit: prepared, trained, evaluated, predicted and reported."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from lightning_dice.evaluate import evaluate
from lightning_dice.prepare import prepare
from lightning_dice.recipe import load_network
from lightning_dice.runs import read_labels
from lightning_dice.train import train
from tests.conftest import PAPER, write_nifti
from tests.test_predict import predicted
from tests.test_report import make_report
from tests.test_train import composed, config_of

CLASSES = ("background", "kidney_left", "kidney_right", "tumour")
SHAPE, AFFINE = (40, 24, 24), np.diag([4.0, 4.0, 4.0, 1.0])  # RAS+


def patient(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Two kidneys and a tumour in the left one, each of a brightness of its own."""
    label = np.zeros(SHAPE, np.uint8)
    at = 6 + number
    label[4:12, at : at + 8, 8:18] = 1
    label[26:34, at : at + 8, 8:18] = 2
    label[6:9, at + 2 : at + 5, 10:13] = 3
    hu = np.array([-100, 60, 160, 260])[label] + np.random.default_rng(number).normal(0, 10, SHAPE)
    hu[:, :2] = -900
    return hu.astype(np.int16), label


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kidneys")
    for number in range(8):
        hu, label = patient(number)
        write_nifti(folder / "imagesTr" / f"k{number}_0000.nii.gz", hu, AFFINE)
        write_nifti(folder / "labelsTr" / f"k{number}.nii.gz", label, AFFINE)
    labels = {name: index for index, name in enumerate(("background", "Kidney left", "kidney_right", "tumour"))}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    return folder


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    settings = [
        "labels=dataset",
        "data.preparation.spacing_mm=4",
        "trainer.max_steps=30",
        "trainer.log_every_n_steps=10",
    ]
    return train(config_of(tmp_path_factory.mktemp("work"), root, *settings))


def test_the_data_are_prepared_without_a_finding(root, tmp_path, capsys):
    settings = ["data=nnunet", f"data.root={root}", "labels=dataset", "data.preparation.factor=1"]
    data = prepare(composed("prepare", tmp_path, *settings))
    assert data.labels.names == data.taught == CLASSES
    assert data.findings == []
    counts = sum(np.bincount(patient(number)[1].ravel(), minlength=4) for number in range(8))
    assert data.class_voxels == tuple(counts)
    assert "counted as background" not in capsys.readouterr().out
    card = (tmp_path / "cache" / "prepared" / "nnunet" / "card.md").read_text()
    assert all(name.replace("_", r"\_") in card for name in CLASSES)


def test_a_mirrored_patient_is_told_by_its_kidneys(root, tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        for path in (root / folder).iterdir():
            array = np.asarray(nib.load(path).dataobj)
            write_nifti(tmp_path / "data" / folder / path.name, array[::-1] if "k3" in path.name else array, AFFINE)
    (tmp_path / "data" / "dataset.json").write_text((root / "dataset.json").read_text())
    settings = ["data=nnunet", f"data.root={tmp_path}/data", "labels=dataset", "data.preparation.factor=1"]
    (finding,) = prepare(composed("prepare", tmp_path, *settings)).findings
    assert (finding.case, finding.check) == ("k3", "left-right")
    assert finding.value.startswith("its labelled kidney_right is ")
    assert finding.value.endswith(" mm to the left of its kidney_left")


def test_training_leaves_all_classes(run):
    assert read_labels(run).names == CLASSES
    network, recipe = load_network(run.last)
    assert recipe.labels == read_labels(run)
    assert network.classes.out_channels == 4
    curves = pd.read_csv(run.metrics)
    assert curves[[f"{stage}/dice/{name}" for stage in ("train", "val") for name in CLASSES]].notna().any().all()
    scores = pd.read_csv(run.scores)
    assert scores.groupby("case")["name"].apply(tuple).unique().tolist() == [CLASSES]
    assert scores["dice"].notna().all()
    assert run.slices.stat().st_size > 10_000


def test_learnt_classes_are_those_of_the_label_maps(run):
    """The network need only see brightness: a class that stood in another one's place would score nothing."""
    scores = pd.read_csv(run.scores).groupby("name")["dice"].mean()
    assert scores["background"] > 0.6
    assert scores["kidney_left"] > 0.4
    assert scores["kidney_right"] > 0.4


def test_evaluation_gives_the_same_scores(run, tmp_path):
    evaluated = evaluate(composed("evaluate", tmp_path, f"run='{run.folder}'", "trainer.precision=32-true"))
    pd.testing.assert_frame_equal(pd.read_csv(evaluated.scores), pd.read_csv(run.scores))
    assert pd.read_csv(evaluated.native_scores)["name"].unique().tolist() == list(CLASSES)


def test_prediction_names_all_classes(run, root, tmp_path):
    scan = root / "imagesTr" / "k1_0000.nii.gz"
    volumes = predicted(run.folder, scan, tmp_path, "ending=.seg.nrrd", "overlay=true")
    assert list(volumes) == ["scan", *(f"{name}_ml" for name in CLASSES[1:])]
    image = sitk.ReadImage(tmp_path / "k1_0000.seg.nrrd")
    assert [image.GetMetaData(f"Segment{number}_Name") for number in range(3)] == list(CLASSES[1:])
    assert [image.GetMetaData(f"Segment{number}_LabelValue") for number in range(3)] == ["1", "2", "3"]
    voxels = np.bincount(sitk.GetArrayFromImage(image).ravel(), minlength=4)
    assert volumes.iloc[0, 1:].astype(float).to_numpy() == pytest.approx(voxels[1:] * 0.064)


def test_the_report_has_a_row_for_each_class_and_nothing_of_the_papers(run):
    report = make_report(run.folder.parent)
    table = pd.read_csv(report / "table1.csv")
    assert set(CLASSES) < set(table["row"])
    assert "printed" not in table
    scores = pd.read_csv(run.scores).groupby("name")["dice"].mean() * 100
    dice = table.dropna(subset="dice").set_index("row")["dice"]
    assert dice[list(CLASSES)].to_dict() == pytest.approx(scores.to_dict())
    page = (report / "index.html").read_text()
    assert "kidney_left" in page
    assert "Shen" not in (report / "table1.md").read_text()


def test_phantoms_are_trained_with_all_that_they_draw(tmp_path):
    settings = ["experiment=smoke", "labels=phantom_all", "data.layout.tumours=true", "trainer.accelerator=cpu"]
    run = train(composed("train", tmp_path, *settings, "loss=square", f"output_dir={tmp_path}/runs"))
    names = read_labels(run).names
    assert len(names) == 28
    assert {*PAPER.names, "kidney_left", "inferior_vena_cava", "vertebrae", "liver_tumour"} < set(names)
    scores = pd.read_csv(run.scores)
    assert scores["name"].tolist() == list(names)  # of one case
    classes = json.loads(run.environment.read_text())["classes"]
    assert classes["names"] == list(names)
    voxels = dict(zip(names, classes["voxels"], strict=True))
    weights = dict(zip(names, classes["weights"], strict=True))
    total = sum(classes["voxels"])
    assert 0 < voxels["liver_tumour"] < 100  # at 12 mm
    for name in names:  # Eq. 5
        assert weights[name] == pytest.approx(total / (len(names) * voxels[name] ** 2 + 1))
    assert weights["liver_tumour"] == max(weights.values())
