"""The paper's Table 1 for a grid, beside the printed one where the classes are the paper's."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from lightning_dice.paper.grid import Cell
from lightning_dice.paper.intervals import by_seed, estimate
from lightning_dice.paper.published import RATES, WEIGHTINGS
from lightning_dice.paper.statistics import ORGANS_MEAN
from lightning_dice.pictures.escaping import markdown

MEAN_ROWS = ("AVG", "MAX", "MIN")  # as the paper has them, with background
NONE = np.nan, np.nan
ORGAN_ROWS = (ORGANS_MEAN, "MAX organs", "MIN organs")  # without it


def grid_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """Table 1 of a grid, a row per row of the table and cell.

    Returns:
        `row, cell, loss, lr, variant, cases, seeds, dice, low, high, sd_seeds, printed, difference, jaccard`: means
        over seeds and test cases in percent, NaN where a cell has none; the 95 % interval of the Dice, see `intervals`;
        the standard deviation of the row's value between seeds; the paper's value and ours minus it, NaN for rows and
        cells that the paper does not have, and the latter for AVG, MAX and MIN of fewer classes than the paper's.
        `cell` names a column; `cases` counts those in which the class is defined.
    """
    rows = []
    for cell in cells:
        names = cell.labels.names
        dice, jaccard = cell.matrix("dice") * 100, cell.matrix("jaccard") * 100
        values, overlaps = (_column(matrix) for matrix in (dice, jaccard))
        _, seeds = by_seed(cell)
        of_seeds = pd.DataFrame(
            [_column(pd.DataFrame(100 * one, columns=names)) for one in seeds], columns=list(values)
        )
        for row in (*names, *MEAN_ROWS, *ORGAN_ROWS):
            classes = [row] if row in names else list(names if row == "AVG" else names[1:])
            has_interval = row in names or row.startswith("AVG")
            low, high = _interval(100 * seeds[..., [names.index(name) for name in classes]]) if has_interval else NONE
            printed = cell.printed.get(row, np.nan)
            of_all = row in names or dice.notna().any().all()
            rows.append(
                {
                    "row": row,
                    "cell": cell.name,
                    "loss": cell.loss,
                    "lr": cell.lr,
                    "variant": cell.variant,
                    "cases": int(dice[classes].notna().any(axis=1).sum()),
                    "seeds": len(cell.finished),
                    "dice": values[row],
                    "low": low,
                    "high": high,
                    "sd_seeds": of_seeds[row].std(),
                    "printed": printed,
                    "difference": values[row] - printed if of_all else np.nan,
                    "jaccard": overlaps[row],
                }
            )
    return pd.DataFrame(rows)


def score_table(cells: Sequence[Cell], score: str) -> pd.DataFrame:
    """Another score in the rows of Table 1, in its own unit.

    Args:
        cells: of the grid.
        score: a column of `Cell.scores`.

    Returns:
        `row, cell, mean, sd_seeds`: the mean over seeds and test cases and the standard deviation between seeds, NaN
        where there is none.
    """
    tables = []
    for cell in cells:
        _, seeds = by_seed(cell, score)
        of_seeds = pd.DataFrame([_column(pd.DataFrame(one, columns=cell.labels.names)) for one in seeds])
        means = pd.Series(_column(cell.matrix(score)), name="mean").rename_axis("row").reset_index()
        spread = of_seeds.std().reindex(means["row"]).to_numpy()
        tables.append(means.assign(cell=cell.name, sd_seeds=spread))
    return pd.concat(tables, ignore_index=True)


def markdown_table(table: pd.DataFrame, notes: Sequence[str], spread: Sequence[str] = ()) -> str:
    """The grid's table as the paper prints it, with the printed values if there are any, and the same in Jaccard.

    Args:
        table: `grid_table`.
        notes: sentences at the end.
        spread: `variance.variance_lines`.
    """
    dice = _formatted(table, "dice", lambda text: f"**{text}**")
    both = {}
    for cell, column in dice.items():
        own = table[table["cell"] == cell]
        printed = dict(zip(own["row"], zip(own["printed"], own["difference"], strict=True), strict=True))
        both[cell] = {row: text + _beside(*printed[row]) for row, text in column.items()}
    ours = "Ours" + (", ± the standard deviation between seeds" if table["sd_seeds"].notna().any() else "")
    brackets = ", in brackets the paper's and the difference" if table["printed"].notna().any() else ""
    return "\n".join(
        [
            "# Table 1: Dice in percent, by weighting and initial learning rate", "",
            f"{ours}{brackets}; bold: the best of a row.", "",
            *_markdown(both), "",
            "## 95 % intervals of the means", "",
            "Over seeds and patients; of a cell with one seed over patients alone.", "",
            *_markdown(_intervals(table)), "",
            *(["## Between seeds and between patients", "", *_items(spread)] if spread else []),
            "## Jaccard in percent", "",
            *_markdown(_formatted(table, "jaccard", lambda text: f"**{text}**")), "",
            *(["## Notes", "", *_items(notes)] if notes else []),
        ]
    )  # fmt: skip


def latex_table(table: pd.DataFrame) -> str:
    """Our numbers in the paper's layout, for `booktabs`."""
    ours = _formatted(table, "dice", lambda text: rf"\textbf{{{text}}}")
    frame = pd.DataFrame(ours).map(lambda text: text.replace("–", "--").replace("±", r"$\pm$"))
    spread = ", $\\pm$ the standard deviation between seeds" if "±" in str(ours) else ""
    rates = {rate: rf"\mu_{number}" for number, rate in enumerate(RATES, start=1)}
    heads = {
        cell: f"${WEIGHTINGS[loss]}, {rates[lr]} = {lr:g}$"
        for cell, loss, lr in table.loc[table["printed"].notna(), ["cell", "loss", "lr"]].itertuples(index=False)
    }
    # Names that come from settings are escaped first, and the paper's have nothing to escape.
    style = frame.style.format_index(lambda name: heads.get(name, name), axis="columns", escape="latex").format_index(
        escape="latex"
    )
    return style.to_latex(
        hrules=True,
        column_format="l" + "r" * len(frame.columns),
        caption=f"Mean Dice in percent by weighting and initial learning rate{spread}. Bold: the best of a row.",
        label="tab:dice",
        position_float="centering",
    )


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Of (seeds, cases, classes) in percent, and never beyond what a Dice can be."""
    found = estimate([values[:, ~np.isnan(values).all(axis=(0, 2))]], [1])
    low, high = np.clip((found.low, found.high), 0, 100).tolist()
    return low, high


def _column(matrix: pd.DataFrame) -> dict[str, float]:
    """The rows of the table from cases × classes."""
    means = matrix.mean()
    organs = means.iloc[1:]
    rows = means.to_dict() | {"AVG": means.mean(), "MAX": means.max(), "MIN": means.min()}
    return rows | dict(zip(ORGAN_ROWS, (organs.mean(), organs.max(), organs.min()), strict=True))


def _formatted(table: pd.DataFrame, score: str, bold: Callable[[str], str]) -> dict[str, dict[str, str]]:
    """Texts by cell and row, the best of a row emphasised."""
    best = table.groupby("row")[score].max().round(1)
    texts: dict[str, dict[str, str]] = {}
    for row, cell, value, sd in table[["row", "cell", score, "sd_seeds"]].itertuples(index=False):
        text = "–" if np.isnan(value) else f"{value:.1f}"
        text = bold(text) if round(value, 1) == best[row] else text
        texts.setdefault(cell, {})[row] = text + ("" if score != "dice" or np.isnan(sd) else f" ± {sd:.1f}")
    return texts


def _intervals(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = {}
    known = table.dropna(subset="low")
    for row, cell, low, high in known[["row", "cell", "low", "high"]].itertuples(index=False):
        texts.setdefault(cell, {})[row] = f"{low:.1f} to {high:.1f}"
    return texts


def _items(sentences: Sequence[str]) -> list[str]:
    return [*(f"- {markdown(sentence)}" for sentence in sentences), ""]


def _beside(printed: float, difference: float) -> str:
    if np.isnan(printed):
        return ""
    return f" ({printed:.1f})" if np.isnan(difference) else f" ({printed:.1f}, {difference:+.1f})"


def _markdown(columns: dict[str, dict[str, str]]) -> list[str]:
    if not columns:
        return ["too few cases"]
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    return [
        "| | " + " | ".join(map(markdown, columns)) + " |",
        "|---|" + "---:|" * len(columns),
        *(
            "| " + " | ".join([markdown(row), *(column.get(row, "–") for column in columns.values())]) + " |"
            for row in rows
        ),
    ]
