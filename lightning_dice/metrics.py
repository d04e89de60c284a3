"""Scores of label maps: Dice, Jaccard, HD95 and surface Dice per case and class; and the learning curves' Dice."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lightning_dice.data.labels import BACKGROUND

# MONAI 1.5 and 1.6 warn of an argument that they pass to themselves.
warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*", category=FutureWarning)

SURFACE_TOLERANCE_MM = 3.0
SCORES = ("dice", "jaccard", "hd95_mm", "surface_dice")


@dataclass(frozen=True)
class ClassScore:
    """One class of one case. Scores are NaN where the class is absent from truth and prediction."""

    label: int
    dice: float
    jaccard: float
    hd95_mm: float
    surface_dice: float
    voxels_true: int
    voxels_pred: int


def score_case(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    num_classes: int,
    surface_tolerance_mm: float = SURFACE_TOLERANCE_MM,
) -> list[ClassScore]:
    """Score a label map against the truth, class by class.

    Surfaces and their distances are MONAI's (`get_edge_surface_distance`): a surface is the voxels of a mask that have
    a face on its outside, beyond the volume counting as outside; distances run between voxel centres. HD95 is the
    larger of the two directed 95th percentiles, surface Dice (NSD, Nikolov et al. 2018) the share of both surfaces'
    voxels within the tolerance; the same as MONAI's `compute_hausdorff_distance` and `compute_surface_dice`.

    A class absent from both is undefined: all scores NaN, not counted in means. One absent from either has Dice,
    Jaccard and surface Dice 0 and the volume's diagonal as HD95, so that missing an organ never improves a mean.

    Args:
        prediction: integer class indices (X, Y, Z).
        truth: the same.
        spacing_mm: voxel size along the axes.
        num_classes: background included; it is scored too.
        surface_tolerance_mm: of the surface Dice.

    Raises:
        ValueError: shapes that differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction of shape {prediction.shape} for a truth of shape {truth.shape}: they must agree")
    diagonal_mm = math.dist((0, 0, 0), np.multiply(truth.shape, spacing_mm))
    scores = []
    for label in range(num_classes):
        pred, true = torch.from_numpy(prediction == label), torch.from_numpy(truth == label)
        sizes = int(true.sum()), int(pred.sum())
        if not any(sizes):
            values = math.nan, math.nan, math.nan, math.nan
        elif not all(sizes):
            values = (0.0, 0.0, diagonal_mm, 0.0)
        else:
            overlap = int((pred & true).sum())
            surface = _surface_scores(pred, true, spacing_mm, surface_tolerance_mm)
            values = (2 * overlap / sum(sizes), overlap / (sum(sizes) - overlap), *surface)
        scores.append(ClassScore(label, *values, *sizes))
    return scores


def _surface_scores(
    prediction: Tensor, truth: Tensor, spacing_mm: Sequence[float], tolerance_mm: float
) -> tuple[float, float]:
    """HD95 in mm and surface Dice of two masks (X, Y, Z) that both hold something."""
    # Here, since a training comes to its scores last, and a prediction has none: MONAI takes a second to import.
    from monai.metrics.utils import get_edge_surface_distance

    _, distances_mm, _ = get_edge_surface_distance(prediction, truth, spacing=tuple(spacing_mm), symmetric=True)
    hd95_mm = max(torch.quantile(d, 0.95).item() for d in distances_mm)
    near = torch.cat(list(distances_mm)) <= tolerance_mm
    return hd95_mm, near.float().mean().item()


def summarize(scores: pd.DataFrame) -> dict[str, Any]:
    """Means over cases per class, as in Table 1, and AVG, MAX and MIN over the classes' means.

    Args:
        scores: a row per case and class, with the columns of `scores.csv`.

    Returns:
        Plain types: `cases`; `classes`, by name, with the mean of each score, undefined cases left out, and how many
        cases count; `avg` (all classes), `avg_without_background`, `max` and `min`. Undefined values are None.
    """
    by_class = scores.groupby(["label", "name"], sort=True)
    means = by_class[list(SCORES)].mean().reset_index("label")
    organs = means[means["label"] != BACKGROUND]
    counted = by_class["dice"].count().droplevel("label")
    return {
        "cases": int(scores["case"].nunique()),
        "classes": {name: {**_plain(row[list(SCORES)]), "cases": int(counted[name])} for name, row in means.iterrows()},
        "avg": _plain(means[list(SCORES)].mean()),
        "avg_without_background": _plain(organs[list(SCORES)].mean()),
        "max": _plain(means[list(SCORES)].max()),
        "min": _plain(means[list(SCORES)].min()),
    }


def _plain(values: pd.Series) -> dict[str, float | None]:
    return {str(name): None if math.isnan(value) else float(value) for name, value in values.items()}


def dice_counts(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Voxels per class in the overlap, the prediction and the target.

    Args:
        prediction: integer class indices below `num_classes`, any shape.
        target: the same.

    Returns:
        int64 (3, L) on the same device, without waiting for it. Counts of several batches may be added up.
    """
    pairs = target.long() * num_classes + prediction
    # Each row counts for itself, as a GPU would queue for 64 places; of at least as many voxels as it has counts, since
    # of 104 classes these would take 170 times the memory of 64 voxels.
    first = next((dim for dim in range(pairs.ndim - 1, 0, -1) if pairs[(0,) * dim].numel() >= num_classes**2), 0)
    pairs = pairs.reshape(-1, math.prod(pairs.shape[first:]))
    confusion = pairs.new_zeros(len(pairs), num_classes**2).scatter_add_(1, pairs, torch.ones_like(pairs)).sum(0)
    confusion = confusion.view(num_classes, num_classes)  # true by predicted
    return torch.stack([confusion.diagonal(), confusion.sum(0), confusion.sum(1)])


def dice_from_counts(counts: Tensor) -> Tensor:
    """Dice per class (L,) from counts (3, L); NaN where a class is in neither."""
    overlap, pred, true = counts
    return 2 * overlap / (pred + true)
