"""The cells of a grid, read from the folder that holds its runs: finished, unfinished, broken, or wrongly named."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from lightning_dice.data.labels import LabelSet, told_names
from lightning_dice.errors import InputError
from lightning_dice.naming import ABSENT, flat, setting_text
from lightning_dice.paper.folder_names import FolderName, variant_of
from lightning_dice.paper.published import CLASSES, ROWS, TABLE1, WEIGHTINGS
from lightning_dice.paper.stored import StoredRun, read_run
from lightning_dice.pictures.escaping import one_line
from lightning_dice.runs import Run

Key = tuple[str, float, tuple[str, ...]]  # loss, rate and further settings
MOST_NAMED = 5  # cells or cases in a sentence


@dataclass(frozen=True)
class Cell:
    """A weighting, or another loss, at a learning rate, and maybe with further settings; a run per seed.

    Attributes:
        loss: the weighting, or the name of another loss.
        lr: initial learning rate.
        labels: the classes of all cells of the grid.
        variant: KEY=VALUE of the settings that differ from the preset; empty for the paper's own cells.
        runs: one per seed; they agree in all settings but that, and in the data. A cell without one is missing.
        left_out: runs that do not count, with the reason.
    """

    loss: str
    lr: float
    labels: LabelSet
    variant: str = ""
    runs: tuple[StoredRun, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def setting(self) -> str:
        """Learning rate and further settings, as text."""
        rate = setting_text(self.lr)
        return ", ".join([rate, self.variant] if self.variant else [rate])

    @property
    def name(self) -> str:
        """Unique among the cells of a grid."""
        return one_line(f"{self.loss}, {self.setting}")

    @property
    def printed(self) -> dict[str, float]:
        """The paper's column, by row of Table 1; empty for a cell that the paper does not have, or other classes."""
        column = () if self.variant or not is_papers(self.labels) else TABLE1.get((self.loss, self.lr), ())
        return dict(zip(ROWS, column, strict=bool(column)))

    @property
    def finished(self) -> tuple[StoredRun, ...]:
        """The runs that have scores."""
        return tuple(run for run in self.runs if run.scores is not None)

    @property
    def states(self) -> str:
        states = [*(f"seed {run.seed}: {run.state}" for run in self.runs), *self.left_out]
        return one_line("; ".join(states)) or "missing"

    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row per case and class, `case`, `name` and the scores, each the mean over the finished seeds.

        Of cases that all of these scored: a case that a bad run lacks would look better for it. A score that is
        undefined for some seeds is the mean of the others'.
        """
        if not self.finished:
            return pd.DataFrame(columns=["case", "name", "dice", "jaccard", "hd95_mm", "surface_dice"])
        stacked = pd.concat([run.scores for run in self.finished]).drop(columns="label")
        stacked = stacked[~stacked["case"].isin(self.uncommon)]
        return stacked.groupby(["case", "name"], as_index=False).mean()

    @cached_property
    def uncommon(self) -> tuple[str, ...]:
        """Cases that only some of the finished seeds scored."""
        cases = [set(run.scores["case"]) for run in self.runs if run.scores is not None]
        return tuple(sorted(set.union(*cases) - set.intersection(*cases))) if cases else ()

    @property
    def partly_defined(self) -> int:
        """Dice scores of a case and class that are defined for some of the finished seeds and not for others."""
        if not self.finished:
            return 0
        stacked = pd.concat([run.scores for run in self.finished])
        counts = stacked[~stacked["case"].isin(self.uncommon)].groupby(["case", "name"])["dice"].count()
        return int(((counts > 0) & (counts < len(self.finished))).sum())

    def matrix(self, score: str = "dice") -> pd.DataFrame:
        """Cases × classes; NaN where undefined."""
        names = self.labels.names
        return self.scores.pivot(index="case", columns="name", values=score).reindex(columns=names).astype(float)


@dataclass(frozen=True)
class Grid:
    """Cells, the paper's six first and in its order, though they may be missing; and what is odd about the folders.

    Attributes:
        labels: the classes of all runs that count.
    """

    cells: tuple[Cell, ...]
    labels: LabelSet
    remarks: tuple[str, ...]


def is_papers(labels: LabelSet) -> bool:
    """Whether the paper's printed values and claims are of these classes."""
    return set(labels.names) == set(CLASSES)


