"""The report's page: one HTML file that needs no network, with everything in it."""

import base64
import gzip
import html
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jinja2.utils import htmlsafe_json_dumps
from plotly.colors import qualitative
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from lightning_dice.data.labels import BACKGROUND_NAME
from lightning_dice.paper.grid import Cell
from lightning_dice.paper.observations import Observation
from lightning_dice.paper.published import TABLE1
from lightning_dice.paper.segmentations import organ_means
from lightning_dice.paper.statistics import ORGANS_MEAN, SIGNIFICANT
from lightning_dice.pictures.curves import STAGES, dashes
from lightning_dice.pictures.escaping import plotly
from lightning_dice.pictures.legend import MOST_TOLD
from lightning_dice.pictures.slices import SOFT_TISSUE_HU, Pictured
from lightning_dice.pictures.surfaces import surfaces_of

TEMPLATE = Path(__file__).with_name("page.html")
WORST = 2  # cases per cell that the page lists
KEEP_TRIANGLES = 0.35  # of the surfaces in the 3D view
TITLE_WIDTH = 24  # characters over a column of curves
COLUMN_PIXELS = 190  # where there are more of them than fit on the page
ORGAN_PIXELS = 80  # of the distributions, likewise
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7")  # for the paper's six cells
CELL_COLOURS = (*OKABE_ITO, *qualitative.Dark24)
PRINTED = "; below them the paper's value and ours minus it"
CLAIMS = """<h3>The paper's claims</h3>
<p>Here a claim holds, or does not, if the paired 95 % intervals over patients say so (differences of AVG in points);
else it is undecided. The printed table has no intervals, and shows a direction only.</p>"""
PLACEHOLDER = re.compile("<!--([A-Z]+)-->")
Pictures = Mapping[str, Mapping[str, Pictured]]  # case → cell → picture


def page_html(
    cells: Sequence[Cell],
    table: pd.DataFrame,
    pairs: pd.DataFrame,
    lines: Mapping[str, Sequence[str]],
    observations: Sequence[tuple[Observation, Observation]],
    pictures: Pictures,
) -> str:
    """The page.

    Args:
        cells: of the grid, at least one.
        table: `table1.grid_table`.
        pairs: `statistics.compare_cells`.
        lines: paragraphs of text by their heading: the summary, the ranking, the notes.
        observations: each on our numbers and on the printed ones, whose means alone are known; none of a grid of other
            classes than the paper's.
        pictures: what the slices and the 3D view show.
    """
    data = {
        "labels": [{"name": label.name, "colour": label.rgb} for label in cells[0].labels.labels],
        "cases": {case: _case(by_cell) for case, by_cell in pictures.items()},
        "figures": {name: json.loads(figure.to_json()) for name, figure in _figures(cells, pairs).items()},
    }
    parts = {
        "SUMMARY": "".join(
            f"<h3>{html.escape(title)}</h3><ul>{''.join(f'<li>{html.escape(line)}</li>' for line in said)}</ul>"
            for title, said in lines.items()
            if said
        ),
        "CLAIMS": _claims(observations) if observations else "",
        "PRINTED": PRINTED if table["printed"].notna().any() else "",
        "TABLE": _table(table),
        "WORST": _worst(cells, pictures),
        "CELLS": "".join(map(_cell, cells)),
        "PLOTLY": get_plotlyjs(),
        "DATA": str(htmlsafe_json_dumps(data)),
    }
    return PLACEHOLDER.sub(lambda found: parts[found[1]], TEMPLATE.read_text(encoding="utf-8"))


