"""The cells of a grid, read from the folder that holds its runs, finished or not."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lightning_dice.data.labels import NAMES
from lightning_dice.errors import InputError
from lightning_dice.naming import loss_name
from lightning_dice.paper.published import TABLE1
from lightning_dice.runs import METRIC_COLUMNS, Run, read_config, read_json


@dataclass(frozen=True)
class GridRun:
    """One run of a cell."""

    run: Run
    config: dict[str, Any]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def is_done(self) -> bool:
        return self.run.done.is_file()

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The curves so far; no rows where there are none yet."""
        file = self.run.metrics
        return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=METRIC_COLUMNS, dtype=float)

    @cached_property
    def state(self) -> str:
        """`done`, or how far it got and why it stopped."""
        if self.is_done:
            return "done" if self.run.scores.is_file() else "done, no test cases"
        step = int(self.metrics["step"].max()) if len(self.metrics) else 0
        at = f"step {step} of {self.config['trainer']['max_steps']}"
        if len(self.metrics):
            organs = self.metrics[[f"val/dice/{name}" for name in NAMES[1:]]].dropna(how="all").mean(axis=1)
            loss = self.metrics["train/loss"].dropna()
            at += f", loss {loss.iloc[-1]:.3g}" if len(loss) else ""
            at += f", validation Dice {organs.iloc[-1]:.3f}" if len(organs) else ""
        failure = read_json(self.run.failed)
        return f"failed ({failure['error']}: {failure['reason']}), {at}" if failure else f"unfinished, {at}"


@dataclass(frozen=True)
class Cell:
    """A weighting at a learning rate, with a run per seed; a cell of the paper's without one is missing."""

    loss: str
    lr: float
    runs: tuple[GridRun, ...]

    @property
    def name(self) -> str:
        return f"{self.loss}, {self.lr:g}"

    @property
    def finished(self) -> tuple[GridRun, ...]:
        """The runs that have scores."""
        return tuple(r for r in self.runs if r.is_done and r.run.scores.is_file())

    @property
    def states(self) -> str:
        return "; ".join(f"seed {r.seed}: {r.state}" for r in self.runs) or "missing"

    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row per case and class, `case`, `name` and the scores, each the mean over the finished seeds."""
        tables = [pd.read_csv(r.run.scores, dtype={"case": str}) for r in self.finished]
        if not tables:
            return pd.DataFrame(columns=["case", "name", "dice", "jaccard", "hd95_mm", "surface_dice"])
        return pd.concat(tables).drop(columns="label").groupby(["case", "name"], as_index=False).mean()

    def matrix(self, score: str = "dice") -> pd.DataFrame:
        """Cases × classes, in the paper's order of classes; NaN where undefined."""
        return self.scores.pivot(index="case", columns="name", values=score).reindex(columns=NAMES).astype(float)


def read_grid(folder: Path | str) -> tuple[Cell, ...]:
    """All cells below a folder, the paper's six first and in its order, though they may be missing.

    Of several runs of one cell and seed, which `rerun=true` leaves, the last finished one counts.

    Raises:
        InputError: no such folder, or no run in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"sweep={folder}: no such folder; expected the one that holds the runs, RUNS/DATA/NAME")
    runs: dict[tuple[str, float], dict[int, GridRun]] = {}
    for path in sorted(folder.glob("loss=*/config.yaml"), key=lambda p: (len(p.parent.name), p.parent.name)):
        run = GridRun(Run(path.parent), read_config(Run(path.parent)))
        by_seed = runs.setdefault((loss_name(run.config), float(run.config["optim"]["lr"])), {})
        if run.is_done or run.seed not in by_seed:
            by_seed[run.seed] = run
    if not runs:
        raise InputError(f"sweep={folder}: no run in it; expected folders such as loss=simple,lr=0.01,seed=0")
    keys = [*TABLE1, *sorted(runs.keys() - TABLE1.keys())]
    return tuple(Cell(*key, tuple(run for _, run in sorted(runs.get(key, {}).items()))) for key in keys)


def mean_dice(matrix: pd.DataFrame) -> float:
    """The mean over classes of their means over cases; NaN without cases."""
    return float(np.nanmean(matrix.mean())) if len(matrix) else float("nan")
