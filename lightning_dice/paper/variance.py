"""How much of a cell's mean organ Dice is its seeds' chance, and how much the patients'."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lightning_dice.paper.grid import Cell
from lightning_dice.paper.intervals import by_seed, mean_of


@dataclass(frozen=True)
class Components:
    """Standard deviations between seeds, between patients, and of what neither explains; of a true mean each."""

    seeds: float
    patients: float
    residual: float


def components(values: np.ndarray) -> Components:
    """Of a two-way layout with one value per seed and patient, by the method of moments (Searle, Casella and McCulloch,
    Variance Components, 1992, chapter 4); a negative variance counts as zero.

    Args:
        values: (seeds, patients), all defined.

    Returns:
        In the values' unit; NaN with fewer than two seeds or patients.
    """
    seeds, patients = values.shape
    if min(seeds, patients) < 2:
        return Components(math.nan, math.nan, math.nan)
    of_seeds, of_patients = values.mean(axis=1), values.mean(axis=0)
    rest = values - of_seeds[:, None] - of_patients + values.mean()
    residual = (rest**2).sum() / ((seeds - 1) * (patients - 1))
    return Components(
        math.sqrt(max(of_seeds.var(ddof=1) - residual / patients, 0)),
        math.sqrt(max(of_patients.var(ddof=1) - residual / seeds, 0)),
        math.sqrt(residual),
    )


def seed_means(cell: Cell) -> dict[int, float]:
    """Mean organ Dice in percent by seed, as Table 1's AVG organs has it of all; NaN where there is none."""
    _, dice = by_seed(cell)
    organs = mean_of(mean_of(100 * dice[..., 1:], 1), 1)
    return dict(zip((run.seed for run in cell.finished), organs.tolist(), strict=True))


def variance_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """A row per cell with scores: the mean over a case's organs, between seeds and between patients.

    Returns:
        `cell, loss, lr, variant, seeds, cases, sd_seeds, sd_patients, sd_residual, seed_means`: standard deviations in
        points as `components` has them; the last a text, mean organ Dice in percent by seed.
    """
    rows = []
    for cell in cells:
        if not cell.finished:
            continue
        _, dice = by_seed(cell)
        values = mean_of(100 * dice[..., 1:], 2)  # (seeds, cases)
        values = values[:, ~np.isnan(values).any(axis=0)]
        found = components(values)
        means = "; ".join(f"seed {seed}: {mean:.1f}" for seed, mean in seed_means(cell).items())
        place = cell.name, cell.loss, cell.lr, cell.variant, *values.shape
        rows.append((*place, found.seeds, found.patients, found.residual, means))
    columns = ["cell", "loss", "lr", "variant", "seeds", "cases", "sd_seeds", "sd_patients", "sd_residual"]
    return pd.DataFrame(rows, columns=[*columns, "seed_means"])


def variance_lines(table: pd.DataFrame) -> list[str]:
    """A sentence per cell of which the seeds can be told from the patients."""
    return [
        f"{row.cell}: standard deviation of mean organ Dice {row.sd_seeds:.1f} points between seeds, "
        f"{row.sd_patients:.1f} between patients ({row.seed_means})"
        for row in table.dropna(subset="sd_seeds").itertuples()
    ]
