"""The tables and lists of the report's page, as HTML in which every text is escaped."""

import html
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from lightning_dice.paper.grid import Cell
from lightning_dice.paper.observations import Observation
from lightning_dice.paper.segmentations import organ_means, worst_cases
from lightning_dice.paper.statistics import ORGANS_MEAN
from lightning_dice.paper.table1 import MEAN_ROWS, ORGAN_ROWS

VARIANCE = """<h3>Between seeds and between patients</h3>
<p>Standard deviations of mean organ Dice in points, separated into variance components of seed and patient; the
residual is what neither explains. More seeds average out the first, more patients the second.</p>"""
OTHER_SCORES = {"hd95": "min", "nsd": "max"}  # by the name that the page has for them: which is best
ENSEMBLES = """<h3>Several networks as one</h3>
<p>Dice in percent beside the single cells, on the test cases that all have in common. The mean over the organs has a
95 % interval, and so has what an ensemble adds to the best single cell, in points: over patients, so of these networks,
and where there are several seeds of both over these too. Ensembles of the same cells for several seeds are one.</p>"""


def _framed(introduction: str, name: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table below its introduction; nothing without rows.

    Args:
        name: its id.
        titles: of the columns, as text.
        rows: HTML of their cells, of which the first is the row's head.
    """
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "".join(
        f"<tr><th scope='row'>{first}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for first, *cells in rows
    )
    table = f"<table id='{name}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"{introduction}<div class='wide'>{table}</div>" if rows else ""


def ranking_table(table: pd.DataFrame) -> str:
    """A row per cell with scores, the best first."""
    means = table[table["row"] == ORGANS_MEAN].dropna(subset="dice").sort_values("dice", ascending=False)
    rows = []
    for row in means.itertuples():
        interval = "–" if np.isnan(row.low) else f"{row.low:.1f} to {row.high:.1f}"
        rows.append((html.escape(row.cell), f"{row.dice:.1f}", interval, f"{row.seeds:.0f}", f"{row.cases:.0f}"))
    titles = "cell", "mean organ Dice in percent", "95 % interval", "seeds", "test cases"
    return _framed("<h3>Ranking</h3>", "ranking", titles, rows)


def scores_table(table: pd.DataFrame, others: Mapping[str, pd.DataFrame]) -> str:
    """Rows of Table 1, a column per cell: ours, its interval, the printed value and the difference; and beside the Dice
    the other scores, of which the page shows one at a time.

    Args:
        table: `table1.grid_table`.
        others: `table1.score_table` by score, one of OTHER_SCORES.
    """
    cells = table["cell"].unique()
    head = "".join(f'<th scope="col"><button>{html.escape(cell)}</button></th>' for cell in cells)
    best = table.groupby("row")["dice"].max().round(1)
    means = {score: other.set_index(["row", "cell"])["mean"].round(1) for score, other in others.items()}
    spreads = {score: other.set_index(["row", "cell"])["sd_seeds"] for score, other in others.items()}
    bests = {score: mean.groupby("row").agg(OTHER_SCORES[score]) for score, mean in means.items()}
    classes: list[str] = []
    averages: list[str] = []  # sorting leaves them below the classes
    for row, values in table.groupby("row", sort=False):
        by_cell = {value.cell: value for value in values.itertuples()}
        columns = []
        for cell in cells:
            value = by_cell[cell]
            interval = "" if np.isnan(value.low) else f"<small>{value.low:.1f} to {value.high:.1f}</small>"
            printed = "" if np.isnan(value.printed) else f"<small>paper {value.printed:.1f}"
            printed += "" if np.isnan(value.difference) else f", {value.difference:+.1f}"
            data, texts = f'data-dice="{value.dice}"', _mean(value.dice, round(value.dice, 1) == best[row])
            texts += interval + _spread(value.sd_seeds, value.seeds) + printed + ("</small>" if printed else "")
            texts = f'<span class="dice">{texts}</span>'
            for score, mean in means.items():
                other = mean[row, cell]
                data += f' data-{score}="{other}"'
                text = _mean(other, other == bests[score][row]) + _spread(spreads[score][row, cell], value.seeds)
                texts += f'<span class="{score}">{text}</span>'
            columns.append(f"<td {data}>{texts}</td>")
        body = averages if row in (*MEAN_ROWS, *ORGAN_ROWS) else classes
        body.append(f'<tr><th scope="row">{html.escape(row)}</th>{"".join(columns)}</tr>')
    first = '<th scope="col"><button>class</button></th>'
    bodies = "".join(f"<tbody>{''.join(body)}</tbody>" for body in (classes, averages))
    return f"<table id='table1' data-score='dice'><thead><tr>{first}{head}</tr></thead>{bodies}</table>"


def _mean(value: float, is_best: bool) -> str:
    text = "–" if np.isnan(value) else f"{value:.1f}"
    return f"<b>{text}</b>" if is_best else text


def _spread(sd_seeds: float, seeds: int) -> str:
    return "" if np.isnan(sd_seeds) else f"<small class='sd'>± {sd_seeds:.1f}, {seeds} seeds</small>"


def observed_table(introduction: str, name: str, columns: Mapping[str, Sequence[Observation]]) -> str:
    """A row per claim, a column per further settings of the cells; nothing without any."""
    claims = dict.fromkeys(one.claim for found in columns.values() for one in found)
    texts = {
        (one.claim, column): f"<b>{one.told}</b><small>{html.escape(one.figures)}</small>"
        for column, found in columns.items()
        for one in found
    }
    rows = [[html.escape(claim), *(texts.get((claim, column), "") for column in columns)] for claim in claims]
    return _framed(introduction, name, ["claim", *(column or "here" for column in columns)], rows)


def variance_section(variances: pd.DataFrame) -> str:
    """A row per cell with several seeds; nothing without any."""
    rows = [
        (
            html.escape(row.cell),
            *(f"{value:.1f}" for value in (row.sd_seeds, row.sd_patients, row.sd_residual)),
            html.escape(row.seed_means),
        )
        for row in variances.itertuples()
    ]
    titles = "cell", "between seeds", "between patients", "residual", "mean organ Dice in percent"
    return _framed(VARIANCE, "variance", titles, rows)


def ensembles_section(table: pd.DataFrame, classes: Sequence[str]) -> str:
    """A row per ensemble and cell; nothing without an ensemble."""
    rows = []
    for row in table.to_dict("records"):
        mean = f"{row['AVG organs']:.1f}<small>{row['low']:.1f} to {row['high']:.1f}</small>"
        more = f"{row['difference']:+.1f}<small>{row['difference_low']:+.1f} to {row['difference_high']:+.1f}</small>"
        added = "" if np.isnan(row["difference"]) else more
        rows.append([html.escape(row["name"]), mean, added, *(f"{row[name]:.1f}" for name in classes)])
    return _framed(ENSEMBLES, "ensembles", ("", "AVG organs", "added", *classes), rows)


def worst_list(cells: Sequence[Cell], shown: Mapping[str, Collection[str]]) -> str:
    """Each cell's worst cases.

    Args:
        shown: the cells of which the viewer has a prediction, by case; these are links to it.
    """
    means = organ_means(cells)
    items = []
    for name, cases in worst_cases(cells).items():
        for case in cases:
            text = f"{name}: {case}, mean organ Dice {100 * means.loc[case, name]:.1f} %"
            is_shown = name in shown.get(case, ())
            data = f'data-case="{html.escape(case)}" data-cell="{html.escape(name)}"'
            text = html.escape(text)
            items.append(f'<li><a href="#viewer" {data}>{text}</a></li>' if is_shown else f"<li>{text}</li>")
    return f"<h3>Worst cases</h3><ul>{''.join(items)}</ul>" if items else ""


def cell_details(cell: Cell) -> str:
    """Its state, and the files that say how its runs were made."""
    said = f"<summary>{html.escape(cell.name)}: {html.escape(cell.states)}</summary>"
    for run in cell.runs:
        for file in (run.run.config, run.run.environment):
            if file.is_file():
                text = html.escape(file.read_text(encoding="utf-8", errors="replace"))
                said += f"<h4>{html.escape(str(file))}</h4><pre>{text}</pre>"
    return f"<details>{said}</details>"
