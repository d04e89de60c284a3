"""The paper's claims, checked on a grid by intervals over patients, and on the printed table by its means."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_dice.paper.grid import Cell
from lightning_dice.paper.published import RATES, TABLE1
from lightning_dice.paper.statistics import LEAST_CASES, contrast

STABLE_POINTS = 5.0  # a change of AVG within this counts as stable; the paper's uniform cells differ by 1.9
LOW, HIGH = RATES
YES, NO, UNDECIDED, UNKNOWN = "yes", "no", "undecided", "not known yet"
Terms = Mapping[tuple[str, float], int]  # factors of the cells' AVG


@dataclass(frozen=True)
class Part:
    """A sum of AVGs that a claim wants between two bounds, in points."""

    text: str
    terms: Terms
    above: float = 0.0
    below: float = math.inf

    def answer(self, low: float, high: float) -> str:
        """Yes or no if an interval lies wholly within the bounds or wholly outside."""
        if self.above < low and high < self.below:
            return YES
        return NO if high < self.above or low > self.below else UNDECIDED


@dataclass(frozen=True)
class Observation:
    """A claim of the paper's, the answer, and the figures behind it: differences of AVG in points."""

    claim: str
    answer: str
    figures: str


def _gain(loss: str) -> dict[tuple[str, float], int]:
    return {(loss, HIGH): 1, (loss, LOW): -1}


def _more(loss: str, other: str) -> dict[tuple[str, float], int]:
    return _gain(loss) | {key: -sign for key, sign in _gain(other).items()}


CLAIMS = {
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


def observe(cells: Sequence[Cell]) -> list[Observation]:
    """Check the claims on the paper's own cells of a grid; a cell with further settings is not one of them.

    A claim holds if the paired 95 % interval over patients of each of its differences lies where it says, and does not
    if one lies wholly elsewhere. Anything else is undecided, as is everything on fewer than LEAST_CASES common cases.
    """
    known = {(cell.loss, cell.lr): cell for cell in cells if cell.printed and cell.finished}
    return [_observe(claim, parts, known) for claim, parts in CLAIMS.items()]


def observe_printed() -> list[Observation]:
    """What the printed means of Table 1 say, by their directions alone: the paper gives no intervals."""
    observations = []
    for claim, parts in CLAIMS.items():
        values = [sum(sign * TABLE1[key][8] for key, sign in part.terms.items()) for part in parts]
        is_so = all(part.answer(value, value) == YES for part, value in zip(parts, values, strict=True))
        figures = "; ".join(f"{part.text} {value:+.1f}" for part, value in zip(parts, values, strict=True))
        observations.append(Observation(claim, f"as printed: {YES if is_so else NO}", figures))
    return observations


def _observe(claim: str, parts: Sequence[Part], known: Mapping[tuple[str, float], Cell]) -> Observation:
    needed = dict.fromkeys(key for part in parts for key in part.terms)
    if missing := [f"{loss}, {lr:g}" for loss, lr in needed if (loss, lr) not in known]:
        return Observation(claim, UNKNOWN, f"without scores: {'; '.join(missing)}")
    answers, figures, counts = [], [], set()
    for part in parts:
        found = contrast([known[key] for key in part.terms], list(part.terms.values()))
        is_enough = found.cases >= LEAST_CASES
        answers.append(part.answer(found.low, found.high) if is_enough else UNDECIDED)
        figures.append(f"{part.text} {found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})" if is_enough else
                       f"{part.text} {found.value:+.1f}" if found.cases else f"{part.text} –")  # fmt: skip
        counts.add(found.cases)
    answer = NO if NO in answers else YES if set(answers) == {YES} else UNDECIDED
    few = f", too few for an interval that decides; {LEAST_CASES} would do" if min(counts) < LEAST_CASES else ""
    cases = " and ".join(str(count) for count in sorted(counts))
    return Observation(claim, answer, f"{'; '.join(figures)}; {cases} cases in common{few}")
