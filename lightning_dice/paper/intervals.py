"""Means over seeds and patients with their 95 % intervals, and sums of such means with signs, as differences are.

Patients are crossed with seeds: every network of a cell is tested on the same ones. So a mean's variance is that of
the seeds' means plus that of the patients' means; the chance of a single score is in both, which errs on the safe side
as Owen's bootstrap of seeds and patients does (The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007). Of that
bootstrap's percentiles too many exclude the truth where there are few seeds (`make simulate` tells how many); so this
is its variance in closed form, with S − 1 in the denominator, and a quantile of Student's t.

Seeds count as independent between cells, though equal numbers share batches and initial weights: what they share
makes a difference smaller than its error says, never larger, and pairing them would halve the degrees of freedom.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from lightning_dice.paper.grid import Cell

CONFIDENCE = 0.95
SIGNIFICANT = 1 - CONFIDENCE
RESAMPLES = 9999
DIGITS = 12  # cells that do not differ have a sum of 10⁻¹⁵, which is no more above zero than below it
LEAST_ERROR = 10.0**-DIGITS
Scores = tuple[list[str], np.ndarray]  # cases, and the Dice (seeds, cases, classes)


@dataclass(frozen=True)
class Estimate:
    """A sum of cells' means with signs.

    Attributes:
        value: the sum.
        low, high: its 95 % interval: over seeds and patients, or with one seed in some cell over patients alone, of
            these networks. NaN with fewer than two patients.
        cases: the patients that it is over.
        seeds: of the cell that has the fewest.
        error: standard error over seeds and patients, NaN with one seed or patient.
        freedom: degrees of freedom of Student's t.
    """

    value: float
    low: float
    high: float
    cases: int
    seeds: int
    error: float = math.nan
    freedom: float = math.nan

    @property
    def p(self) -> float:
        """Two-sided, of the sum being zero; NaN with one seed."""
        return 2 * float(stats.t.sf(abs(self.value) / max(self.error, LEAST_ERROR), self.freedom))

    def share_below(self, bound: float) -> float:
        """Of the t distribution about the value: the one-sided p of the true sum being at most the bound. NaN with one
        seed."""
        return float(stats.t.cdf((bound - self.value) / max(self.error, LEAST_ERROR), self.freedom))


def by_seed(cell: Cell, score: str = "dice") -> Scores:
    """The cases that all finished seeds scored, and the Dice or another score (seeds, cases, classes), NaN where
    undefined."""
    cases: list[str] = []
    scores = []
    for run in cell.finished:
        assert run.scores is not None  # it is finished
        common = run.scores[~run.scores["case"].isin(cell.uncommon)].sort_values(["case", "label"])
        cases = common["case"].unique().tolist()
        scores.append(common[score].to_numpy(float).reshape(len(cases), len(cell.labels)))
    return cases, np.stack(scores) if scores else np.empty((0, 0, len(cell.labels)))


def contrast(found: Sequence[Scores], signs: Sequence[int]) -> Estimate:
    """A sum, with signs, of cells' AVG of Table 1 in percent, such as a difference or one of two gains.

    It is over the cases that all of the cells scored and the classes that all define in some case, so that like is
    compared with like.

    Args:
        found: of each cell, what `by_seed` has.
        signs: a factor for each.
    """
    scored = [set(np.array(cases)[defined_in(dice).any(axis=1)].tolist()) for cases, dice in found]
    common = set.intersection(*scored)
    return estimate([100 * dice[:, [case in common for case in cases]] for cases, dice in found], signs)


def estimate(values: Sequence[np.ndarray], signs: Sequence[int]) -> Estimate:
    """A sum, with signs, of means over classes of their means over cases of their means over seeds.

    The degrees of freedom are those of Welch and Satterthwaite, but no more than the seeds have: where these agree by
    luck, the many patients would lend them theirs.

    Args:
        values: each (seeds, cases, classes), NaN where undefined; cases and classes of all are the same.
        signs: a factor for each, such as 1 and -1 for a difference.

    Returns:
        The sum over the classes that all define in some case; NaN if there is none.
    """
    kept = np.all([defined_in(one).any(axis=0) for one in values], axis=0)
    values = [one[..., kept] for one in values]
    seeds, cases = min(len(one) for one in values), values[0].shape[1]
    if not kept.any():
        return Estimate(math.nan, math.nan, math.nan, 0, seeds)
    value, of_seeds, of_patients = 0.0, [], np.zeros(cases)
    for one, sign in zip(values, signs, strict=True):
        scores = mean_of(one, 0)  # (cases, classes)
        means = mean_of(scores, 0)
        value += sign * means.mean()
        defined = (~np.isnan(scores)).sum(axis=0)
        weights = 1 / (defined * len(means))  # of a score in the sum
        few = np.sqrt(defined * (cases - 1) / (np.maximum(defined - 1, 1) * cases))  # of a class's own n − 1, not all's
        of_patients += sign * np.nansum((scores - means) * weights * few, axis=-1)
        counts = np.maximum((~np.isnan(one)).sum(axis=0), 1)
        of_seeds.append(_variance(np.nansum((one - scores) * weights / counts, axis=(1, 2))) * sign**2)
    value = round(float(value), DIGITS)
    if seeds < 2 or cases < 2:
        low, high = bootstrap_interval([mean_of(one, 0) for one in values], signs)
        return Estimate(value, round(low, DIGITS), round(high, DIGITS), cases, seeds)
    variance = np.array([*of_seeds, _variance(of_patients)])
    free = np.array([*(len(one) - 1 for one in values), cases - 1])
    total, most = variance.sum(), free[:-1].sum()
    freedom = min(total**2 / (variance**2 / free).sum(), most) if total > 0 else most
    error = round(math.sqrt(total), DIGITS)
    width = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Estimate(value, value - width, value + width, cases, seeds, error, float(freedom))


def bootstrap_interval(matrices: Sequence[np.ndarray], signs: Sequence[int]) -> tuple[float, float]:
    """95 % percentile interval over patients of a sum, with signs, of means over classes of their means over cases.

    Resamples patients with all their classes and in all matrices alike, which makes it paired (SciPy's `bootstrap`,
    9,999 times, seeded).

    Args:
        matrices: each (cases, classes), NaN where undefined; the rows of all are the same patients.
        signs: a factor per matrix.

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


