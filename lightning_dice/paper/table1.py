"""The paper's Table 1: for one run on the terminal, and for a grid beside the printed one; and the class weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lightning_dice.data.labels import NAMES
from lightning_dice.paper.grid import Cell
from lightning_dice.paper.published import NOTES, RATES, ROWS, TABLE1, WEIGHTINGS
from lightning_dice.paper.statistics import bootstrap_interval

COLUMNS = {"dice": "Dice %", "jaccard": "Jaccard %", "hd95_mm": "HD95 mm", "surface_dice": "NSD 3 mm %"}
MEANS = {"avg": "AVG", "avg_without_background": "AVG organs", "max": "MAX", "min": "MIN"}
ORGAN_ROWS = ("AVG organs", "MAX organs", "MIN organs")  # without background; the paper has them with it


def scores_table(summary: dict[str, Any]) -> str:
    """A run's `summary.json` as text; a dash where a score is undefined in all cases."""
    if "classes" not in summary:
        return "no test cases, no table"
    rows = {**summary["classes"], **{title: summary[key] for key, title in MEANS.items()}}
    table = pd.DataFrame.from_dict(rows, orient="index")[[*COLUMNS, "cases"]].astype(float)
    table[[c for c in COLUMNS if c != "hd95_mm"]] *= 100
    formats = dict.fromkeys(COLUMNS.values(), "{:.1f}".format) | {"cases": "{:.0f}".format}
    return table.rename(columns=COLUMNS).to_string(formatters=formats, na_rep="–")


def classes_table(names: Sequence[str], voxels: Sequence[int], weights: Sequence[float] | None = None) -> str:
    """Voxels, their share and, if given, the weight of each class, as text."""
    table = pd.DataFrame({"voxels": voxels}, index=pd.Index(names, name="class"))
    table["share %"] = table["voxels"] / table["voxels"].sum() * 100
    formats = {"voxels": "{:,}".format, "share %": "{:.3f}".format}
    if weights is not None:
        table["weight"] = list(weights)
        formats["weight"] = "{:.3e}".format  # from 10⁻¹⁰ to 10³
    return table.to_string(formatters=formats)


def grid_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """Table 1 of a grid, a row per row of the table and cell.

    Returns:
        `row, loss, lr, cases, dice, low, high, printed, difference, jaccard`: means over the test cases in percent, NaN
        where a cell has none; the 95 % interval of the Dice; the paper's value and ours minus it, NaN for rows and
        cells that the paper does not have. `cases` counts those in which the class is defined.
    """
    rows = []
    for cell in cells:
        dice, jaccard = cell.matrix("dice") * 100, cell.matrix("jaccard") * 100
        values, overlaps = (_column(matrix) for matrix in (dice, jaccard))
        for row in (*ROWS, *ORGAN_ROWS):
            classes = [row] if row in NAMES else list(NAMES if row == "AVG" else NAMES[1:])
            has_interval = row in NAMES or row.startswith("AVG")
            low, high = bootstrap_interval(dice[classes].to_numpy()) if has_interval else (np.nan, np.nan)
            printed = dict(zip(ROWS, TABLE1.get((cell.loss, cell.lr), ()), strict=False)).get(row, np.nan)
            cases = int(dice[classes].notna().any(axis=1).sum())
            difference = values[row] - printed
            rows.append((row, cell.loss, cell.lr, cases, values[row], low, high, printed, difference, overlaps[row]))
    columns = ["row", "loss", "lr", "cases", "dice", "low", "high", "printed", "difference", "jaccard"]
    return pd.DataFrame(rows, columns=columns)


def markdown_table(table: pd.DataFrame, notes: Sequence[str] = NOTES) -> str:
    """The grid's table as the paper prints it, with the printed values, and the same in Jaccard."""
    dice = _formatted(table, "dice", lambda text: f"**{text}**")
    both = {}
    for cell, column in dice.items():
        own = table[(table["loss"] == cell[0]) & (table["lr"] == cell[1])]
        printed = dict(zip(own["row"], zip(own["printed"], own["difference"], strict=True), strict=True))
        both[cell] = {row: text + _beside(*printed[row]) for row, text in column.items()}
    return "\n".join(
        [
            "# Table 1: Dice in percent, by weighting and initial learning rate", "",
            "Ours, in brackets the paper's and the difference; bold: the best of a row.", "",
            *_markdown(both), "",
            "## 95 % intervals of the means over patients", "",
            *_markdown(_intervals(table)), "",
            "## Jaccard in percent", "",
            *_markdown(_formatted(table, "jaccard", lambda text: f"**{text}**")), "",
            "## Notes", "",
            *(f"- {note}" for note in notes), "",
        ]
    )  # fmt: skip


def latex_table(table: pd.DataFrame) -> str:
    """The grid's table in the paper's layout, for `booktabs`; ours above, the printed value below in small type."""
    ours = _formatted(table, "dice", lambda text: rf"\textbf{{{text}}}")
    frame = pd.DataFrame(ours).map(lambda text: text.replace("–", "--"))
    rates = {rate: rf"\mu_{number}" for number, rate in enumerate(RATES, start=1)}
    frame.columns = [
        f"${WEIGHTINGS.get(loss, loss)}, {rates[lr]} = {lr:g}$" if lr in rates else f"{loss}, ${lr:g}$"
        for loss, lr in frame.columns
    ]
    return frame.style.to_latex(
        hrules=True,
        column_format="l" + "r" * len(frame.columns),
        caption="Mean Dice in percent by weighting and initial learning rate. Bold: the best of a row.",
        label="tab:dice",
        position_float="centering",
    )


def _column(matrix: pd.DataFrame) -> dict[str, float]:
    """The rows of the table from cases × classes."""
    means = matrix.mean()
    organs = means[list(NAMES[1:])]
    rows = means.to_dict() | {"AVG": means.mean(), "MAX": means.max(), "MIN": means.min()}
    return rows | dict(zip(ORGAN_ROWS, (organs.mean(), organs.max(), organs.min()), strict=True))


def _formatted(table: pd.DataFrame, score: str, bold) -> dict[tuple[str, float], dict[str, str]]:
    """Texts by cell and row, the best of a row emphasised."""
    best = table.groupby("row")[score].max().round(1)
    texts: dict[tuple[str, float], dict[str, str]] = {}
    for row, loss, lr, value in table[["row", "loss", "lr", score]].itertuples(index=False):
        text = "–" if np.isnan(value) else f"{value:.1f}"
        texts.setdefault((loss, lr), {})[row] = bold(text) if round(value, 1) == best[row] else text
    return texts


def _intervals(table: pd.DataFrame) -> dict[tuple[str, float], dict[str, str]]:
    texts: dict[tuple[str, float], dict[str, str]] = {}
    for row, loss, lr, low, high in table.dropna(subset="low")[["row", "loss", "lr", "low", "high"]].itertuples(
        index=False
    ):
        texts.setdefault((loss, lr), {})[row] = f"{low:.1f} to {high:.1f}"
    return texts


def _beside(printed: float, difference: float) -> str:
    if np.isnan(printed):
        return ""
    return f" ({printed:.1f})" if np.isnan(difference) else f" ({printed:.1f}, {difference:+.1f})"


def _markdown(columns: dict[tuple[str, float], dict[str, str]]) -> list[str]:
    if not columns:
        return ["too few cases"]
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    return [
        "| | " + " | ".join(f"{loss}, {lr:g}" for loss, lr in columns) + " |",
        "|---|" + "---:|" * len(columns),
        *("| " + " | ".join([row, *(column.get(row, "–") for column in columns.values())]) + " |" for row in rows),
    ]
