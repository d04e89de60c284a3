"""What the paper expects of experiments that it did not run, and rivals of its weights, checked at the study's scale.

Unlike the paper's claims, which are about AVG, these are about the mean over the organs. The best rate of a weighting
or rival is that of the best validation Dice, so that the test cases do not choose what they judge.
"""

import math
from collections.abc import Mapping, Sequence

from lightning_dice.paper.grid import Cell
from lightning_dice.paper.intervals import Scores, by_seed
from lightning_dice.paper.observations import UNKNOWN, Key, Observation, Part, check
from lightning_dice.paper.published import RATES, WEIGHTINGS

TWICE = "trainer.max_steps=2400"  # the study's iterations
SMALL_EPS = "optim.eps=1e-12"  # of Adam, whose 1e-8 is above many gradients of the square weights
NORMALIZED = "loss.normalize=mean"
AUGMENTED = "transform=spatial"
RIVALS = {"dice_ce": "Dice with cross-entropy", "generalized_dice": "the generalized Dice of weights per patch"}
LOW, HIGH = RATES
HIGHEST = 0.1


def observe_predictions(cells: Sequence[Cell], start: str) -> list[Observation]:
    """Those of which all cells have scores.

    Args:
        start: KEY=VALUE that all of the cells have, such as `prior=half`, or empty.
    """
    found = {(cell.loss, cell.lr, cell.variant): cell for cell in cells if cell.finished}
    known: dict[Key, Scores] = {}
    for key, cell in found.items():
        cases, dice = by_seed(cell)
        known[key] = cases, dice[..., 1:]
    return [one for one in check(_predictions(found, start), known) if one.answer != UNKNOWN]


def _predictions(cells: Mapping[tuple[str, float, str], Cell], start: str) -> dict[str, tuple[Part, ...]]:
    def key(loss: str, lr: float, setting: str = "") -> Key:
        return loss, lr, ", ".join(sorted(filter(None, (setting, start))))

    def more(text: str, one: Key, other: Key) -> tuple[Part, ...]:
        return (Part(text, {one: 1, other: -1}),)

    claims = {
        f"{TWICE} helps {loss} at {HIGH:g}": more("gain", key(loss, HIGH, TWICE), key(loss, HIGH))
        for loss in ("simple", "square")
    }
    claims[f"a rate of {HIGHEST:g} helps square"] = more("gain", key("square", HIGHEST), key("square", HIGH))
    for loss, rate in zip(WEIGHTINGS, (LOW, HIGH, HIGH), strict=True):
        name = f"augmentation ({AUGMENTED}) helps {loss} at {rate:g}"
        claims[name] = more("gain", key(loss, rate, AUGMENTED), key(loss, rate))
    for setting in (SMALL_EPS, NORMALIZED):
        for rate in RATES:
            claims[f"{setting} helps square at {rate:g}"] = more(
                "gain", key("square", rate, setting), key("square", rate)
            )
    validated = {(loss, lr): _validation(cell) for (loss, lr, variant), cell in cells.items() if variant == start}
    validated = {one: mean for one, mean in validated.items() if not math.isnan(mean)}
    ours = {one: mean for one, mean in validated.items() if one[0] in WEIGHTINGS}
    for rival, name in RIVALS.items():
        theirs = {one: mean for one, mean in validated.items() if one[0] == rival}
        if ours and theirs:
            best, other = max(ours, key=ours.__getitem__), max(theirs, key=theirs.__getitem__)
            text = f"{best[0]} at {best[1]:g} − {rival} at {other[1]:g}"
            claims[f"the best weighting is above {name}, each at its best rate"] = more(text, key(*best), key(*other))
    return claims


def _validation(cell: Cell) -> float:
    """Mean over the seeds; NaN where one did not validate."""
    return sum(run.organs_validation for run in cell.finished) / len(cell.finished)
