"""What Table 1 lacks: intervals of its means, and which of its differences are more than chance."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lightning_dice.paper.grid import Cell

CONFIDENCE = 0.95
RESAMPLES = 9999
ORGANS_MEAN = "AVG organs"
SIGNIFICANT = 1 - CONFIDENCE


@dataclass(frozen=True)
class Contrast:
    """A sum of cells' means with signs: its value, its 95 % interval, and the patients that all of the cells share."""

    value: float
    low: float
    high: float
    cases: int


def bootstrap_interval(matrix: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval over patients of the mean over classes of their means over cases.

    So one column gives a class's own interval, and several that of their average; see `contrast_interval`.

    Args:
        matrix: (cases, classes), NaN where undefined.

    Returns:
        Its bounds; NaN with fewer than two defined cases.
    """
    return contrast_interval([matrix[~np.isnan(matrix).all(axis=1)]], [1])


def contrast_interval(matrices: Sequence[np.ndarray], signs: Sequence[int]) -> tuple[float, float]:
    """95 % percentile interval over patients of a sum, with signs, of means as `bootstrap_interval` has them.

    Resamples patients with all their classes and in all matrices alike, which makes it paired (SciPy's `bootstrap`,
    9,999 times, seeded).

    Args:
        matrices: each (cases, classes), NaN where undefined; the rows of all are the same patients.
        signs: a factor per matrix, such as 1 and -1 for a difference.

    Returns:
        Its bounds; NaN with fewer than two cases.
    """
    count = len(matrices[0])
    if count < 2:
        return math.nan, math.nan
    found = stats.bootstrap(
        (np.arange(count),),
        lambda cases, axis: _signed_mean(matrices, signs, cases),
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
        batch=500,
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def contrast(cells: Sequence[Cell], signs: Sequence[int]) -> Contrast:
    """A sum, with signs, of cells' AVG of Table 1 in percent, such as a difference or one of two gains.

    It is over the cases that all of the cells scored and the classes that all define in some case, so that like is
    compared with like. The unit of the interval is the patient.
    """
    matrices = [cell.matrix() for cell in cells]
    cases = set.intersection(*(set(matrix.index[matrix.notna().any(axis=1)]) for matrix in matrices))
    common = [matrix.loc[sorted(cases)] * 100 for matrix in matrices]
    values = [matrix[_defined(common)].to_numpy() for matrix in common]
    if not values[0].size:
        return Contrast(math.nan, math.nan, math.nan, 0)
    value = _signed_mean(values, signs, np.arange(len(cases)))
    # Cells that do not differ have a sum of 10⁻¹⁵, which is no more above zero than below it.
    mean, low, high = (round(float(v), 9) for v in (value, *contrast_interval(values, signs)))
    return Contrast(mean, low, high, len(cases))


def _signed_mean(matrices: Sequence[np.ndarray], signs: Sequence[int], cases: np.ndarray) -> np.ndarray:
    """Of the drawn cases (…, cases): the mean over classes of the summed means over cases, (…)."""
    total = 0.0
    for matrix, sign in zip(matrices, signs, strict=True):
        drawn = np.take(matrix, cases, axis=0)  # (…, cases, classes)
        count = (~np.isnan(drawn)).sum(axis=-2)
        means = np.divide(np.nansum(drawn, axis=-2), count, where=count > 0, out=np.full(count.shape, np.nan))
        total = total + sign * means  # (…, classes); undefined if it is so in one of them
    return np.nanmean(total, axis=-1)


def _defined(matrices: Sequence[pd.DataFrame]) -> list[str]:
    """The classes that each matrix defines in some case."""
    return [name for name in matrices[0] if all(matrix[name].notna().any() for matrix in matrices)]


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


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979): adjusted p values, in the given order."""
    p = np.asarray(p, float)
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))).clip(max=1.0)
    return adjusted