def defined_in(dice: np.ndarray) -> np.ndarray:
    """Whether some seed defines it: (seeds, cases, classes) → (cases, classes)."""
    return (~np.isnan(dice)).any(axis=0)


def mean_of(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is defined, NaN of nothing."""
    count = (~np.isnan(values)).sum(axis=axis)
    return np.divide(np.nansum(values, axis=axis), count, where=count > 0, out=np.full(count.shape, np.nan))


def _variance(shares: np.ndarray) -> float:
    """Of a sum, from the shares in it of independent units, without bias: for a mean, the variance of its units by n.

    NaN of one.
    """
    count = len(shares)
    return float((shares**2).sum() * count / (count - 1)) if count > 1 else math.nan


def _signed_mean(matrices: Sequence[np.ndarray], signs: Sequence[int], cases: np.ndarray) -> np.ndarray:
    """Of the drawn cases (…, cases): the mean over classes of the summed means over cases, (…)."""
    total: Any = 0.0
    for matrix, sign in zip(matrices, signs, strict=True):
        # (…, cases, classes) → (…, classes); undefined if it is so in one of them
        drawn = mean_of(np.take(matrix, cases, axis=0), -2)
        # A class that none of the drawn cases has keeps its mean: without it the sum would be of other classes.
        total = total + sign * np.where(np.isnan(drawn), mean_of(matrix, -2), drawn)
    return np.nanmean(total, axis=-1)
