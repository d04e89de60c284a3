"""python -m lightning_dice.report sweep=FOLDER: the paper's table and figures from a grid's runs, finished or not."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from lightning_dice.cli import command
from lightning_dice.files import atomic_write
from lightning_dice.paper.ensembles import ensemble_lines, ensemble_table, read_ensembles
from lightning_dice.paper.figure1 import grid_curves
from lightning_dice.paper.grid import Cell, is_papers, read_grid
from lightning_dice.paper.observations import observe, observe_printed
from lightning_dice.paper.page import page_html, worst_cases
from lightning_dice.paper.published import NOTES, WEIGHTINGS
from lightning_dice.paper.rates import rate_lines, rates_figure
from lightning_dice.paper.remarks import remarks_on
from lightning_dice.paper.segmentations import picture, typical_case, weighting_figure
from lightning_dice.paper.statistics import compare_cells, ranking
from lightning_dice.paper.table1 import grid_table, latex_table, markdown_table
from lightning_dice.paper.variance import variance_lines, variance_table
from lightning_dice.pictures.slices import Pictured
from lightning_dice.pictures.surfaces import has_off_screen_gl
from lightning_dice.runs import write_table
from lightning_dice.settings import ReportSettings
from lightning_dice.validation import checked

MOST_PICTURED = 100  # predictions in figures and page
WIDEST = 60_000  # pixels that matplotlib can draw side by side


def report(config: DictConfig) -> Path:
    """Write table, statistics, figures and page of a grid to `output`, from files alone. The paper's values, notes and
    claims are in it if the grid's classes are the paper's.

    Raises:
        InputError: no run in the folder that can be read.
    """
    checked(config, ReportSettings)
    grid = read_grid(config.sweep)
    cells = grid.cells
    folder = Path(config.output).expanduser()
    is_comparable = is_papers(grid.labels)
    table, pairs, variances = grid_table(cells), compare_cells(cells), variance_table(cells)
    rates, spread = rate_lines(cells, table), variance_lines(variances)
    observations = list(zip(observe(cells), observe_printed(), strict=True)) if is_comparable else []
    pictures, missing = _pictures(cells)
    ensembles, unread = read_ensembles(config.sweep, grid)
    together = ensemble_table(cells, ensembles)
    remarks = [*remarks_on(grid, pairs), *missing, *unread]
    if pictures and not has_off_screen_gl():
        remarks.append("Surfaces are drawn by matplotlib, because PyVista has no off-screen GL on this machine.")
    notes = [*remarks, *NOTES] if is_comparable else remarks

    _write(folder / "table1.md", markdown_table(table, notes, spread))
    _write(folder / "table1.tex", latex_table(table))
    printed = [] if is_comparable else ["printed", "difference"]
    write_table(folder / "table1.csv", table.drop(columns=printed))
    write_table(folder / "statistics.csv", pairs)
    write_table(folder / "variance.csv", variances)
    if len(together):
        write_table(folder / "ensembles.csv", together)
    figures = {"figure1": grid_curves(cells), **({"rates": rates_figure(rates)} if rates else {})}
    for (name, figure), ending in itertools.product(figures.items(), ("png", "svg")):
        with atomic_write(folder / f"{name}.{ending}") as path:
            figure.savefig(path, dpi=min(200, WIDEST // figure.get_figwidth()))
    case = typical_case(cells)
    typical = pictures.get(case, {}) if case else {}
    for number, loss in enumerate(WEIGHTINGS, start=2):
        shown = {cell.setting: typical[cell.name] for cell in cells if cell.loss == loss and cell.name in typical}
        if shown:
            with atomic_write(folder / f"figure{number}.png") as path:
                weighting_figure(loss, shown).savefig(path, dpi=200)
    ranks = ranking(cells, pairs)
    states = [f"{cell.name}: {cell.states}" for cell in cells]
    lines = {"Ranking": ranks, "Ensembles": [one.told for one in ensembles], "Notes": notes, "Cells": states}
    tables = table, pairs, rates, variances, together
    _write(folder / "index.html", page_html(cells, *tables, lines, observations, pictures))

    claims = [f"{ours.claim}: {ours.told} ({ours.figures})" for ours, _ in observations]
    told = states, ranks, spread, ensemble_lines(together), claims, remarks, [f"written to {folder}"]
    print("\n\n".join("\n".join(said) for said in told if said))
    return folder


def _pictures(cells: Sequence[Cell]) -> tuple[dict[str, dict[str, Pictured]], list[str]]:
    """By case and cell, those that figures and page show: a typical case and each cell's worst; and what is missing."""
    worst, typical = worst_cases(cells), typical_case(cells)
    first = [(typical, cell.name) for cell in cells] + [(case, name) for name, own in worst.items() for case in own]
    others = [(case, cell.name) for own in worst.values() for case in own for cell in cells]
    scored = {cell.name: (cell, set(cell.scores["case"])) for cell in cells if cell.finished}
    wanted = [(c, name) for c, name in dict.fromkeys(first + others) if c and name in scored and c in scored[name][1]]
    pictures: dict[str, dict[str, Pictured]] = {}
    missing: dict[tuple[str, str], list[str]] = {}  # cases by cell and reason
    for case, name in wanted[:MOST_PICTURED]:
        found = picture(scored[name][0], case)
        if isinstance(found, str):
            missing.setdefault((name, found), []).append(case)
        else:
            pictures.setdefault(case, {})[name] = found
    left_out = len(wanted) - MOST_PICTURED
    remarks = [f"{left_out} of {len(wanted)} predictions are not pictured, to keep the page small."] * (left_out > 0)
    remarks += [f"{name}: no picture of {', '.join(own)} ({why})" for (name, why), own in missing.items()]
    return pictures, remarks


def _write(file: Path, text: str) -> None:
    with atomic_write(file) as path:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    command("report/report", paths=("sweep", "output"))(report)()