def first_few(names: Sequence[str], separator: str = "; ") -> str:
    """The first few, and how many more there are."""
    more = len(names) - MOST_NAMED
    return separator.join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def read_grid(folder: Path | str) -> Grid:
    """All cells below a folder.

    A run belongs to the cell that its configuration describes; a folder's name that says otherwise is remarked upon.
    Further settings come from the name, which alone tells them from the preset's; what all runs have in common, besides
    settings of loss, optimiser, schedule and callbacks, is the experiment's, and makes no cell another. Of several runs
    of one cell and seed, which `rerun=true` leaves, the last finished one counts. Runs of other classes than most are
    left out.

    Raises:
        InputError: no such folder, or no run in it that can be read.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"sweep={folder}: no such folder; expected the one that holds the runs, RUNS/DATA/NAME")
    found: dict[Key, list[StoredRun]] = {}
    broken: dict[Key, list[str]] = {}
    remarks = []
    named = {path: FolderName.of(path.name) for path in folder.glob("loss=*") if path.is_dir()}
    for path, name in sorted(named.items(), key=lambda item: (item[1].rerun if item[1] else 0, item[0].name)):
        if name is None:
            remarks.append(f"{path.name}: left out, not named as a run's folder, loss=…,lr=…,seed=…")
            continue
        try:
            run = read_run(Run(path))
        except (InputError, OSError) as error:  # the latter of a folder that may not be entered
            key = (name.loss, name.lr, name.variant)
            broken.setdefault(key, []).append(f"seed {name.seed}: broken ({error})")
            continue
        variant, lies = variant_of(name, run)
        found.setdefault((run.loss, run.lr, tuple(variant)), []).append(run)
        if lies:
            remarks.append(f"{path.name}: its config.yaml says {', '.join(lies)}, and counts as such")
    if not found:
        reasons = [reason.partition(": ")[2] for reasons in broken.values() for reason in reasons]
        what = f"no run in it can be read: {'; '.join(reasons)}" if reasons else "no run in it"
        raise InputError(f"sweep={folder}: {what}; expected folders such as loss=simple,lr=0.01,seed=0")
    labels = _most_common_labels([run for runs in found.values() for run in runs])
    strange: dict[Key, list[str]] = {}
    for key, runs in found.items():
        strange[key] = [
            f"seed {run.seed}: {run.state}, left out, of other classes ({told_names(run.labels.names, labels.names)})"
            for run in runs
            if run.labels.names != labels.names
        ]
        found[key] = [run for run in runs if run.labels.names == labels.names]
    common = _common([*(key for key, runs in found.items() if runs), *broken])
    if common:
        remarks.append(f"All runs have {', '.join(common)}.")
    cells = papers_cells(labels)
    for loss, lr, parts in sorted(found.keys() | broken.keys(), key=_place):
        further = ", ".join(part for part in parts if part not in common)
        key = loss, lr, parts
        reasons = [*broken.get(key, ()), *strange.get(key, ())]
        cells[loss, lr, further] = _cell((loss, lr, labels, further), found.get(key, ()), reasons)
    return Grid(tuple(cells.values()), labels, tuple(map(one_line, remarks)))


def _place(key: Key) -> tuple[bool, str, tuple[str, ...], float, int]:
    """The paper's weightings first, for each further settings in its table's order; then one loss after the other."""
    loss, lr, further = key
    if loss in WEIGHTINGS:
        return False, "", further, lr, [*WEIGHTINGS].index(loss)
    return True, loss, further, lr, 0


def papers_cells(labels: LabelSet) -> dict[tuple[str, float, str], Cell]:
    """The paper's six without runs, by loss, rate and further settings."""
    return {(*key, ""): Cell(*key, labels) for key in TABLE1}


def _most_common_labels(runs: Sequence[StoredRun]) -> LabelSet:
    """Of the most runs; of several, the first."""
    counts = Counter(run.labels.names for run in runs)
    return max((run.labels for run in runs), key=lambda labels: counts[labels.names])


def _common(keys: Sequence[Key]) -> list[str]:
    """The KEY=VALUE that all have, but for those of loss, optimiser, schedule and callbacks, which are what cells are
    about."""
    first, *others = (variant for _, _, variant in keys)
    own = re.compile(r"(loss|optim|schedule|callbacks)[.=]")
    return [part for part in first if not own.match(part) and all(part in other for other in others)]


def differing(a: StoredRun, b: StoredRun, ignored: Sequence[str] = ()) -> list[str]:
    """Settings in which the second run differs from the first, apart from their seeds, and data: a text each.

    Those ignored, and what stands below them, are passed by. A seed of the data that follows the run's own, as it does
    unless it is set, is no difference.
    """
    ours, theirs = flat(a.config), flat(b.config)
    texts = []
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(key, ABSENT), theirs.get(key, ABSENT)
        is_seed = key.rpartition(".")[2] == "seed" and (one, other) == (a.seed, b.seed)
        is_ignored = any(key == name or key.startswith(f"{name}.") for name in ignored)
        if one != other and not is_seed and not is_ignored:
            texts.append(f"{key}: {other} instead of {one}")
    if a.data != b.data:
        texts.append("data unknown, no environment.json" if None in (a.data, b.data) else "other data")
    return texts


def _cell(key: tuple[str, float, LabelSet, str], runs: Sequence[StoredRun], reasons: Sequence[str]) -> Cell:
    """Of runs in the order of their reruns, one per seed, those that agree with the most others."""
    left_out = list(reasons)
    by_seed: dict[int, StoredRun] = {}
    for seed in sorted({run.seed for run in runs}):
        own = [run for run in runs if run.seed == seed]
        by_seed[seed] = [*(run for run in own if not run.is_done), *(run for run in own if run.is_done)][-1]
        left_out += [
            f"seed {seed}: {run.run.folder.name} gives way to {by_seed[seed].run.folder.name}"
            for run in own
            if run is not by_seed[seed]
        ]
    chosen = list(by_seed.values())
    counting = [run for run in chosen if run.is_done] or chosen
    first = max(counting, key=lambda run: sum(not differing(run, other) for other in counting), default=None)
    agreeing = []
    for run in chosen:
        if first and (texts := differing(first, run)):
            left_out.append(f"seed {run.seed}: {run.state}, left out, unlike seed {first.seed} ({'; '.join(texts)})")
        else:
            agreeing.append(run)
    return Cell(*key, tuple(agreeing), tuple(left_out))