def worst_cases(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Per cell, the cases with the lowest mean organ Dice."""
    means = organ_means(cells)
    return {name: means[name].dropna().sort_values().index[:WORST].tolist() for name in means}


def matrix_figure(pairs: pd.DataFrame) -> go.Figure:
    """Differences of the mean organ Dice between all cells, row minus column, marked where Holm's p is below 0.05."""
    of_means = pairs[pairs["row"] == ORGANS_MEAN]
    names = list(dict.fromkeys([*of_means["cell_a"], *of_means["cell_b"]]))
    blank = np.where(np.eye(len(names), dtype=bool), 0.0, np.nan)  # it stays so if two cells have no case in common
    values = pd.DataFrame(blank, names, names)
    marks = pd.DataFrame("", names, names, dtype=object)
    for a, b, difference, p in of_means[["cell_a", "cell_b", "difference", "p_holm"]].itertuples(index=False):
        mark = (f"p {p:.3f}" if p >= 0.0005 else plotly("p < 0.001")) + (" *" if p < SIGNIFICANT else "")
        for first, second, sign in ((a, b, 1), (b, a, -1)):
            values.loc[first, second] = 100 * sign * difference
            marks.loc[first, second] = f"{100 * sign * difference:+.1f}<br>{mark}"
    shown = [plotly(name, 30) for name in names]
    heat = go.Heatmap(
        z=values.to_numpy(), x=shown, y=shown, text=marks.to_numpy(), texttemplate="%{text}", colorscale="RdBu", zmid=0,
        colorbar={"title": "points"}, hovertemplate="%{y} minus %{x}<br>%{text}<extra></extra>",
    )  # fmt: skip
    figure = _styled(go.Figure(heat), max(460, 60 * len(names))).update_xaxes(type="category")
    return figure.update_yaxes(type="category", autorange="reversed")


def _figures(cells: Sequence[Cell], pairs: pd.DataFrame) -> dict[str, go.Figure]:
    return {"curves": _curves(cells), "distributions": _distributions(cells), "matrix": matrix_figure(pairs)}


def _curves(cells: Sequence[Cell]) -> go.Figure:
    spacing = min(0.03, 0.2 / len(cells))
    titles = [plotly(cell.name, TITLE_WIDTH) for cell in cells]
    shown = {"shared_xaxes": True, "vertical_spacing": 0.05, "horizontal_spacing": spacing, "column_titles": titles}
    figure = make_subplots(1 + len(STAGES), len(cells), **shown)
    begun = next(column for column, cell in enumerate(cells, start=1) if cell.runs)  # the legend is of its lines
    for column, cell in enumerate(cells, start=1):
        for (row, stage), run in itertools.product(enumerate(STAGES, start=2), cell.runs[:1]):
            lines = {"loss": (1, "black", "dot" if stage == "val" else "solid")}
            for label, dash in zip(cell.labels.labels, dashes(cell.labels), strict=True):
                lines[f"dice/{label.name}"] = row, label.colour, dash
            for key, (place, colour, dash) in lines.items():
                points = run.metrics[["step", f"{stage}/{key}"]].dropna()
                name = f"loss, {stage}" if key == "loss" else key.removeprefix("dice/")
                is_told = column == begun and (key == "loss" or stage == "train")
                figure.add_scatter(
                    x=points["step"], y=points[f"{stage}/{key}"], name=name, legendgroup=name, showlegend=is_told,
                    line={"color": colour, "dash": dash}, row=place, col=column,
                )  # fmt: skip
    for row, stage in enumerate(STAGES, start=2):
        figure.update_yaxes(range=[0, 1.01], row=row)
        figure.update_yaxes(title_text=f"Dice, {stage}", row=row, col=1)
    figure.update_yaxes(title_text="loss", row=1, col=1)
    figure.update_annotations(font_size=12)  # six titles side by side
    _styled(figure, 720).update_traces(mode="lines").update_xaxes(title_text="iteration", row=1 + len(STAGES))
    breaks = max(title.count("<br>") for title in titles)
    width = COLUMN_PIXELS * len(cells) if len(cells) > len(TABLE1) else None  # else as wide as the page
    return figure.update_layout(hovermode="x", width=width, margin_t=60 + 16 * breaks)


def _distributions(cells: Sequence[Cell]) -> go.Figure:
    figure, names = go.Figure(), cells[0].labels.names
    width = ORGAN_PIXELS * (len(names) - 1) if len(names) > MOST_TOLD + 1 else None
    for cell, colour in zip(cells, CELL_COLOURS * len(cells), strict=False):
        organs = cell.scores[cell.scores["name"] != BACKGROUND_NAME]
        figure.add_box(x=organs["name"], y=organs["dice"], name=plotly(cell.name), text=organs["case"].map(plotly),
                       boxpoints="all", jitter=0.4, pointpos=0, marker={"size": 4, "color": colour})  # fmt: skip
    return (
        _styled(figure, 460)
        .update_layout(boxmode="group", width=width)
        .update_yaxes(title_text="Dice", range=[-0.02, 1.02])
        .update_xaxes(categoryorder="array", categoryarray=names)
    )


def _styled(figure: go.Figure, height: int) -> go.Figure:
    return figure.update_layout(height=height, template="plotly_white", margin={"t": 40, "l": 60, "r": 20, "b": 50})


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
        "ct": _packed(ct),
        "labels": {name: _packed(label.astype(np.uint8)) for name, label in labels.items()},
        "surfaces": {name: _meshes(label, first) for name, label in labels.items()},
    }


