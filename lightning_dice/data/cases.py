"""What a data set is to the rest: cases, and which of them train, validate and test."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_dice.errors import InputError


@dataclass(frozen=True)
class LabelFile:
    """A label image and what its values mean: pairs of (value in the file, our class index).

    Every value that may stand in the file is listed; organs that are not ours map to background. Several binary
    masks of one case are several label files, painted in their order.
    """

    path: Path
    ids: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Case:
    """One patient's CT with its labels, as files. The id is unique in its data set and stands for the patient."""

    id: str
    image: Path
    labels: tuple[LabelFile, ...]


@dataclass(frozen=True)
class Split:
    """Case ids by their part, disjoint, each in the order of the data set."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def split_cases(ids: Sequence[str], test: float = 0.1, validation: float = 0.1, seed: int = 0) -> Split:
    """Draw a seeded random split by patient.

    Args:
        ids: unique case ids; their order does not matter.
        test: share of all cases for testing, in [0, 1); rounded down, but at least one case unless it is 0. A tenth of
            the paper's 377 patients are its 37 test patients.
        validation: share of the remaining cases, likewise; they serve the curves and the best checkpoint.
        seed: of the draw.

    Raises:
        InputError: a share outside [0, 1), or no case left to train on.
    """
    for name, share in (("test", test), ("validation", validation)):
        if not 0 <= share < 1:
            raise InputError(f"data.{name}={share}: expected a share of the cases from 0 to below 1, such as 0.1")
    shuffled = sorted(ids)
    random.Random(seed).shuffle(shuffled)

    def take(share: float) -> set[str]:
        count = max(1, int(share * len(shuffled) + 1e-9)) if share and shuffled else 0
        taken = set(shuffled[:count])
        del shuffled[:count]
        return taken

    test_ids, validation_ids = take(test), take(validation)
    if not shuffled:
        raise InputError(
            f"{len(ids)} cases with data.test={test} and data.validation={validation} leave none to train on: "
            "add cases or lower the shares"
        )
    in_order = {
        part: tuple(i for i in ids if i in chosen)
        for part, chosen in (("train", set(shuffled)), ("validation", validation_ids), ("test", test_ids))
    }
    return Split(**in_order)
