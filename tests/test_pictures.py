"""Slices, curves, tables and legends of runs of few and of many classes."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_dice.config import shipped_labels
from lightning_dice.data.labels import Label, LabelSet
from lightning_dice.metrics import summarize
from lightning_dice.paper.segmentations import weighting_figure
from lightning_dice.pictures.curves import dashes, learning_curves
from lightning_dice.pictures.slices import Pictured, richest_slice, slices_figure
from lightning_dice.pictures.tables import classes_table, scores_table
from lightning_dice.runs import metric_columns
from tests.grids import PAPER

SEVERAL = ("the paper's", "10", "30", "117")  # sets of classes


def metrics(with_validation: bool, labels: LabelSet = PAPER) -> pd.DataFrame:
    names = labels.names
    rows = [{"step": s, "train/loss": -s, **{f"train/dice/{n}": 0.01 * s for n in names}} for s in (10, 20, 30)]
    if with_validation:
        rows.append({"step": 20, "val/loss": -7.0, f"val/dice/{names[3]}": 0.5})
    return pd.DataFrame(rows, columns=metric_columns(names))


def set_of(classes: str) -> LabelSet:
    """Of so many organs."""
    if classes == SEVERAL[0]:
        return PAPER
    many = shipped_labels("totalsegmentator")
    return many.select(many.names[1 : int(classes) + 1])


def scattered(labels: LabelSet) -> Pictured:
    """A box of each class, and a prediction beside the truth."""
    rng, shape = np.random.default_rng(0), (90, 80, 70)
    label = np.zeros(shape, np.uint8)
    for index in range(1, len(labels)):
        corner = rng.integers(0, np.array(shape) - 9)
        label[tuple(slice(c, c + 9) for c in corner)] = index
    hu = rng.normal(0, 30, shape).astype(np.float32)
    return Pictured("somebody", hu, label, np.roll(label, 1, axis=0), (2.0, 2.0, 2.0), labels)


def check_legend(figure: Figure) -> list[str]:
    """That it lies within the figure and on none of its axes, with entries that do not overlap; its entries."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    whole = figure.bbox
    assert box.x0 >= whole.x0
    assert box.y0 >= whole.y0
    assert box.x1 <= whole.x1
    assert box.y1 <= whole.y1
    for axis in figure.axes:
        panel = axis.get_tightbbox()
        assert min(panel.width, panel.height) > 100  # nor does it leave no room for them
        assert not box.overlaps(panel)
    entries = [text.get_window_extent() for text in legend.get_texts()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(entries, 2))
    assert min(text.get_fontsize() for text in legend.get_texts()) >= 7
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("classes", SEVERAL)
def test_curves_of_many_classes_have_a_legend_within_their_figure(classes):
    labels = set_of(classes)
    for with_validation in (True, False):
        figure = learning_curves(metrics(with_validation, labels), labels, "title")
        assert check_legend(figure) == list(labels.names)


@pytest.mark.parametrize("classes", SEVERAL)
def test_curves_can_be_told_apart(classes):
    labels = set_of(classes)
    lines = learning_curves(metrics(False, labels), labels, "").axes[1].lines
    looks = list(zip((label.colour for label in labels.labels), dashes(labels), strict=True))
    assert len(set(looks)) == len(labels)
    assert [(line.get_color(), line.is_dashed()) for line in lines] == [(c, dash != "solid") for c, dash in looks]
    assert max(Counter(dashes(labels)).values()) <= max(10, len(labels) / 2)
    assert (set(dashes(labels)) == {"solid"}) == (len(labels) <= 10)


def test_dashes_by_hand():
    colours = ["#000001", "#000002", "#000001", "#000001", *(f"#0000{i:02x}" for i in range(3, 11))]
    labels = LabelSet("mine", (PAPER.labels[0], *(Label(f"c{i}", colour) for i, colour in enumerate(colours))))
    # Background is the first colour, and these the second to the eleventh.
    assert dashes(labels) == ["solid", "solid", "solid", "dash", "dot", *["solid"] * 7, "dash"]


