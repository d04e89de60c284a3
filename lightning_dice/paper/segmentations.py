"""The paper's Figures 2 to 4: per weighting, axial slices above surface renderings, truth beside predictions."""

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lightning_dice.data.labels import NAMES
from lightning_dice.paper.grid import Cell
from lightning_dice.paper.slices import Pictured, draw_slice, organ_legend, read_pictured, richest_slice
from lightning_dice.paper.surfaces import bounds_of, render, surfaces_of
from lightning_dice.runs import read_json


def typical_case(cells: Sequence[Cell]) -> str | None:
    """The case with the median of the organs' Dice, averaged over all cells: one patient for all figures."""
    means = organ_means(cells)
    if means.empty:
        return None
    order = means.mean(axis=1).sort_values()
    return str(order.index[len(order) // 2])


def organ_means(cells: Sequence[Cell]) -> pd.DataFrame:
    """Cases × cells: the mean Dice of a case's organs."""
    return pd.DataFrame({c.name: c.matrix()[list(NAMES[1:])].mean(axis=1) for c in cells if c.finished})


def picture(cell: Cell, case: str) -> Pictured | str:
    """A test case with a cell's prediction, the first seed's; or why there is none, such as a file that is missing."""
    first = cell.finished[0]
    try:
        files = read_json(first.run.cases)[case]
        image = nib.load(first.run.prediction(case))
        label, spacing_mm = np.asarray(image.dataobj), image.header.get_zooms()
        window = first.config["data"]["preparation"]["window_hu"]
        return read_pictured(case, files["image"], files["label"], label, spacing_mm, window)
    except KeyError:
        return f"{first.run.cases}: not there, or without {case}"
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
        return str(error)


def weighting_figure(loss: str, pictures: dict[str, Pictured]) -> Figure:
    """One weighting's figure.

    Args:
        loss: the weighting.
        pictures: one case with the predictions of the weighting's cells, by their names; at least one.
    """
    first = next(iter(pictures.values()))
    columns = {"truth": first.truth, **{name: row.prediction for name, row in pictures.items()}}
    surfaces = {name: surfaces_of(label, first.spacing_mm) for name, label in columns.items()}
    bounds_mm = bounds_of(surfaces["truth"] or surfaces_of(np.ones_like(first.truth), first.spacing_mm))
    figure = Figure(figsize=(4.2 * len(columns), 7.4), layout="constrained")
    figure.suptitle(f"{loss} weights, {first.case}")
    axes = figure.subplots(2, len(columns))
    place = richest_slice(first.truth, 2)
    for (name, label), column in zip(columns.items(), axes.T, strict=True):
        draw_slice(column[0], first, label, "axial", place)
        column[0].set_title(name if name == "truth" else f"learning rate {name.rpartition(', ')[2]}", fontsize=10)
        column[1].imshow(render(surfaces[name], bounds_mm))
        column[1].set_axis_off()
    organ_legend(figure)
    return figure
