"""What Table 1 lacks: intervals of its means, and which of its differences are more than chance."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from lightning_dice.data.labels import NAMES
from lightning_dice.paper.grid import Cell

CONFIDENCE = 0.95
RESAMPLES = 9999
ORGANS_MEAN = "AVG organs"
SIGNIFICANT = 1 - CONFIDENCE


def bootstrap_interval(matrix: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval over patients of the mean over classes of their means over cases.

    Resamples patients with all their classes (SciPy's `bootstrap`, 9,999 times, seeded), so one column gives a class's
    own interval, and several that of their average.

    Args:
        matrix: (cases, classes), NaN where undefined.

    Returns:
        Its bounds; NaN with fewer than two defined cases.
    """
    matrix = matrix[~np.isnan(matrix).all(axis=1)]
    if len(matrix) < 2:
        return math.nan, math.nan

    def mean(cases: np.ndarray, axis: int) -> np.ndarray:
        drawn = np.take(matrix, cases, axis=0)  # (…, cases, classes)
        count = (~np.isnan(drawn)).sum(axis=-2)
        means = np.divide(np.nansum(drawn, axis=-2), count, where=count > 0, out=np.full(count.shape, np.nan))
        return np.nanmean(means, axis=-1)

    found = stats.bootstrap(
        (np.arange(len(matrix)),),
        mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
        batch=500,
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def wilcoxon(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Two-sided paired Wilcoxon signed-rank test of a − b, and its effect size.

    Zero differences are left out (SciPy's `zero_method="wilcox"`). The effect size is the matched-pairs rank-biserial
    correlation, the share of the ranks' sum in favour of a minus that in favour of b (Kerby 2014).

    Args:
        a, b: values of the same cases, none undefined.

    Returns:
        p, 1 where nothing differs, and the correlation in [−1, 1].
    """
    difference = a - b
    difference = difference[difference != 0]
    if not len(difference):
        return 1.0, 0.0
    ranks = stats.rankdata(abs(difference))
    return float(stats.wilcoxon(difference).pvalue), float((ranks * np.sign(difference)).sum() / ranks.sum())


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction (1979): adjusted p values, in the given order."""
    p = np.asarray(p, float)
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))).clip(max=1.0)
    return adjusted


def compare_cells(cells: Sequence[Cell]) -> pd.DataFrame:
    """Every pair of cells, for each class and for the mean over the organs, on the cases that both have scored.

    Returns:
        `row, cell_a, cell_b, cases, mean_a, mean_b, difference, p, p_holm, rank_biserial`; Dice in [0, 1]. Holm's
        correction is over the pairs of a row.
    """
    matrices = {cell.name: cell.matrix() for cell in cells if cell.finished}
    for matrix in matrices.values():
        matrix[ORGANS_MEAN] = matrix[list(NAMES[1:])].mean(axis=1)
    tables = []
    for row in (*NAMES, ORGANS_MEAN):
        pairs = []
        for (name_a, a), (name_b, b) in itertools.combinations(matrices.items(), 2):
            both = pd.concat([a[row], b[row]], axis=1, join="inner").dropna().to_numpy()
            if not len(both):
                continue
            p, effect = wilcoxon(*both.T)
            mean_a, mean_b = both.mean(axis=0)
            pairs.append((row, name_a, name_b, len(both), mean_a, mean_b, mean_a - mean_b, p, effect))
        columns = ["row", "cell_a", "cell_b", "cases", "mean_a", "mean_b", "difference", "p", "rank_biserial"]
        table = pd.DataFrame(pairs, columns=columns)
        table.insert(8, "p_holm", holm(table["p"]))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def ranking(cells: Sequence[Cell], pairs: pd.DataFrame) -> list[str]:
    """A sentence per cell, by mean organ Dice, with the cells that it cannot be told apart from."""
    means = {c.name: float(c.matrix()[list(NAMES[1:])].mean().mean()) for c in cells if c.finished}
    of_means = pairs[pairs["row"] == ORGANS_MEAN]
    sentences = []
    for name in sorted(means, key=lambda n: -means[n]):
        own = of_means[(of_means["cell_a"] == name) | (of_means["cell_b"] == name)]
        same = own[own["p_holm"] >= SIGNIFICANT]
        others = [b if a == name else a for a, b in zip(same["cell_a"], same["cell_b"], strict=True)]
        told = "distinguishable from all others" if not others else f"not distinguishable from {'; '.join(others)}"
        sentences.append(f"{name}: mean organ Dice {100 * means[name]:.1f} %, {told}")
    return sentences


def smallest_p(cases: int) -> float:
    """The smallest two-sided p that the signed-rank test can give with so many cases: one of 2^cases sign patterns."""
    return min(1.0, 2.0 ** (1 - cases))
