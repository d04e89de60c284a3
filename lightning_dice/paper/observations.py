"""The paper's claims about its grid, checked on the numbers of a grid: yes or no, with the figures."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lightning_dice.paper.published import RATES, TABLE1, WEIGHTINGS

STABLE_POINTS = 5.0  # a change of the mean Dice below this counts as stable; the paper's uniform cells differ by 1.9
LOW, HIGH = RATES
Means = Mapping[tuple[str, float], float]


@dataclass(frozen=True)
class Observation:
    """A claim of the paper's, whether it holds (None where cells are missing), and the figures behind the answer."""

    claim: str
    holds: bool | None
    figures: str

    @property
    def answer(self) -> str:
        return {True: "yes", False: "no", None: "not known yet"}[self.holds]


def observe(means: Means) -> list[Observation]:
    """Check the claims.

    Args:
        means: AVG of Table 1 in percent (all eight classes) by weighting and rate; NaN or absent where there is none.
    """
    means = {key: means.get(key, math.nan) for key in TABLE1}
    at_low = {w: means[w, LOW] for w in WEIGHTINGS}
    gains = {w: means[w, HIGH] - means[w, LOW] for w in WEIGHTINGS}

    def check(claim: str, values: dict[str, float], holds: Callable[[], bool], figures: str) -> Observation:
        known = not any(map(math.isnan, values.values()))
        return Observation(claim, bool(holds()) if known else None, figures)

    averages = "AVG: " + ", ".join(f"{w} {value:.1f}" for w, value in at_low.items()).replace("nan", "–")
    changes = "change of AVG: " + ", ".join(f"{w} {value:+.1f}" for w, value in gains.items()).replace("+nan", "–")
    square, uniform = ({w: gains[w]} for w in ("square", "uniform"))
    stable = f"uniform is stable across rates (less than {STABLE_POINTS:g} points apart)"
    return [
        check(f"uniform is best at {LOW:g}", at_low, lambda: max(at_low, key=at_low.get) == "uniform", averages),
        check(f"simple improves most from {LOW:g} to {HIGH:g}", gains,
              lambda: max(gains, key=gains.get) == "simple", changes),
        check(f"square improves from {LOW:g} to {HIGH:g}", square, lambda: gains["square"] > 0, changes),
        check(stable, uniform, lambda: abs(gains["uniform"]) < STABLE_POINTS, changes),
    ]  # fmt: skip


def published_means() -> dict[tuple[str, float], float]:
    """AVG of the printed table, to check the claims on it too."""
    return {key: column[8] for key, column in TABLE1.items()}
