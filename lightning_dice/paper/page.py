"""The report's page: one HTML file that needs no network, with everything in it."""

import base64
import gzip
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jinja2.utils import htmlsafe_json_dumps
from plotly.offline import get_plotlyjs

from lightning_dice.paper.grid import Cell
from lightning_dice.paper.interactive import interactive_figures
from lightning_dice.paper.observations import Observation
from lightning_dice.paper.segmentations import organ_means
from lightning_dice.paper.statistics import ORGANS_MEAN
from lightning_dice.paper.table1 import MEAN_ROWS, ORGAN_ROWS
from lightning_dice.pictures.slices import SOFT_TISSUE_HU, Pictured
from lightning_dice.pictures.surfaces import surfaces_of

TEMPLATE = Path(__file__).with_name("page.html")
WORST = 2  # cases per cell that the page lists
KEEP_TRIANGLES = 0.25  # of the surfaces in the 3D view
STEP_MM = 0.1  # of their vertices
PRINTED = "Table 1, by its means alone"
BELOW = "; below them the paper's value and ours minus it"
CLAIMS = """<h3>The paper's claims</h3>
<p>Differences of AVG in points, with 95 % intervals over seeds and patients. A claim holds, or does not, if tests
over seeds and patients say so, with a chance of 5 % for any wrong answer among a column's claims (Holm's
correction); else it is undecided, as it is with one seed per cell. Its probability is the share of Student's t
distribution about what was measured that agrees with it; of a claim of several parts it is that of the least
probable one, and an upper bound. It takes for granted that weightings differ by any amount alike before one looks.
The printed table is of one seed and has no intervals: it shows a direction only.</p>"""
PREDICTIONS = """<h3>What the paper predicts, and rivals</h3>
<p>Differences of the mean organ Dice in points, answered as the claims are. A best rate is the one of the best test
scores, of ours and of the rival alike, and so a little better than it would be on other patients.</p>"""
RATES = """<section id="rates-section"><h2>Dice by learning rate</h2>
<p>Mean organ Dice of the test cases: a line per weighting, a small point per seed, and as a band the 95 % interval over
seeds and patients (with one seed over patients alone).</p><div class="wide"><div id="rates"></div></div></section>"""
VARIANCE = """<h3>Between seeds and between patients</h3>
<p>Standard deviations of mean organ Dice in points, told apart as variance components of seed and patient; the residual
is what neither explains. More seeds make up for the first, more patients for the second.</p>"""
ENSEMBLES = """<h3>Several networks as one</h3>
<p>Dice in percent beside the single cells, on the test cases that all have in common. The mean over the organs has a
95 % interval, and so has what an ensemble adds to the best single cell, in points: over patients, so of these networks,
and where a cell has several seeds over these too.</p>"""
PLACEHOLDER = re.compile("<!--([A-Z]+)-->")
Pictures = Mapping[str, Mapping[str, Pictured]]  # case → cell → picture


def page_html(
    cells: Sequence[Cell],
    table: pd.DataFrame,
    pairs: pd.DataFrame,
    rates: Mapping[str, pd.DataFrame],
    variances: pd.DataFrame,
    ensembles: pd.DataFrame,
    lines: Mapping[str, Sequence[str]],
    claims: Mapping[str, Sequence[Observation]],
    predictions: Mapping[str, Sequence[Observation]],
    pictures: Pictures,
) -> str:
    """The page.

    Args:
        cells: of the grid, at least one.
        table: `table1.grid_table`.
        pairs: `statistics.compare_cells`.
        rates: `rates.rate_lines`.
        variances: `variance.variance_table`.
        ensembles: `ensembles.ensemble_table`.
        lines: paragraphs of text by their heading, as the notes.
        claims: the paper's, as observed on our cells by their further settings, and on PRINTED; none of a grid of
            other classes than the paper's.
        predictions: likewise.
        pictures: what the slices and the 3D view show.
    """
    figures = interactive_figures(cells, pairs, rates)
    data = {
        "labels": [{"name": label.name, "colour": label.rgb} for label in cells[0].labels.labels],
        "cases": {case: _case(by_cell) for case, by_cell in pictures.items()},
        "figures": {name: json.loads(figure.to_json()) for name, figure in figures.items()},
    }
    parts = {
        "RANKING": _ranking(table),
        "SUMMARY": "".join(
            f"<h3>{html.escape(title)}</h3><ul>{''.join(f'<li>{html.escape(line)}</li>' for line in said)}</ul>"
            for title, said in lines.items()
            if said
        ),
        "CLAIMS": _observed(CLAIMS, "claims", claims) + _observed(PREDICTIONS, "predictions", predictions),
        "PRINTED": BELOW if table["printed"].notna().any() else "",
        "TABLE": _table(table),
        "ENSEMBLES": _ensembles(ensembles, cells[0].labels.names),
        "RATES": RATES if rates else "",
        "VARIANCE": _variance(variances.dropna(subset="sd_seeds")),
        "WORST": _worst(cells, pictures),
        "CELLS": "".join(map(_cell, cells)),
        "PLOTLY": _packed(get_plotlyjs().encode()),
        "DATA": str(htmlsafe_json_dumps(data)),
    }
    return PLACEHOLDER.sub(lambda found: parts[found[1]], TEMPLATE.read_text(encoding="utf-8"))


