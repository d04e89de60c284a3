"""The paper's Figures 2 to 4: per weighting, axial slices above surface renderings, truth beside predictions."""

import textwrap
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lightning_dice.paper.grid import Cell
from lightning_dice.pictures.escaping import LITERAL
from lightning_dice.pictures.frames import frame
from lightning_dice.pictures.legend import organ_legend
from lightning_dice.pictures.slices import Pictured, draw_slice, read_pictured, richest_slice
from lightning_dice.pictures.surfaces import bounds_of, render, surfaces_of
from lightning_dice.runs import read_json

WORST = 2  # cases per cell that the page lists
TITLE_WIDTH = 48  # characters over a column


def typical_case(cells: Sequence[Cell]) -> str | None:
    """The case with the median of the organs' Dice, averaged over all cells: one patient for all figures.

    It is one that all cells scored, if there is any.
    """
    means = organ_means(cells).dropna(how="all")
    if means.empty:
        return None
    common = means.dropna()
    order = (means if common.empty else common).mean(axis=1).sort_values()
    return str(order.index[len(order) // 2])


def organ_means(cells: Sequence[Cell]) -> pd.DataFrame:
    """Cases × cells: the mean Dice of a case's organs."""
    return pd.DataFrame({c.name: c.matrix().iloc[:, 1:].mean(axis=1) for c in cells if c.finished})


def worst_cases(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Per cell, the cases with the lowest mean organ Dice."""
    means = organ_means(cells)
    return {name: means[name].dropna().sort_values().index[:WORST].tolist() for name in means}


def picture(cell: Cell, case: str) -> Pictured | str:
    """A test case with a cell's prediction, the first seed's; or why there is none: a file, and what is wrong."""
    first = cell.finished[0]
    run, file = first.run, first.run.prediction(case)
    try:
        low, high = map(float, first.config["data"]["preparation"]["window_hu"])
    except (ValueError, KeyError, TypeError):
        return f"{run.config}: no data.preparation.window_hu in it"
    if not run.cases.is_file():
        return f"{run.cases}: not there"
    try:
        files = read_json(run.cases)[case]
        names = files["image"], files["label"]
    except (KeyError, TypeError):
        return f"{run.cases}: no image and label of {case} in it"
    if not file.is_file():
        return f"no label map in {file.parent}"
    try:
        image: Any = nib.load(file)
        label, spacing_mm = np.asarray(image.dataobj), image.header.get_zooms()
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        return f"{file}: broken ({error})"
    try:
        found = read_pictured(case, *names, label, spacing_mm, (low, high), cell.labels)
    except (OSError, EOFError, ValueError, TypeError) as error:
        return f"{' or '.join(map(str, names))}: broken ({error})"
    assert found.truth is not None  # it was read, too
    shapes = {found.hu.shape, found.truth.shape, label.shape}
    if len(shapes) > 1 or label.ndim != 3 or not np.isin((found.truth, label), np.arange(len(cell.labels))).all():
        return f"{file}: broken (no label map of the classes on the grid of {names[0]})"
    return replace(found, truth=found.truth.astype(np.uint8), prediction=label.astype(np.uint8))


def weighting_figure(loss: str, pictures: dict[str, Pictured]) -> Figure:
    """One weighting's figure.

    Args:
        loss: the weighting.
        pictures: one case with the predictions of the weighting's cells, by their settings; at least one.
    """
    first = next(iter(pictures.values()))
    assert first.truth is not None  # see `picture`
    columns = {"truth": first.truth, **{name: row.prediction for name, row in pictures.items()}}
    surfaces = {name: surfaces_of(label, first.labels, first.spacing_mm) for name, label in columns.items()}
    whole = np.ones_like(first.truth)
    bounds_mm = bounds_of(surfaces["truth"] or surfaces_of(whole, first.labels, first.spacing_mm))
    figure = Figure(figsize=(4.2 * len(columns), 7.4), layout="constrained")
    figure.suptitle(f"{loss} weights, {first.case}", **LITERAL)
    axes = figure.subplots(2, len(columns))
    place = richest_slice(first.truth, 2)
    drawn = {index for label in columns.values() for index in np.unique(label).tolist()}
    for (name, label), column in zip(columns.items(), axes.T, strict=True):
        draw_slice(column[0], first, label, "axial", place)
        column[1].imshow(render(surfaces[name], bounds_mm))
        what = "truth" if name == "truth" else "prediction"
        title = what if name == what else f"{what}, learning rate {name}"
        frame(column[0], what, textwrap.fill(title, TITLE_WIDTH), 11)
        frame(column[1], what)
    organ_legend(figure, first.labels, drawn)
    return figure
