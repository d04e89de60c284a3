"""What a data set is to the rest: cases, and which of them train, validate and test."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_dice.data.labels import BACKGROUND, LabelSet
from lightning_dice.errors import InputError


@dataclass(frozen=True)
class LabelFile:
    """A label image and what its values mean: pairs of (value in the file, names of the structures that it stands for).

    Every value that may stand in the file is listed, background with no name, as is what has none. A value in several
    structures, such as a tumour in its organ, has the names of all. Several binary masks of one case are several label
    files, painted in their order. Names are `lightning_dice.data.labels.normalized`.
    """

    path: Path
    ids: tuple[tuple[int, tuple[str, ...]], ...]

    @classmethod
    def of_ours(cls, path: Path, labels: LabelSet) -> "LabelFile":
        """One that this package writes: its values are the classes' indices."""
        return cls(path, tuple((index, (label.parts[0][0],)) for index, label in enumerate(labels.organs, start=1)))

    def indices(self, labels: LabelSet) -> dict[int, int]:
        """The class of each value."""
        return {value: labels.index(structures) for value, structures in self.ids}


@dataclass(frozen=True)
class Case:
    """One patient's CT with its labels, as files. The id is unique in its data set and stands for the patient.

    `part` is that of the data set's own split, where it has one that is wanted: "train", "val" or "test".
    """

    id: str
    image: Path
    labels: tuple[LabelFile, ...]
    part: str | None = None

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of all that its label files declare, in their order."""
        return tuple(dict.fromkeys(name for file in self.labels for _, names in file.ids for name in names))

    def left_over(self, labels: LabelSet) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """What its label files declare and what is background for these classes: names, and values without one."""
        lost = [(value, names) for file in self.labels for value, names in file.ids if not labels.index(names)]
        names = dict.fromkeys(name for _, names in lost for name in names)
        return tuple(names), tuple(value for value, names in lost if not names and value != BACKGROUND)


@dataclass(frozen=True)
class Split:
    """Case ids by their part, disjoint, each in the order of the data set."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def given_split(cases: Sequence[Case]) -> Split:
    """The data set's own split.

    Raises:
        InputError: cases without a part, or with one that is not train, val or test; all of them in one line.
    """
    by_part = {part: tuple(case.id for case in cases if case.part == part) for part in ("train", "val", "test")}
    lost = [f"{case.id} ({case.part})" for case in cases if case.part not in by_part]
    if lost:
        raise InputError(f"{', '.join(lost)}: expected train, val or test as the part of the data set's own split")
    return Split(by_part["train"], by_part["val"], by_part["test"])


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


def with_fold(split: Split, ids: Sequence[str], folds: int, fold: int, seed: int = 0) -> Split:
    """Cut what a split does not test on into folds, by patient, of which one validates and the others train.

    The test cases stay, so that networks of several folds can be tested together.

    Args:
        ids: all cases, in the order of the data set.
        folds: how many, from 2; their sizes differ by one case at most.
        fold: the one that validates, from 0.
        seed: of the draw.

    Raises:
        InputError: no such fold, or fewer cases than folds.
    """
    left = sorted({*split.train, *split.validation})
    if not 2 <= folds <= len(left):
        raise InputError(f"data.folds={folds}: expected 2 to {len(left)}, the cases that are not for testing")
    if not 0 <= fold < folds:
        raise InputError(f"data.fold={fold}: no such fold; expected 0 to {folds - 1}")
    random.Random(seed).shuffle(left)
    chosen = set(left[fold::folds])
    train = tuple(i for i in ids if i in left and i not in chosen)
    return replace(split, train=train, validation=tuple(i for i in ids if i in chosen))
