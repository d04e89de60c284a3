"""The report's page: one HTML file that needs no network, with everything in it."""

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2.utils import htmlsafe_json_dumps
from plotly.offline import get_plotlyjs

from lightning_dice.paper.grid import Cell
from lightning_dice.paper.interactive import interactive_figures
from lightning_dice.paper.observations import Observation
from lightning_dice.paper.page_tables import (
    cell_details,
    ensembles_section,
    observed_table,
    ranking_table,
    scores_table,
    variance_section,
    worst_list,
)
from lightning_dice.paper.table1 import score_table
from lightning_dice.paper.viewer import packed

ASSETS = Path(__file__).with_name("assets")
SCRIPTS = ("page.js", "planes.js", "viewer.js", "surfaces.js")  # in this order
PRINTED = "Table 1, by its means alone"
BELOW = "; below them the paper's value and ours minus it"
CLAIMS = """<h3>The paper's claims</h3>
<p>Differences of AVG in points, with 95 % intervals over seeds and patients. A claim holds, or does not, if tests
over seeds and patients say so, with a chance of 5 % for any wrong answer among a column's claims (Holm's
correction); else it is undecided, as it is with one seed per cell. Its probability is the share of Student's t
distribution about what was measured that agrees with it; of a claim of several parts it is that of the least
probable one, and an upper bound. It assumes that, before the runs, every difference is equally likely.
The printed table is of one seed and has no intervals: it shows a direction only.</p>"""
PREDICTIONS = """<h3>What the paper predicts, and rivals</h3>
<p>Differences of the mean organ Dice in points, answered as the claims are. A best rate is the one of the best
validation Dice, of ours and of the rival alike; the test cases do not choose it.</p>"""
RATES = """<section id="rates-section"><h2>Dice by learning rate</h2>
<p>Mean organ Dice of the test cases: a line per weighting, a small point per seed, and as a band the 95 % interval over
seeds and patients (with one seed over patients alone).</p><div class="wide"><div id="rates"></div></div></section>"""
PLACEHOLDER = re.compile("<!--([A-Z]+)-->")


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
    viewed: Mapping[str, Mapping[str, Any]],
    stills: Mapping[str, bytes],
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
        viewed: what the slices and the 3D view show, by case: `viewer.case_data`.
        stills: PNGs by their titles, which stand in for the 3D view in print.
    """
    figures = interactive_figures(cells, pairs, rates)
    others = {"hd95": score_table(cells, "hd95_mm"), "nsd": score_table(cells, "surface_dice")}
    others["nsd"][["mean", "sd_seeds"]] *= 100
    data = {
        "labels": [
            {"name": label.name, "colour": label.rgb, "opacity": label.opacity} for label in cells[0].labels.labels
        ],
        "cases": viewed,
        "figures": {name: json.loads(figure.to_json()) for name, figure in figures.items()},
    }
    parts = {
        "RANKING": ranking_table(table),
        "SUMMARY": "".join(
            f"<h3>{html.escape(title)}</h3><ul>{''.join(f'<li>{html.escape(line)}</li>' for line in said)}</ul>"
            for title, said in lines.items()
            if said
        ),
        "CLAIMS": observed_table(CLAIMS, "claims", claims) + observed_table(PREDICTIONS, "predictions", predictions),
        "PRINTED": BELOW if table["printed"].notna().any() else "",
        "TABLE": scores_table(table, others),
        "ENSEMBLES": ensembles_section(ensembles, cells[0].labels.names),
        "RATES": RATES if rates else "",
        "VARIANCE": variance_section(variances.dropna(subset="sd_seeds")),
        "WORST": worst_list(cells, {case: own["predictions"] for case, own in viewed.items()}),
        "CELLS": "".join(map(cell_details, cells)),
        "STILLS": "".join(
            f'<img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
            for title, png in stills.items()
        ),
        "STYLE": _asset("page.css"),
        "SCRIPTS": "".join(map(_asset, SCRIPTS)),
        "PLOTLY": packed(get_plotlyjs().encode()),
        "DATA": str(htmlsafe_json_dumps(data)),
    }
    return PLACEHOLDER.sub(lambda found: parts[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
