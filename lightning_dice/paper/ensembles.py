"""Several runs' networks as one, as `evaluate run=[A,B]` left their scores, beside the single cells."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lightning_dice.errors import InputError
from lightning_dice.paper.grid import Cell, Grid
from lightning_dice.paper.intervals import Scores, by_seed, estimate, mean_of
from lightning_dice.paper.stored import read_scores
from lightning_dice.runs import Run, read_json

SEED = re.compile(r",seed=\d+")  # in a folder's name
WAYS = {"mean": "mean probabilities", "organs": "best run per organ"}


@dataclass(frozen=True)
class Combined:
    """What several runs' networks scored as one; of several seeds, if the same cells were combined for each.

    Attributes:
        name: how they were combined, and of how many.
        runs: how many, of all seeds.
        told: per seed, which runs, and which decides on what.
        scores: as `intervals.by_seed` has those of a cell.
    """

    name: str
    runs: int
    told: tuple[str, ...]
    scores: Scores


@dataclass(frozen=True)
class _Ensemble:
    """One that `evaluate` left: how it was combined, its digest, names of the runs' folders, the organs and the run
    that decides on each, and scores."""

    way: str
    digest: str
    runs: tuple[str, ...]
    organs: dict[str, str]
    scores: Scores

    @property
    def name(self) -> str:
        return f"{self.way} of {len(self.runs)} runs"

    @property
    def told(self) -> str:
        name = f"{self.name} ({self.digest})"
        if not self.organs:
            return f"{name}: {'; '.join(self.runs)}"
        by_run = {run: [organ for organ, decides in self.organs.items() if decides == run] for run in self.runs}
        return f"{name}: " + "; ".join(f"{', '.join(organs)} of {run}" for run, organs in by_run.items() if organs)

    @property
    def kind(self) -> tuple[str, ...]:
        """What ensembles that differ by the seed alone have in common."""
        of_one_seed = len({tuple(SEED.findall(run)) for run in self.runs}) == 1
        return self.way, *sorted(SEED.sub("", run) if of_one_seed else run for run in self.runs)


def read_ensembles(folder: Path | str, grid: Grid) -> tuple[list[Combined], list[str]]:
    """Those that were evaluated on the test cases of the grid's runs, and a remark on each that cannot be used."""
    known = {run.data for cell in grid.cells for run in cell.finished}
    kinds: dict[tuple[str, ...], dict[str, _Ensemble]] = {}
    remarks = []
    for file in sorted((Path(folder).expanduser() / "evaluate").glob("*/ensemble.json")):
        run = Run(file.parent)
        try:
            described = read_json(run.ensemble)
            if described.get("data") not in known:
                continue  # of another data set
            found = _ensemble(run, described, grid)
            kinds.setdefault(found.kind, {})[found.digest] = found  # once, under whatever names of the data
        except (InputError, KeyError, TypeError, AttributeError, OSError) as error:
            reason = str(error) if isinstance(error, InputError) else f"{file.name} lacks {error}"
            remarks.append(f"evaluate/{run.folder.name}: left out ({reason})")
    return [_pooled([*alike.values()]) for alike in kinds.values()], remarks


def _ensemble(run: Run, described: dict[str, Any], grid: Grid) -> _Ensemble:
    scores = read_scores(run, grid.labels)
    if scores is None:
        raise InputError("no scores.csv")
    rows = scores.sort_values(["case", "label"])
    cases = rows["case"].unique().tolist()
    dice = rows["dice"].to_numpy(float).reshape(1, len(cases), len(grid.labels))
    folders = tuple(Path(one).name for one in described["runs"])
    organs = {organ: Path(one).name for organ, one in described["organs"].items()}
    way = WAYS[described["combine"]] + ("" if described["checkpoint"] == "last" else " by best checkpoints")
    return _Ensemble(way, run.folder.name.rpartition("=")[2], folders, organs, (cases, dice))


def _pooled(alike: Sequence[_Ensemble]) -> Combined:
    """Of the cases that all seeds scored."""
    first = alike[0]
    common = set.intersection(*(set(one.scores[0]) for one in alike))
    dice = [values[:, [case in common for case in cases]] for cases, values in (one.scores for one in alike)]
    many = f", {len(alike)} seeds" if len(alike) > 1 else ""
    name = f"{first.name}{many} ({first.digest}{'…' if many else ''})"  # there may be several of as many runs
    runs = sum(len(one.runs) for one in alike)
    return Combined(name, runs, tuple(one.told for one in alike), (sorted(common), np.concatenate(dice)))


def ensemble_table(cells: Sequence[Cell], ensembles: Sequence[Combined]) -> pd.DataFrame:
    """Ensembles and single cells, each on the cases that all of them scored, the best mean organ Dice first.

    Returns:
        `name, runs, cases`, a column per class, `AVG organs`, `low` and `high`, its 95 % interval, and `difference`,
        `difference_low` and `difference_high`, that minus the best single cell's: in percent and points; `seeds`, of
        the one of both that has fewer. No rows without ensembles.
    """
    singles = {cell.name: (len(cell.finished), by_seed(cell)) for cell in cells if cell.finished}
    parts = {one.name: (one.runs, one.scores) for one in ensembles} | singles
    common = set.intersection(*(set(cases) for _, (cases, _) in parts.values())) if ensembles else set()
    if not common:
        return pd.DataFrame()
    dice = {name: 100 * found[:, [case in common for case in cases]] for name, (_, (cases, found)) in parts.items()}
    organs = {name: estimate([values[..., 1:]], [1]) for name, values in dice.items()}
    best = max(singles, key=lambda name: organs[name].value)
    rows = []
    for name, (runs, _) in parts.items():
        row: dict[str, Any] = {"name": name, "runs": runs, "cases": len(common)}
        row |= dict(zip(cells[0].labels.names, mean_of(mean_of(dice[name], 0), 0).tolist(), strict=True))
        low, high = np.clip((organs[name].low, organs[name].high), 0, 100).tolist()
        row |= {"AVG organs": organs[name].value, "low": low, "high": high}
        if name not in singles:
            more = estimate([dice[name][..., 1:], dice[best][..., 1:]], [1, -1])
            row |= {"difference": more.value, "difference_low": more.low, "difference_high": more.high}
            row["seeds"] = more.seeds
        rows.append(row)
    return pd.DataFrame(rows).sort_values("AVG organs", ascending=False, ignore_index=True)


def ensemble_lines(table: pd.DataFrame) -> list[str]:
    """A sentence per ensemble of an `ensemble_table`."""
    if table.empty:
        return []
    is_single = table["difference"].isna()
    best = table.loc[is_single, "name"].iloc[0]
    lines = []
    for row in table[~is_single].to_dict("records"):
        over = "of these networks" if row["seeds"] < 2 else f"and at least {row['seeds']:.0f} seeds"
        more = f"{row['difference']:+.1f} points to the best cell, {best}"
        interval = f"{row['difference_low']:+.1f} to {row['difference_high']:+.1f}"
        mean = f"mean organ Dice {row['AVG organs']:.1f} %"
        lines.append(f"{row['name']}: {mean}, {more} ({interval}, over {row['cases']} cases {over})")
    return lines
