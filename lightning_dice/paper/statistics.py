"""Which differences between cells are more than chance: those of networks over patients, of weightings over seeds."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lightning_dice.paper.grid import Cell, first_few
from lightning_dice.paper.intervals import SIGNIFICANT, by_seed, defined_in, estimate, mean_of

ORGANS_MEAN = "AVG organs"
COLUMNS = (
    "row", "cell_a", "cell_b", "cases", "seeds_a", "seeds_b", "mean_a", "mean_b", "difference", "low", "high",
    "p_weightings", "p_weightings_holm", "p_networks", "p_networks_holm", "rank_biserial",
)  # fmt: skip


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
    """Holm's step-down correction (1979): adjusted p values, in the given order; NaN is no test and stays."""
    p = np.asarray(p, float)
    count = int((~np.isnan(p)).sum())
    order = np.argsort(p)[:count]  # NaN comes last
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.maximum.accumulate(p[order] * (count - np.arange(count))).clip(max=1.0)
    return adjusted


def compare_cells(cells: Sequence[Cell]) -> pd.DataFrame:
    """Every pair of cells, for each class and for the mean over the organs, on the cases that both have scored.

    The mean is over the organs that both cells define in some of these cases. Two questions are answered: whether the
    weightings (or rates) differ, which takes at least two seeds of each and has seeds and patients as its units (see
    `intervals`); and whether these trained networks do, a seed's or the mean of several, by the paired signed-rank test
    over patients, which says nothing of the next seed.

    Returns:
        COLUMNS; Dice in [0, 1]. `low` and `high` are the 95 % interval of the difference between the weightings, NaN
        with one seed as their p is. Holm's correction is over the pairs of a row.
    """
    found = {cell.name: by_seed(cell) for cell in cells if cell.finished}
    names = cells[0].labels.names
    pairs: dict[str, list[tuple[Any, ...]]] = {row: [] for row in (*names, ORGANS_MEAN)}
    for (name_a, (cases_a, a)), (name_b, (cases_b, b)) in itertools.combinations(found.items(), 2):
        cases = set(cases_a) & set(cases_b)
        common = [dice[:, [case in cases for case in own]] for own, dice in ((cases_a, a), (cases_b, b))]
        organs = np.all([defined_in(dice).any(axis=0) for dice in common], axis=0) & (np.arange(len(names)) > 0)
        rows = {name: [dice[..., [index]] for dice in common] for index, name in enumerate(names)}
        rows[ORGANS_MEAN] = [dice[..., organs] for dice in common]
        for row, both in rows.items():
            seen = np.all([defined_in(dice).any(axis=-1) for dice in both], axis=0)
            if not seen.any():
                continue
            both = [dice[:, seen] for dice in both]  # (seeds, cases, classes)
            of_a, of_b = (mean_of(mean_of(dice, 2), 0) for dice in both)
            counts = int(seen.sum()), len(a), len(b)
            # Of the classes' means, as in Table 1: of the cases' means it would be another where cases lack organs.
            mean_a, mean_b = (float(np.nanmean(mean_of(mean_of(dice, 0), 0))) for dice in both)
            means = mean_a, mean_b, mean_a - mean_b
            between = (np.nan, np.nan, np.nan)
            if min(len(a), len(b)) > 1:
                difference = estimate(both, [1, -1])
                between = difference.low, difference.high, difference.p
            p, effect = wilcoxon(of_a, of_b)
            pairs[row].append((row, name_a, name_b, *counts, *means, *between, np.nan, p, np.nan, effect))
    tables = []
    for rows_of in pairs.values():
        table = pd.DataFrame(rows_of, columns=COLUMNS)
        for column in ("p_weightings", "p_networks"):
            table[f"{column}_holm"] = holm(table[column].to_numpy(float))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def ranking(cells: Sequence[Cell], pairs: pd.DataFrame) -> list[str]:
    """A sentence per cell, by mean organ Dice, with the cells that it cannot be told apart from.

    Cells with several seeds each are told apart by the test between weightings, others as the networks that they are.
    Where cells were tested on different cases or organs, which makes the order no comparison, each sentence says on
    how many.
    """
    matrices = {cell.name: cell.matrix()[list(cell.labels.names[1:])] for cell in cells if len(cell.scores)}
    means = {name: float(matrix.mean().mean()) for name, matrix in matrices.items()}
    organs = {name: [organ for organ in matrix if matrix[organ].notna().any()] for name, matrix in matrices.items()}
    is_alike = len({(*matrix.index, *organs[name]) for name, matrix in matrices.items()}) <= 1
    tests = pairs[pairs["row"] == ORGANS_MEAN].set_index(["cell_a", "cell_b"])
    is_against = tests["rank_biserial"] * tests["difference"] < 0  # most cases are for the cell of the lower mean
    tests["p_networks_holm"] = tests["p_networks_holm"].mask(is_against, 1.0)
    p = {
        kind: {frozenset(pair): value for pair, value in tests[f"p_{kind}_holm"].dropna().items()}
        for kind in ("weightings", "networks")
    }
    sentences = []
    ranked = sorted((name for name, mean in means.items() if not np.isnan(mean)), key=lambda n: -means[n])
    for name in ranked:
        others = [frozenset((name, other)) for other in ranked if other != name]
        as_networks = [pair for pair in others if pair not in p["weightings"] and pair in p["networks"]]
        as_weightings = [pair for pair in others if pair in p["weightings"]]
        told = []
        for kind, tested, how in (
            ("weightings", as_weightings, ""),
            ("networks", as_networks, " (these networks, not the weightings)"),
        ):
            if same := [pair for pair in tested if p[kind][pair] >= SIGNIFICANT]:
                told.append(f"not distinguishable from {_others(name, same)}{how}")
            elif tested:
                them = "all others" if len(tested) == len(others) else _others(name, tested)
                told.append(f"distinguishable from {them}{how}")
        if unlike := [pair for pair in others if pair not in p["networks"]]:
            told.append(f"not comparable with {_others(name, unlike)} (no test case in common)")
        matrix = matrices[name]
        where = "" if is_alike else f" (of {len(matrix)} cases and {len(organs[name])} organs)"
        end = ", ".join(told or ["with no other to compare"])
        sentences.append(f"{name}: mean organ Dice {100 * means[name]:.1f} %{where}, {end}")
    sentences += [f"{name}: no organ in its test cases" for name in means if name not in ranked]
    return sentences


def _others(name: str, pairs: Sequence[frozenset[str]]) -> str:
    return first_few([other for pair in pairs for other in pair - {name}])


def smallest_p(cases: int) -> float:
    """The smallest two-sided p that the signed-rank test can give with so many cases: one of 2^cases sign patterns."""
    return min(1.0, 2.0 ** (1 - cases))


# As many as the signed-rank test needs to reach 0.05 at all. A percentile bootstrap of fewer leaves out zero whenever
# they all lie on one side of it, which five cases do by chance once in 16 times.
LEAST_CASES = next(cases for cases in itertools.count(1) if smallest_p(cases) < SIGNIFICANT)
