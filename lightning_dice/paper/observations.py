"""The paper's claims, checked on a grid by tests over seeds and patients, and on the printed table by its means."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_dice.paper.grid import Cell
from lightning_dice.paper.intervals import SIGNIFICANT, Estimate, Scores, by_seed, contrast
from lightning_dice.paper.published import RATES, TABLE1
from lightning_dice.paper.statistics import LEAST_CASES, holm

STABLE_POINTS = 5.0  # a change of AVG within this counts as stable; the paper's uniform cells differ by 1.9
LOW, HIGH = RATES
YES, NO, UNDECIDED, UNKNOWN = "yes", "no", "undecided", "not known yet"
ONE_SEED = "one seed: the training's own chance is unknown; add seed=0,1,2"
Key = tuple[str, float] | tuple[str, float, str]  # loss, rate, and further settings if there are any
Terms = Mapping[Key, int]  # factors of the cells' means


@dataclass(frozen=True)
class Part:
    """A sum of cells' means that a claim wants between two bounds, in points."""

    text: str
    terms: Terms
    above: float = 0.0
    below: float = math.inf

    def holds(self, value: float) -> bool:
        return self.above < value < self.below

    def tails(self, found: Estimate) -> tuple[float, float]:
        """One-sided p of the true sum being at most the lower bound, and at least the upper one; NaN with one seed."""
        return found.share_below(self.above), 1 - found.share_below(self.below)


@dataclass(frozen=True)
class Observation:
    """A claim and what a grid says of it.

    Attributes:
        claim: in words.
        answer: yes, no, undecided, or what keeps it from being known.
        figures: what is behind it: differences of means in points.
        probability: that the claim holds, of several parts at most that of the least probable one: the share, between
            the part's bounds, of the t distribution about what was measured, as a Bayesian without prior knowledge has
            it. NaN where it is unknown.
    """

    claim: str
    answer: str
    figures: str
    probability: float = math.nan

    @property
    def told(self) -> str:
        """The answer with its probability."""
        return self.answer + ("" if math.isnan(self.probability) else f", probability {_percent(self.probability)}")


@dataclass(frozen=True)
class _Tested:
    """A claim's parts as found, with the p of yes and of no."""

    claim: str
    parts: Sequence[tuple[Part, Estimate]]
    is_enough: bool
    missing: Sequence[Key] = ()
    p_yes: float = math.nan
    p_no: float = math.nan


def _gain(loss: str) -> dict[Key, int]:
    return {(loss, HIGH): 1, (loss, LOW): -1}


def _more(loss: str, other: str) -> dict[Key, int]:
    return _gain(loss) | {key: -sign for key, sign in _gain(other).items()}


CLAIMS: dict[str, tuple[Part, ...]] = {
    f"uniform is best at {LOW:g}": (
        Part("uniform − simple", {("uniform", LOW): 1, ("simple", LOW): -1}),
        Part("uniform − square", {("uniform", LOW): 1, ("square", LOW): -1}),
    ),
    f"simple improves most from {LOW:g} to {HIGH:g}": (
        Part("gain of simple", _gain("simple")),
        Part("that − gain of uniform", _more("simple", "uniform")),
        Part("that − gain of square", _more("simple", "square")),
    ),
    f"square improves from {LOW:g} to {HIGH:g}": (Part("gain of square", _gain("square")),),
    f"uniform is stable across rates (less than {STABLE_POINTS:g} points apart)": (
        Part("change of uniform", _gain("uniform"), -STABLE_POINTS, STABLE_POINTS),
    ),
}


def observe(cells: Sequence[Cell], variant: str = "") -> list[Observation]:
    """Check the paper's claims, which are about AVG, on a grid's six cells with these further settings, or with none as
    the paper's own."""
    of_grid = [cell for cell in cells if cell.variant == variant and (cell.loss, cell.lr) in TABLE1]
    return check(CLAIMS, {(cell.loss, cell.lr): by_seed(cell) for cell in of_grid if cell.finished})


