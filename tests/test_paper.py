import math

import numpy as np
import pandas as pd
import pytest

from lightning_dice.metrics import summarize
from lightning_dice.pictures.curves import learning_curves
from lightning_dice.pictures.slices import Pictured, richest_slice, slices_figure
from lightning_dice.pictures.tables import classes_table, scores_table
from lightning_dice.runs import metric_columns
from tests.grids import PAPER


def metrics(with_validation: bool) -> pd.DataFrame:
    rows = [{"step": s, "train/loss": -s, **{f"train/dice/{n}": 0.01 * s for n in PAPER.names}} for s in (10, 20, 30)]
    if with_validation:
        rows.append({"step": 20, "val/loss": -7.0, "val/dice/liver": 0.5})
    return pd.DataFrame(rows, columns=metric_columns(PAPER.names))


def test_the_learning_curves_are_the_tables():
    loss, train, val, *rest = learning_curves(metrics(True), PAPER, "title").axes
    assert not rest
    assert loss.lines[0].get_xydata().tolist() == [[10, -10], [20, -20], [30, -30]]
    assert loss.lines[1].get_xydata().tolist() == [[20, -7]]
    curves = {line.get_label(): line for line in train.lines}
    assert tuple(curves) == PAPER.names
    assert curves["vein"].get_xydata().tolist() == [[10, 0.1], [20, 0.2], [30, 0.3]]
    assert {line.get_label(): line for line in val.lines}["liver"].get_xydata().tolist() == [[20, 0.5]]


def test_the_learning_curves_do_without_validation():
    assert len(learning_curves(metrics(False), PAPER, "").axes) == 2


def test_the_richest_slice_has_the_most_classes_and_then_the_most_of_the_smallest():
    label = np.zeros((4, 5, 6), np.uint8)
    label[:, :, 0] = 3  # much of one class
    label[0, 0, 2], label[1, 1, 2] = 1, 2
    label[:2, 0, 4], label[2:, 1, 4] = 1, 2  # the same classes, more of them
    assert richest_slice(label, axis=2) == 4
    assert richest_slice(np.zeros((4, 5, 6), np.uint8), axis=2) in range(6)


def test_slices_are_shown_as_radiologists_see_them():
    shape, spacing = (6, 5, 4), (1.0, 2.0, 3.0)
    truth, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    truth[5, 4, 3] = 3  # the patient's right, in front, at the top
    prediction[0, 0, 3] = 4
    figure = slices_figure([Pictured("somebody", np.zeros(shape, np.float32), truth, prediction, spacing, PAPER)])
    axial_truth, axial_prediction, coronal_truth, _ = figure.axes
    shown = axial_truth.images[1].get_array()
    assert shown.shape == (5, 6)
    assert shown[0, 0] == 3  # right is on the left, the front is up
    assert shown.sum() == 3
    assert axial_prediction.images[1].get_array()[4, 5] == 4
    assert coronal_truth.images[1].get_array()[0, 0] == 3
    assert coronal_truth.get_aspect() == 3.0  # 3 mm high, 1 mm wide
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == list(PAPER.names[1:])


def test_colours_are_distinct():
    assert len({label.colour for label in PAPER.labels}) == len(PAPER)


def test_the_scores_table_holds_the_summary():
    score = {"jaccard": 0.25, "hd95_mm": 12.34, "surface_dice": 0.75}
    dice = [math.nan if name == "vein" else 0.5 + 0.01 * i for i, name in enumerate(PAPER.names)]
    rows = [
        {"case": c, "label": i, "name": PAPER.names[i], "dice": d, **score} for c in "ab" for i, d in enumerate(dice)
    ]
    lines = scores_table(summarize(pd.DataFrame(rows))).splitlines()
    assert lines[0].split() == ["Dice", "%", "Jaccard", "%", "HD95", "mm", "NSD", "3", "mm", "%", "cases"]
    table = {line.split("  ")[0].strip(): line.split()[-5:] for line in lines[1:]}
    assert list(table) == [*PAPER.names, "AVG", "AVG organs", "MAX", "MIN"]
    assert table["liver"] == ["53.0", "25.0", "12.3", "75.0", "2"]
    assert table["vein"] == ["–", "25.0", "12.3", "75.0", "0"]
    assert table["MAX"][0] == "57.0"
    assert table["MIN"][0] == "50.0"
    assert table["AVG"][0] == f"{100 * np.mean([0.5, 0.51, 0.53, 0.54, 0.55, 0.56, 0.57]):.1f}"


def test_no_test_cases_give_no_table():
    assert scores_table({"seconds_per_iteration": 1.0}) == "no test cases, no table"


def test_class_weights_are_shown_with_voxels_and_shares():
    text = classes_table(PAPER.names, [900, 100, 0, 0, 0, 0, 0, 0], [1e-10, 2.5, 3, 4, 5, 6, 7, 8])
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines()[2:]}
    assert lines["background"] == ["900", "90.000", "1.000e-10"]
    assert lines["artery"] == ["100", "10.000", "2.500e+00"]
    assert "weight" not in classes_table(PAPER.names, [1] * 8)


@pytest.mark.parametrize("name", PAPER.names)
def test_every_class_has_a_curve(name):
    assert f"train/dice/{name}" in metric_columns(PAPER.names)
    assert f"val/dice/{name}" in metric_columns(PAPER.names)