@pytest.mark.parametrize("classes", SEVERAL)
def test_slices_and_surfaces_have_a_legend_within_their_figure_of_what_is_in_them(classes):
    labels, row = set_of(classes), scattered(set_of(classes))
    figure = slices_figure([row])
    told = check_legend(figure)
    shown = {i for axis in figure.axes for i in np.unique(axis.images[1].get_array())} - {0}
    assert set(told) == {labels.names[i] for i in (range(1, len(labels)) if len(labels) <= 11 else shown)}
    if classes == "117":
        assert len(told) < 80
    narrow = weighting_figure("simple", {"0.01": row})
    assert check_legend(narrow) == list(labels.names[1:])
    for both in (figure.axes[:2], narrow.axes[:2], narrow.axes[2:]):  # truth and prediction have frames of their own
        assert all(axis.axison for axis in both)
        assert len({axis.spines["left"].get_edgecolor() for axis in both}) == 2
    assert [axis.get_title() for axis in narrow.axes[:2]] == ["truth", "prediction, learning rate 0.01"]


def test_a_slice_without_organs_needs_no_legend_of_many():
    row = scattered(set_of("117"))
    empty = np.zeros_like(row.truth)
    assert not slices_figure([replace(row, truth=empty, prediction=empty)]).legends


@pytest.mark.parametrize("classes", SEVERAL)
def test_a_classes_voxels_have_its_colour(classes):
    labels = set_of(classes)
    label = np.arange(len(labels), dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    row = Pictured("all", np.zeros(label.shape, np.float32), label, label, (1, 1, 1), labels)
    image = slices_figure([row]).axes[0].images[1]
    rgba = image.cmap(image.norm(np.arange(len(labels))), bytes=True)
    assert rgba[1:, :3].tolist() == [list(organ.rgb) for organ in labels.organs]
    assert rgba[:, 3].tolist() == [0] + [255] * len(labels.organs)


def test_the_learning_curves_are_the_tables():
    loss, train, val, *rest = learning_curves(metrics(True), PAPER, "title").axes
    assert not rest
    assert loss.lines[0].get_xydata().tolist() == [[10, -10], [20, -20], [30, -30]]
    assert loss.lines[1].get_xydata().tolist() == [[20, -7]]
    curves = {line.get_label(): line for line in train.lines}
    assert tuple(curves) == PAPER.names
    assert curves["vein"].get_xydata().tolist() == [[10, 0.1], [20, 0.2], [30, 0.3]]
    assert {line.get_label(): line for line in val.lines}["liver"].get_xydata().tolist() == [[20, 0.5]]


def test_many_points_are_drawn_faint_behind_their_smoothed_curve():
    steps = np.arange(50, 10_001, 50)
    table = metrics(False).reindex(range(len(steps))).assign(step=steps)
    table["train/loss"] = -np.random.default_rng(0).uniform(0, 80, len(steps))
    points, curve = learning_curves(table, PAPER, "", -85.1).axes[0].lines
    raw = table["train/loss"].to_numpy()
    assert points.get_ydata().tolist() == raw.tolist()
    assert points.get_alpha() < 1
    # A window of a twentieth of the points; at the ends, what there is of it.
    assert curve.get_xdata().tolist() == steps.tolist()
    assert curve.get_ydata()[5:-5] == pytest.approx(np.convolve(raw, np.full(11, 1 / 11), "valid"))
    assert curve.get_ydata()[-1] == pytest.approx(raw[-6:].mean())


def test_the_axis_of_the_loss_says_how_good_it_can_be():
    assert "at best −mean(w) = −85.1" in learning_curves(metrics(True), PAPER, "", -85.1).axes[0].get_ylabel()
    assert learning_curves(metrics(True), PAPER, "").axes[0].get_ylabel() == "loss; lower is better"


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