def check(claims: Mapping[str, Sequence[Part]], known: Mapping[Key, Scores]) -> list[Observation]:
    """Check claims on the cells that have scores.

    A claim holds if each of its parts lies within its bounds, and does not if one lies without, by tests over seeds and
    patients. For yes the largest of the parts' p counts (intersection-union test, Berger 1982), for no the smallest
    times their number; the lesser of both, doubled, is corrected by Holm over the claims, so that at most 5 % of grids
    have a wrong answer. Anything else is undecided, as is everything with one seed in some cell or on fewer than
    LEAST_CASES common cases.
    """
    tested = [_test(claim, parts, known) for claim, parts in claims.items()]
    corrected = holm([min(1.0, 2 * min(one.p_yes, one.p_no)) if one.is_enough else math.nan for one in tested])
    return [_observation(one, p) for one, p in zip(tested, corrected.tolist(), strict=True)]


def observe_printed() -> list[Observation]:
    """What the printed means of Table 1 say, by their directions alone: the paper gives no intervals."""
    observations = []
    for claim, parts in CLAIMS.items():
        values = [sum(sign * TABLE1[loss, lr][8] for (loss, lr, *_), sign in part.terms.items()) for part in parts]
        is_so = all(part.holds(value) for part, value in zip(parts, values, strict=True))
        figures = "; ".join(f"{part.text} {value:+.1f}" for part, value in zip(parts, values, strict=True))
        observations.append(Observation(claim, f"as printed: {YES if is_so else NO}", figures))
    return observations


def _test(claim: str, parts: Sequence[Part], known: Mapping[Key, Scores]) -> _Tested:
    needed = dict.fromkeys(key for part in parts for key in part.terms)
    if missing := [key for key in needed if key not in known]:
        return _Tested(claim, [], False, missing)
    found = [(part, contrast([known[key] for key in part.terms], list(part.terms.values()))) for part in parts]
    if any(one.cases < LEAST_CASES or one.seeds < 2 for _, one in found):
        return _Tested(claim, found, False)
    tails = [part.tails(one) for part, one in found]
    p_no = len(tails) * min(1 - max(below_and_above) for below_and_above in tails)
    return _Tested(claim, found, True, p_yes=max(map(max, tails)), p_no=p_no)


def _observation(tested: _Tested, p: float) -> Observation:
    if tested.missing:
        missing = [", ".join((loss, f"{lr:g}", *further)) for loss, lr, *further in tested.missing]
        return Observation(tested.claim, UNKNOWN, f"without scores: {'; '.join(missing)}")
    figures, probabilities = [], []
    for part, found in tested.parts:
        told = f"{part.text} " + (f"{found.value:+.1f}" if found.cases else "–")
        interval = f"{found.low:+.1f} to {found.high:+.1f}"
        if tested.is_enough:
            probabilities.append(1 - sum(part.tails(found)))
            told += f" ({interval}, probability {_percent(probabilities[-1])})"
        elif found.cases >= LEAST_CASES:
            told += f" ({interval}{' over patients alone' if found.seeds < 2 else ''})"
        figures.append(told)
    cases, seeds = ({getattr(found, unit) for _, found in tested.parts} for unit in ("cases", "seeds"))
    end = f"{' and '.join(map(str, sorted(cases)))} cases in common"
    end += f", too few for an answer; {LEAST_CASES} would do" if min(cases) < LEAST_CASES else ""
    end += f"; {ONE_SEED}" if min(seeds) < 2 else f", at least {min(seeds)} seeds of each cell"
    if not tested.is_enough:
        return Observation(tested.claim, UNDECIDED, f"{'; '.join(figures)}; {end}")
    answer = UNDECIDED if p >= SIGNIFICANT else YES if tested.p_yes < tested.p_no else NO
    end += f"; {f'p {p:.2g}' if p >= 0.0001 else 'p < 0.0001'} after Holm's correction"
    return Observation(tested.claim, answer, f"{'; '.join(figures)}; {end}", min(probabilities))


def _percent(share: float) -> str:
    """Never 0 % or 100 %, which no finite sample gives."""
    if 0.001 <= share <= 0.999:
        return f"{100 * share:.1f} %"
    return "below 0.1 %" if share < 0.5 else "above 99.9 %"