def compare_cells(cells: Sequence[Cell]) -> pd.DataFrame:
    """Every pair of cells, for each class and for the mean over the organs, on the cases that both have scored.

    The mean is over the organs that both cells define in some of these cases.

    Returns:
        `row, cell_a, cell_b, cases, mean_a, mean_b, difference, p, p_holm, rank_biserial`; Dice in [0, 1]. Holm's
        correction is over the pairs of a row.
    """
    matrices = {cell.name: cell.matrix() for cell in cells if cell.finished}
    names = cells[0].labels.names
    pairs: dict[str, list[tuple[Any, ...]]] = {row: [] for row in (*names, ORGANS_MEAN)}
    for (name_a, a), (name_b, b) in itertools.combinations(matrices.items(), 2):
        cases = a.index.intersection(b.index)
        common = [matrix.loc[cases] for matrix in (a, b)]
        organs = [name for name in _defined(common) if name in names[1:]]
        rows = {name: [matrix[name] for matrix in common] for name in names}
        rows[ORGANS_MEAN] = [matrix[organs].mean(axis=1) for matrix in common]
        for row, columns in rows.items():
            both = pd.concat(columns, axis=1).dropna().to_numpy(float)
            if not len(both):
                continue
            p, effect = wilcoxon(*both.T)
            mean_a, mean_b = both.mean(axis=0)
            pairs[row].append((row, name_a, name_b, len(both), mean_a, mean_b, mean_a - mean_b, p, effect))
    columns = ["row", "cell_a", "cell_b", "cases", "mean_a", "mean_b", "difference", "p", "rank_biserial"]
    tables = []
    for found in pairs.values():
        table = pd.DataFrame(found, columns=columns)
        table.insert(8, "p_holm", holm(table["p"]))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def ranking(cells: Sequence[Cell], pairs: pd.DataFrame) -> list[str]:
    """A sentence per cell, by mean organ Dice, with the cells that it cannot be told apart from.

    Where cells were tested on different cases or organs, which makes the order no comparison, each sentence says on
    how many.
    """
    matrices = {cell.name: cell.matrix()[list(cell.labels.names[1:])] for cell in cells if len(cell.scores)}
    means = {name: float(matrix.mean().mean()) for name, matrix in matrices.items()}
    tested = {name: (*matrix.index, *_defined([matrix])) for name, matrix in matrices.items()}
    is_alike = len(set(tested.values())) <= 1
    of_means = pairs[pairs["row"] == ORGANS_MEAN]
    p = {frozenset(pair): value for *pair, value in of_means[["cell_a", "cell_b", "p_holm"]].itertuples(index=False)}
    sentences = []
    for name in sorted(means, key=lambda n: -means[n]):
        others = [other for other in means if other != name]
        unlike = [other for other in others if frozenset((name, other)) not in p]
        same = [other for other in others if p.get(frozenset((name, other)), 0) >= SIGNIFICANT]
        told = [f"not distinguishable from {'; '.join(same)}"] if same else []
        told += [f"not comparable with {'; '.join(unlike)} (no test case in common)"] if unlike else []
        if not told:
            told = ["distinguishable from all others" if others else "with no other to compare"]
        matrix = matrices[name]
        where = "" if is_alike else f" (of {len(matrix)} cases and {len(_defined([matrix]))} organs)"
        sentences.append(f"{name}: mean organ Dice {100 * means[name]:.1f} %{where}, {', '.join(told)}")
    return sentences


def smallest_p(cases: int) -> float:
    """The smallest two-sided p that the signed-rank test can give with so many cases: one of 2^cases sign patterns."""
    return min(1.0, 2.0 ** (1 - cases))


# As many as the signed-rank test needs to reach 0.05 at all. A percentile bootstrap of fewer leaves out zero whenever
# they all lie on one side of it, which five cases do by chance once in 16 times.
LEAST_CASES = next(cases for cases in itertools.count(1) if smallest_p(cases) < SIGNIFICANT)
