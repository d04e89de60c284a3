"""python -m lightning_dice.report sweep=FOLDER: the paper's table and figures from a grid's runs, finished or not."""

from lightning_dice.cli import command

if __name__ == "__main__":
    command("report", paths=("sweep", "output"))

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from omegaconf import DictConfig

from lightning_dice.errors import InputError
from lightning_dice.files import atomic_write
from lightning_dice.paper.archive import ARCHIVE, read_archive, write_archive
from lightning_dice.paper.ensembles import Combined, ensemble_lines, ensemble_table, read_ensembles
from lightning_dice.paper.figure1 import grid_curves, has_curves
from lightning_dice.paper.grid import Cell, Grid, is_papers, read_grid
from lightning_dice.paper.observations import Observation, observe, observe_printed
from lightning_dice.paper.page import PRINTED, page_html
from lightning_dice.paper.predictions import observe_predictions
from lightning_dice.paper.published import NOTES, TABLE1, WEIGHTINGS
from lightning_dice.paper.rates import rate_lines, rates_figure
from lightning_dice.paper.remarks import remarks_on
from lightning_dice.paper.segmentations import weighting_figure
from lightning_dice.paper.statistics import compare_cells, ranking
from lightning_dice.paper.table1 import grid_table, latex_table, markdown_table
from lightning_dice.paper.variance import variance_lines, variance_table
from lightning_dice.paper.viewer import Viewed, read_viewed
from lightning_dice.pictures.surfaces import has_off_screen_gl
from lightning_dice.runs import write_table
from lightning_dice.settings import ReportSettings
from lightning_dice.validation import checked

WIDEST = 60_000  # pixels that matplotlib can draw side by side
STILL_DPI = 90  # of the figures on the page
OPTIONAL = ("ensembles.csv", "figure[1-4].*", "rates.*")  # files that not every report has


def report(config: DictConfig) -> Path:
    """Write table, statistics, figures and page of a grid to `output`, from files alone. The paper's values, notes and
    claims are in it if the grid's classes are the paper's.

    Raises:
        InputError: no run in the folder that can be read.
    """
    checked(config, ReportSettings)
    sweep, folder = (Path(path).expanduser() for path in (config.sweep, config.output))
    if sweep.is_file() and sweep in folder.parents:
        raise InputError(f"output={folder}: expected a folder, since sweep={sweep} is a file; add output=FOLDER")
    grid, ensembles = read_archive(sweep) if sweep.is_file() else _read_folder(sweep)
    cells = grid.cells
    is_comparable = is_papers(grid.labels)
    table, pairs, variances = grid_table(cells), compare_cells(cells), variance_table(cells)
    rates, spread = rate_lines(cells, table), variance_lines(variances)
    claims, predictions = _claims(cells) if is_comparable else ({}, {})
    viewed = Viewed() if sweep.is_file() else read_viewed(cells)
    together = ensemble_table(cells, ensembles)
    remarks = [*remarks_on(grid, pairs), *viewed.remarks]
    if ensembles and together.empty:
        remarks.append("Ensembles: left out, since no test case is common to them and all cells.")
    if viewed.typical and not has_off_screen_gl():
        remarks.append("Surfaces are drawn by matplotlib, because PyVista has no off-screen GL on this machine.")
    notes = [*remarks, *NOTES] if is_comparable else remarks

    _write(folder / "table1.md", markdown_table(table, notes, spread))
    _write(folder / "table1.tex", latex_table(table))
    printed = [] if is_comparable else ["printed", "difference"]
    write_table(folder / "table1.csv", table.drop(columns=printed))
    write_table(folder / "statistics.csv", pairs)
    write_table(folder / "variance.csv", variances)
    with atomic_write(folder / ARCHIVE) as path:
        write_archive(path, grid, ensembles)
    for name in OPTIONAL:  # of an earlier report, which had more
        for file in folder.glob(name):
            file.unlink()
    if len(together):
        write_table(folder / "ensembles.csv", together)
    figures = {"figure1": grid_curves(cells)} if has_curves(cells) else {}
    figures |= {"rates": rates_figure(rates)} if rates else {}
    for (name, figure), ending in itertools.product(figures.items(), ("png", "svg")):
        with atomic_write(folder / f"{name}.{ending}") as path:
            figure.savefig(path, dpi=min(200, WIDEST // figure.get_figwidth()))
    for figure in figures.values():
        figure.clear()  # what it holds refers to itself, and would stay in memory
    stills: dict[str, bytes] = {}
    for number, loss in enumerate(WEIGHTINGS, start=2):
        shown = {
            cell.setting: viewed.typical[cell.name]
            for cell in cells
            if cell.loss == loss and cell.name in viewed.typical
        }
        if shown:
            figure = weighting_figure(loss, shown)
            with atomic_write(folder / f"figure{number}.png") as path:
                figure.savefig(path, dpi=200)
            still = BytesIO()
            figure.savefig(still, dpi=STILL_DPI)
            stills[f"Figure {number}: {loss} weights"] = still.getvalue()
            figure.clear()
    ranks = ranking(cells, pairs)
    states = [f"{cell.name}: {cell.states}" for cell in cells]
    lines = {"Ensembles": [told for one in ensembles for told in one.told], "Notes": notes}
    tables = table, pairs, rates, variances, together
    beside = {PRINTED: observe_printed()} if claims else {}
    page = page_html(cells, *tables, lines, claims | beside, predictions, viewed.cases, stills)
    _write(folder / "index.html", page)

    answers = [
        f"{one.claim}{f', {start}' if start else ''}: {one.told} ({one.figures})"
        for by_start in (claims, predictions)
        for start, found in by_start.items()
        for one in found
    ]
    told = states, ranks, spread, ensemble_lines(together), answers, remarks, [f"written to {folder}"]
    print("\n\n".join("\n".join(said) for said in told if said))
    return folder


def _read_folder(sweep: Path) -> tuple[Grid, list[Combined]]:
    grid = read_grid(sweep)
    ensembles, remarks = read_ensembles(sweep, grid)
    return replace(grid, remarks=(*grid.remarks, *remarks)), ensembles


def _claims(cells: Sequence[Cell]) -> tuple[dict[str, list[Observation]], dict[str, list[Observation]]]:
    """The paper's claims and its predictions, by the further settings of the six cells: the paper's none, and each of
    which all six have scores."""
    of = Counter(cell.variant for cell in cells if cell.finished and (cell.loss, cell.lr) in TABLE1)
    starts = ["", *(variant for variant, count in of.items() if variant and count == len(TABLE1))]
    predictions = {start: observe_predictions(cells, start) for start in starts}
    return {start: observe(cells, start) for start in starts}, {key: own for key, own in predictions.items() if own}


def _write(file: Path, text: str) -> None:
    with atomic_write(file) as path:
        path.write_text(text, encoding="utf-8")
