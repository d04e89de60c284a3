"""The page's interactive figures, by plotly: learning curves, rates, distributions, and which cells differ."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from lightning_dice.data.labels import BACKGROUND_NAME
from lightning_dice.paper.figure1 import has_curves, mean_curves
from lightning_dice.paper.grid import Cell
from lightning_dice.paper.intervals import SIGNIFICANT
from lightning_dice.paper.published import TABLE1, WEIGHTINGS
from lightning_dice.paper.rates import MOST_TICKS, OKABE_ITO
from lightning_dice.paper.statistics import ORGANS_MEAN
from lightning_dice.pictures.curves import STAGES, curve_of, dashes, loss_axis
from lightning_dice.pictures.escaping import plotly
from lightning_dice.pictures.legend import MOST_TOLD

TITLE_WIDTH = 24  # characters over a column of curves
COLUMN_PIXELS = 190  # where there are more of them than fit on the page
ORGAN_PIXELS = 80  # of the distributions, likewise
FAINT_POINTS = 100  # of a faint curve
MATRIX_COLOURS = ((0, "#f4a582"), (0.5, "#ffffff"), (1, "#92c5de"))  # pale, for the sake of the numbers on them
MATRIX_TEXT = "#1a1a1a"
CELL_COLOURS = (*OKABE_ITO, *qualitative.Dark24)


def interactive_figures(
    cells: Sequence[Cell], pairs: pd.DataFrame, rates: Mapping[str, pd.DataFrame]
) -> dict[str, go.Figure]:
    """By the id of their place on the page.

    Args:
        cells: of the grid.
        pairs: `statistics.compare_cells`.
        rates: `rates.rate_lines`; without any there is no figure of them.
    """
    figures = {"distributions": _distributions(cells), "matrix": matrix_figure(pairs)}
    figures |= {"rates": _rates(rates)} if rates else {}
    return figures | ({"curves": _curves(cells)} if has_curves(cells) else {})


def matrix_figure(pairs: pd.DataFrame) -> go.Figure:
    """Differences of the mean organ Dice between all cells, row minus column, marked where Holm's p is below 0.05: * of
    the weightings, where both cells have several seeds, else ° of the networks."""
    of_means = pairs[pairs["row"] == ORGANS_MEAN]
    names = list(dict.fromkeys([*of_means["cell_a"], *of_means["cell_b"]]))
    blank = np.where(np.eye(len(names), dtype=bool), 0.0, np.nan)  # it stays so if two cells have no case in common
    values = pd.DataFrame(blank, names, names)
    marks = pd.DataFrame("", names, names, dtype=object)
    wanted = ["cell_a", "cell_b", "difference", "p_weightings_holm", "p_networks_holm", "rank_biserial"]
    for a, b, difference, of_weightings, of_networks, effect in of_means[wanted].itertuples(index=False):
        p, sign = of_weightings, " *"
        if np.isnan(of_weightings):
            p, sign = of_networks, " °" if effect * difference >= 0 else ""  # else most cases are for the lower mean
        mark = (f"p {p:.3f}" if p >= 0.0005 else plotly("p < 0.001")) + (sign if p < SIGNIFICANT else "")
        for first, second, points in ((a, b, 100 * difference), (b, a, -100 * difference)):
            values.loc[first, second] = points
            marks.loc[first, second] = f"{points:+.1f}<br>{mark}"
    shown = [plotly(name, 30) for name in names]
    heat = go.Heatmap(
        z=values.to_numpy(), x=shown, y=shown, text=marks.to_numpy(), texttemplate="%{text}",
        colorscale=MATRIX_COLOURS, zmid=0, textfont={"color": MATRIX_TEXT},
        colorbar={"title": "points"}, hovertemplate="%{y} minus %{x}<br>%{text}<extra></extra>",
    )  # fmt: skip
    figure = _styled(go.Figure(heat), max(460, 60 * len(names))).update_xaxes(type="category")
    return figure.update_yaxes(type="category", autorange="reversed")


def _curves(cells: Sequence[Cell]) -> go.Figure:
    spacing = min(0.03, 0.2 / len(cells))
    titles = [plotly(cell.name, TITLE_WIDTH) for cell in cells]
    shown = {"shared_xaxes": True, "vertical_spacing": 0.05, "horizontal_spacing": spacing, "column_titles": titles}
    figure = make_subplots(1 + len(STAGES), len(cells), **shown)
    begun = next(column for column, cell in enumerate(cells, start=1) if cell.runs)  # the legend is of its lines
    for column, cell in enumerate(cells, start=1):
        if not cell.runs:
            continue
        mean, of_seeds = mean_curves(cell)
        for row, stage in enumerate(STAGES, start=2):
            lines = {"loss": (1, "black", "dot" if stage == "val" else "solid")}
            for label, dash in zip(cell.labels.labels, dashes(cell.labels), strict=True):
                lines[f"dice/{label.name}"] = row, label.colour, dash
            for key, (place, colour, dash) in lines.items():
                curve, behind = curve_of(f"{stage}/{key}", mean, of_seeds)
                name = f"loss, {stage}" if key == "loss" else key.removeprefix("dice/")
                is_told = column == begun and (key == "loss" or stage == "train")
                figure.add_scatter(
                    x=curve.index, y=curve, name=name, legendgroup=name, showlegend=is_told,
                    line={"color": colour, "dash": dash}, row=place, col=column,
                )  # fmt: skip
                if behind:
                    thin = _end_to_end(behind)
                    figure.add_scatter(
                        x=thin.index, y=thin, name=name, legendgroup=name, showlegend=False, opacity=0.35,
                        line={"color": colour, "dash": dash, "width": 0.8}, hoverinfo="skip", row=place, col=column,
                    )  # fmt: skip
    for row, stage in enumerate(STAGES, start=2):
        figure.update_yaxes(range=[0, 1.01], row=row)
        figure.update_yaxes(title_text=f"Dice, {stage}", row=row, col=1)
    loss = loss_axis(all(cell.loss in WEIGHTINGS for cell in cells if cell.runs)).replace("\n", "<br>")
    figure.update_yaxes(title_text=loss, row=1, col=1)
    figure.update_annotations(font_size=12)  # six titles side by side
    _styled(figure, 720).update_traces(mode="lines").update_xaxes(title_text="iteration", row=1 + len(STAGES))
    breaks = max(title.count("<br>") for title in titles)
    width = COLUMN_PIXELS * len(cells) if len(cells) > len(TABLE1) else None  # else as wide as the page
    return figure.update_layout(hovermode="x", width=width, margin_t=60 + 16 * breaks)


def _end_to_end(curves: Sequence[pd.Series]) -> pd.Series:
    """As one line with gaps between them, thinned out."""
    parts = []
    for curve in curves:
        parts += [curve.iloc[:: -(-len(curve) // FAINT_POINTS) or 1], pd.Series([np.nan], index=[0])]
    return pd.concat(parts)


def _rates(lines: Mapping[str, pd.DataFrame]) -> go.Figure:
    """As `rates.rates_figure`."""
    figure = go.Figure()
    for (name, line), colour in zip(lines.items(), CELL_COLOURS * len(lines), strict=False):
        group = {"name": plotly(name), "legendgroup": plotly(name)}
        band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, **group}
        figure.add_scatter(x=line["lr"], y=line["low"], **band)
        figure.add_scatter(x=line["lr"], y=line["high"], fill="tonexty", fillcolor=f"{colour}26", **band)
        told = [f"{d:.1f} ({low:.1f} to {high:.1f})" for d, low, high in line[["dice", "low", "high"]].to_numpy()]
        figure.add_scatter(x=line["lr"], y=line["dice"], text=told, hovertemplate="rate %{x}: %{text}",
                           mode="lines+markers", line={"color": colour},
                           marker={"size": 16, "symbol": "line-ew-open"}, **group)  # fmt: skip
        seeds = line.explode("seeds")
        figure.add_scatter(x=seeds["lr"], y=seeds["seeds"].astype(float), mode="markers", showlegend=False,
                           marker={"size": 5, "color": colour, "symbol": "circle-open"}, **group)  # fmt: skip
    rates = sorted({rate for line in lines.values() for rate in line["lr"]})
    ticks = {"tickvals": rates, "ticktext": [f"{rate:g}" for rate in rates]} if len(rates) <= MOST_TICKS else {}
    figure.update_xaxes(type="log", title_text="initial learning rate", **ticks)
    return _styled(figure, 480).update_yaxes(title_text="mean organ Dice in percent")


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