def worst_cases(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Per cell, the cases with the lowest mean organ Dice."""
    means = organ_means(cells)
    return {name: means[name].dropna().sort_values().index[:WORST].tolist() for name in means}


def _case(by_cell: Mapping[str, Pictured]) -> dict[str, Any]:
    """Slices and surfaces of one case, for the page's viewers."""
    first = next(iter(by_cell.values()))
    assert first.truth is not None  # it is a test case's
    low, high = SOFT_TISSUE_HU
    ct = (np.clip((first.hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    labels = {"truth": first.truth, **{name: row.prediction for name, row in by_cell.items()}}
    return {
        "shape": first.hu.shape,
        "spacing": first.spacing_mm,
        "ct": _packed_volume(ct),
        "labels": {name: _packed_volume(label.astype(np.uint8)) for name, label in labels.items()},
        "surfaces": {name: _packed(json.dumps(_meshes(label, first)).encode()) for name, label in labels.items()},
    }


def _packed_volume(volume: np.ndarray) -> str:
    """uint8 (X, Y, Z) in RAS+ as slices from the feet, rows from the front, columns from the patient's right."""
    slices = np.ascontiguousarray(volume[::-1, ::-1].transpose(2, 1, 0))  # (Z, Y, X)
    return _packed(slices.tobytes())


def _packed(content: bytes) -> str:
    """gzip in base64, which the page unpacks when it needs the content."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _meshes(label: np.ndarray, shown: Pictured) -> list[dict[str, Any]]:
    """Plotly's traces of the surfaces, with vertices in steps of `STEP_MM`."""
    traces = []
    for surface in surfaces_of(label, shown.labels, shown.spacing_mm, KEEP_TRIANGLES):
        corners = dict(zip("ijk", surface.triangles.T, strict=True))
        rounded = np.round(surface.vertices / STEP_MM) * STEP_MM
        places = dict(zip("xyz", rounded.astype(np.float32).T, strict=True))
        organ = surface.organ
        mesh = go.Mesh3d(**places, **corners, name=organ.name, color=organ.colour, hoverinfo="name")
        mesh.update(opacity=organ.opacity, showlegend=True, flatshading=False)
        traces.append(json.loads(mesh.to_json()))
    return traces


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


def _ranking(table: pd.DataFrame) -> str:
    """A row per cell with scores, the best first."""
    means = table[table["row"] == ORGANS_MEAN].dropna(subset="dice").sort_values("dice", ascending=False)
    rows = []
    for row in means.itertuples():
        interval = "–" if np.isnan(row.low) else f"{row.low:.1f} to {row.high:.1f}"
        rows.append((html.escape(row.cell), f"{row.dice:.1f}", interval, f"{row.seeds:.0f}", f"{row.cases:.0f}"))
    titles = "cell", "mean organ Dice in percent", "95 % interval", "seeds", "test cases"
    return _framed("<h3>Ranking</h3>", "ranking", titles, rows)


def _table(table: pd.DataFrame) -> str:
    """Rows of Table 1, a column per cell: ours, its interval, the printed value and the difference."""
    cells = table["cell"].unique()
    head = "".join(f'<th scope="col"><button>{html.escape(cell)}</button></th>' for cell in cells)
    best = table.groupby("row")["dice"].max().round(1)
    classes: list[str] = []
    averages: list[str] = []  # sorting leaves them below the classes
    for row, values in table.groupby("row", sort=False):
        by_cell = {value.cell: value for value in values.itertuples()}
        columns = []
        for cell in cells:
            value = by_cell[cell]
            own = "–" if np.isnan(value.dice) else f"{value.dice:.1f}"
            own = f"<b>{own}</b>" if round(value.dice, 1) == best[row] else own
            interval = "" if np.isnan(value.low) else f"<small>{value.low:.1f} to {value.high:.1f}</small>"
            interval += (
                "" if np.isnan(value.sd_seeds) else f"<small>± {value.sd_seeds:.1f}, {value.seeds} seeds</small>"
            )
            printed = "" if np.isnan(value.printed) else f"<small>paper {value.printed:.1f}"
            printed += "" if np.isnan(value.difference) else f", {value.difference:+.1f}"
            columns.append(
                f'<td data-value="{value.dice}">{own}{interval}{printed}{"</small>" if printed else ""}</td>'
            )
        body = averages if row in (*MEAN_ROWS, *ORGAN_ROWS) else classes
        body.append(f'<tr><th scope="row">{html.escape(row)}</th>{"".join(columns)}</tr>')
    first = '<th scope="col"><button>class</button></th>'
    bodies = "".join(f"<tbody>{''.join(body)}</tbody>" for body in (classes, averages))
    return f"<table id='table1'><thead><tr>{first}{head}</tr></thead>{bodies}</table>"


def _observed(introduction: str, name: str, columns: Mapping[str, Sequence[Observation]]) -> str:
    """A row per claim, a column per further settings of the cells; nothing without any."""
    claims = dict.fromkeys(one.claim for found in columns.values() for one in found)
    texts = {
        (one.claim, column): f"<b>{one.told}</b><small>{html.escape(one.figures)}</small>"
        for column, found in columns.items()
        for one in found
    }
    rows = [[html.escape(claim), *(texts.get((claim, column), "") for column in columns)] for claim in claims]
    return _framed(introduction, name, ["claim", *(column or "here" for column in columns)], rows)


def _variance(variances: pd.DataFrame) -> str:
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


def _ensembles(table: pd.DataFrame, classes: Sequence[str]) -> str:
    """A row per ensemble and cell; nothing without an ensemble."""
    rows = []
    for row in table.to_dict("records"):
        mean = f"{row['AVG organs']:.1f}<small>{row['low']:.1f} to {row['high']:.1f}</small>"
        more = f"{row['difference']:+.1f}<small>{row['difference_low']:+.1f} to {row['difference_high']:+.1f}</small>"
        added = "" if np.isnan(row["difference"]) else more
        rows.append([html.escape(row["name"]), mean, added, *(f"{row[name]:.1f}" for name in classes)])
    return _framed(ENSEMBLES, "ensembles", ("", "AVG organs", "added", *classes), rows)


def _worst(cells: Sequence[Cell], pictures: Pictures) -> str:
    means = organ_means(cells)
    items = []
    for name, cases in worst_cases(cells).items():
        for case in cases:
            text = f"{name}: {case}, mean organ Dice {100 * means.loc[case, name]:.1f} %"
            is_shown = name in pictures.get(case, {})
            data = f'data-case="{html.escape(case)}" data-cell="{html.escape(name)}"'
            text = html.escape(text)
            items.append(f'<li><a href="#viewer" {data}>{text}</a></li>' if is_shown else f"<li>{text}</li>")
    return f"<h3>Worst cases</h3><ul>{''.join(items)}</ul>" if items else ""


def _cell(cell: Cell) -> str:
    said = f"<summary>{html.escape(cell.name)}: {html.escape(cell.states)}</summary>"
    for run in cell.runs:
        for file in (run.run.config, run.run.environment):
            if file.is_file():
                text = html.escape(file.read_text(encoding="utf-8", errors="replace"))
                said += f"<h4>{html.escape(str(file))}</h4><pre>{text}</pre>"
    return f"<details>{said}</details>"