def _packed(volume: np.ndarray) -> str:
    """uint8 (X, Y, Z) in RAS+ as slices from the feet, rows from the front, columns from the patient's right."""
    slices = np.ascontiguousarray(volume[::-1, ::-1].transpose(2, 1, 0))  # (Z, Y, X)
    return base64.b64encode(gzip.compress(slices.tobytes(), mtime=0)).decode()


def _meshes(label: np.ndarray, shown: Pictured) -> list[dict[str, Any]]:
    traces = []
    for surface in surfaces_of(label, shown.labels, shown.spacing_mm, KEEP_TRIANGLES):
        corners = dict(zip("ijk", surface.triangles.T, strict=True))
        places = dict(zip("xyz", surface.vertices.T, strict=True))
        organ = surface.organ
        mesh = go.Mesh3d(**places, **corners, name=organ.name, color=organ.colour, hoverinfo="name")
        mesh.update(opacity=organ.opacity, showlegend=True, flatshading=False)
        traces.append(json.loads(go.Figure(mesh).to_json())["data"][0])
    return traces


def _table(table: pd.DataFrame) -> str:
    """Rows of Table 1, a column per cell: ours, its interval, the printed value and the difference."""
    cells = table["cell"].unique()
    head = "".join(f'<th scope="col"><button>{html.escape(cell)}</button></th>' for cell in cells)
    best = table.groupby("row")["dice"].max().round(1)
    body = []
    for row, values in table.groupby("row", sort=False):
        by_cell = {value.cell: value for value in values.itertuples()}
        columns = []
        for cell in cells:
            value = by_cell[cell]
            own = "–" if np.isnan(value.dice) else f"{value.dice:.1f}"
            own = f"<b>{own}</b>" if round(value.dice, 1) == best[row] else own
            interval = "" if np.isnan(value.low) else f"<small>{value.low:.1f} to {value.high:.1f}</small>"
            printed = "" if np.isnan(value.printed) else f"<small>paper {value.printed:.1f}"
            printed += "" if np.isnan(value.difference) else f", {value.difference:+.1f}"
            columns.append(
                f'<td data-value="{value.dice}">{own}{interval}{printed}{"</small>" if printed else ""}</td>'
            )
        body.append(f'<tr><th scope="row">{html.escape(row)}</th>{"".join(columns)}</tr>')
    first = '<th scope="col"><button>class</button></th>'
    return f"<table id='table1'><thead><tr>{first}{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _claims(observations: Sequence[tuple[Observation, Observation]]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(ours.claim)}</th><td><b>{ours.answer}</b><small>{html.escape(ours.figures)}"
        f"</small></td><td><b>{printed.answer}</b><small>{html.escape(printed.figures)}</small></td></tr>"
        for ours, printed in observations
    )
    head = "<tr><th>claim</th><th>here, by intervals</th><th>Table 1, by its means alone</th></tr>"
    return f"{CLAIMS}<div class='wide'><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>"


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
