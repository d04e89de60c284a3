"""The runs whose networks predict together: whether they belong together, and which decides on what."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lightning_dice.checkpoints import read_checkpoint
from lightning_dice.data.labels import LabelSet, told_names
from lightning_dice.ensemble import Ensemble
from lightning_dice.errors import InputError
from lightning_dice.naming import differences
from lightning_dice.paper.stored import StoredRun, read_run
from lightning_dice.recipe import Recipe, load_network
from lightning_dice.runs import Run

TESTED = ("name", "layout", "preparation", "test", "split_seed", "exclude")  # settings of `data`: which cases, and how
VALIDATED = (*TESTED, "validation", "folds", "fold")
MOST_APART = 0.25  # between two networks' voxel sizes


@dataclass(frozen=True)
class CheckpointFile(Run):
    """A checkpoint in place of the run that it is of. Nothing but the file is known: it stands for the folder."""

    def checkpoint(self, choice: str) -> Path:
        return self.folder


@dataclass(frozen=True)
class Members:
    """Runs that predict together.

    Attributes:
        runs: all of them, in the order in which they were named.
        networks: as one, in evaluation mode on the CPU; without those that decide on nothing.
        recipe: how they are used.
        deciding: by organ the run whose network decides on it, if they are combined so.
    """

    runs: tuple[Run, ...]
    networks: Ensemble
    recipe: Recipe
    deciding: dict[str, Run]


def runs_of(asked: str | Sequence[str]) -> list[Run]:
    """The runs that `run=FOLDER` or `run=[FOLDER,FOLDER]` names, of which any may be a checkpoint's file.

    Raises:
        InputError: one of them twice.
    """
    folders = [Path(folder).expanduser() for folder in ([asked] if isinstance(asked, str) else asked)]
    places = [folder.resolve() for folder in folders]
    if twice := [str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise InputError(f"run: names {twice[0]} twice; expected each run once")
    return [CheckpointFile(path) if path.is_file() or path.suffix == ".ckpt" else Run(path) for path in folders]


def load_members(runs: Sequence[Run], checkpoint: str, combine: str, trust: bool = False) -> Members:
    """Load what predicts together.

    Voxel sizes may differ a little, as the medians of several folds' training volumes do; the median of them is taken,
    and told.

    Args:
        checkpoint: `last` or `best`.
        combine: `mean` of their probabilities, or `organs`: each organ from the run with the highest validation Dice of
            it, at that checkpoint.
        trust: as for `load_network`.

    Raises:
        InputError: as `load_network`; a choice among checkpoints or runs where a file is given; networks of other
            classes, preparation or patches than the first; or runs that were not validated on the same cases where that
            decides.
    """
    if combine == "organs" and len(runs) == 1:
        raise InputError(f"combine=organs: chooses among runs, and run={runs[0].folder} is one; give run=[A,B]")
    files = [run for run in runs if isinstance(run, CheckpointFile)]
    choices = [f"checkpoint={checkpoint}"] * (checkpoint != "last") + [f"combine={combine}"] * (combine == "organs")
    if files and choices:
        raise InputError(f"{choices[0]}: chooses in runs' folders, and run={files[0].folder} is a file; give its run")
    loaded = [load_network(run.checkpoint(checkpoint), trust) for run in runs]
    recipe = _common(runs, [recipe for _, recipe in loaded])
    networks = [network for network, _ in loaded]
    if combine == "mean":
        return Members(tuple(runs), Ensemble(networks), recipe, {})
    best = _best(runs, checkpoint, recipe.labels)
    used = sorted(set(best))
    deciding = {organ: runs[place] for organ, place in zip(recipe.labels.names[1:], best, strict=True)}
    for place in used:
        organs = [organ for organ, run in deciding.items() if run == runs[place]]
        print(f"combine=organs: {told_names(organs)} of {runs[place].folder}")
    combined = Ensemble([networks[place] for place in used], [used.index(place) for place in best])
    return Members(tuple(runs), combined, recipe, deciding)


def check_tests(runs: Sequence[Run]) -> None:
    """See that runs share their test cases, so that none is scored on a case that another was trained on.

    Raises:
        InputError: they differ in what decides on these cases.
    """
    if len(runs) > 1:
        _check_same([read_run(run) for run in runs], TESTED, "test cases")


def _common(runs: Sequence[Run], recipes: Sequence[Recipe]) -> Recipe:
    first = recipes[0]
    for run, recipe in zip(runs[1:], recipes[1:], strict=True):
        names, others = first.labels.names, recipe.labels.names
        for name, ours, theirs in (
            ("classes", told_names(names, others), told_names(others, names)),
            ("data.preparation", first.preparation, recipe.preparation),
            ("data.patch_size", first.patch_size, recipe.patch_size),
        ):
            if ours != theirs:
                raise InputError(
                    f"run={run.folder}: has {name} {theirs}, and {runs[0].folder} {ours}; expected the same of all"
                )
    sizes = np.array([recipe.spacing_mm for recipe in recipes])
    if (sizes.max(axis=0) > (1 + MOST_APART) * sizes.min(axis=0)).any():
        raise InputError(
            f"run: voxel sizes of {' and '.join(map(_millimetres, sizes))} mm; expected at most {MOST_APART:.0%} "
            "between them, give runs of the same data"
        )
    spacing = tuple(np.median(sizes, axis=0).tolist())
    if (sizes != sizes[0]).any():
        told = ", ".join(map(_millimetres, sizes))
        print(f"run: voxel sizes differ ({told} mm); all networks get {_millimetres(spacing)} mm, their median")
    return dataclasses.replace(first, spacing_mm=spacing)


def _best(runs: Sequence[Run], checkpoint: str, labels: LabelSet) -> list[int]:
    """For each organ the place of the run that validates best on it; of one that no run could, of the best mean."""
    stored = [read_run(run) for run in runs]
    _check_same(stored, VALIDATED, "validation cases")
    columns = [f"val/dice/{name}" for name in labels.names[1:]]
    found = []
    for one in stored:
        step = int(read_checkpoint(one.run.checkpoint(checkpoint))["global_step"])
        points = one.metrics[one.metrics["step"] <= step][columns].dropna(how="all")
        if points.empty:
            raise InputError(
                f"run={one.run.folder}: has no validation up to its {checkpoint} checkpoint, which combine=organs "
                "chooses by; train with data.validation above 0, or combine=mean"
            )
        found.append(points.iloc[-1])
    dice = pd.DataFrame(found).to_numpy(float)  # runs × organs
    overall = int(np.nanmean(dice, axis=1).argmax())
    return [overall if np.isnan(organ).all() else int(np.nanargmax(organ)) for organ in dice.T]


def _check_same(members: Sequence[StoredRun], settings: Sequence[str], what: str) -> None:
    first, *others = members

    def chosen(one: StoredRun) -> dict[str, dict[str, object]]:
        return {"data": {name: one.config["data"].get(name) for name in settings}}

    for other in others:
        differing = differences(chosen(first), chosen(other))
        differing += ["other data"] if first.data != other.data else []
        if differing:
            raise InputError(
                f"run={other.run.folder}: may have other {what} than {first.run.folder} ({'; '.join(differing)}); "
                "expected the same of all"
            )


def _millimetres(size: Sequence[float]) -> str:
    return " × ".join(f"{side:.3g}" for side in size)
