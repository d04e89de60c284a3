"""What a reader must know before believing a number of a grid: what is missing, left out, or not alike."""

from collections.abc import Sequence

import pandas as pd

from lightning_dice.data.labels import told_names
from lightning_dice.naming import TOLD_BY_FILE
from lightning_dice.paper.folder_names import DIGEST
from lightning_dice.paper.grid import Cell, Grid, differing, first_few, is_papers
from lightning_dice.paper.observations import ONE_SEED
from lightning_dice.paper.statistics import LEAST_CASES, ORGANS_MEAN, smallest_p
from lightning_dice.pictures.escaping import one_line

PAIRS_OF_SIX = 15  # cells, as the paper's table has
FEW_CASES = 3  # that have a class: of one there is no variance, of two hardly any estimate
ENOUGH_SEEDS = 5  # for the tests to keep their 5 % also where some seeds lose a class and others do not


def remarks_on(grid: Grid, pairs: pd.DataFrame) -> list[str]:
    """Sentences about a grid's runs.

    Args:
        grid: of the report.
        pairs: `statistics.compare_cells` of its cells.
    """
    finished = [cell for cell in grid.cells if cell.finished]
    return [
        *folder_remarks(grid),
        *(f"{cell.name}: {cell.states}" for cell in grid.cells if not (cell.runs or cell.left_out)),
        *_lost(grid.cells),
        *_seeds(finished),
        *_cases(finished, pairs),
        *_classes(finished),
    ]


def folder_remarks(grid: Grid) -> list[str]:
    """Those that need the runs' folders: odd names, runs that do not count and why, settings that are not alike."""
    begun = [cell for cell in grid.cells if cell.runs or cell.left_out]
    states = [f"{cell.name}: {cell.states}" for cell in begun if cell.left_out or _is_incomplete(cell)]
    return list(dict.fromkeys([*grid.remarks, *states, *_unlike_settings(grid.cells)]))


def _is_incomplete(cell: Cell) -> bool:
    return len(cell.finished) < max(1, len(cell.runs))


def _unlike_settings(cells: Sequence[Cell]) -> list[str]:
    """Cells that differ from the first one in more than their names say, which makes them no comparison."""
    begun = [cell for cell in cells if cell.runs and DIGEST not in _keys(cell)]
    said = []
    for cell in begun[1:]:
        told = ("loss", "optim.lr", *_keys(cell), *_keys(begun[0]))
        if texts := differing(begun[0].runs[0], cell.runs[0], told):
            said.append(f"{cell.name} differs from {begun[0].name} in more than its name says: {'; '.join(texts)}.")
    return said


def _keys(cell: Cell) -> list[str]:
    """Where the settings stand that its name tells."""
    keys = [part.partition("=")[0] for part in cell.variant.split(", ")] if cell.variant else []
    return [".".join(TOLD_BY_FILE.get(key, (key,))) for key in keys]


def _lost(cells: Sequence[Cell]) -> list[str]:
    """Runs whose loss may look as good as others', though they do not find a large class on their own patches."""
    said = []
    for cell in cells:
        lost = [
            f"seed {run.seed} lost {', '.join(f'{one_line(name)} ({dice:.2f})' for name, dice in run.lost.items())}"
            for run in cell.runs
            if run.lost
        ]
        if lost:
            said.append(f"{cell.name}: {'; '.join(lost)}, by the training Dice at the end.")
    return said


def _seeds(finished: Sequence[Cell]) -> list[str]:
    said = []
    by_count: dict[int, list[Cell]] = {}
    for cell in sorted(finished, key=lambda cell: -len(cell.finished)):
        by_count.setdefault(len(cell.finished), []).append(cell)
    if max(by_count, default=1) > 1:
        counts = "; ".join(f"{count} of {_told(cells, finished)}" for count, cells in by_count.items())
        said.append(f"Scores are means over seeds: {counts}.")
    if 1 in by_count:
        said.append(f"{_told(by_count[1], finished)}: {ONE_SEED}.")
    if few := [cell for cell in finished if 1 < len(cell.finished) < ENOUGH_SEEDS]:
        said.append(
            f"{_told(few, finished)}: fewer than {ENOUGH_SEEDS} seeds. The tests assume normally "
            "distributed seed means; where some seeds lose a class and others do not, they find a difference too often."
        )
    if partly := [f"{cell.partly_defined} of {cell.name}" for cell in finished if cell.partly_defined]:
        said.append(
            f"Scores that only some of a cell's seeds define, with means over those seeds: {first_few(partly)}."
        )
    for cell in finished:
        if cell.uncommon:
            cases = first_few(cell.uncommon, ", ")
            said.append(
                f"{cell.name}: without {cases}, which not all of its seeds scored; test cases that remain: "
                f"{cell.scores['case'].nunique()}."
            )
    return said


def _cases(finished: Sequence[Cell], pairs: pd.DataFrame) -> list[str]:
    said = []
    cases = {cell.name: frozenset(cell.scores["case"]) for cell in finished}
    if len(set(cases.values())) > 1:
        counts = first_few([f"{len(own)} of {name}" for name, own in cases.items()])
        said.append(
            f"The cells were tested on different cases ({counts}): their means in Table 1 are not over the same "
            "patients. Tests and claims use the cases that cells have in common."
        )
    counts = pairs.loc[pairs["row"] == ORGANS_MEAN, "cases"]
    if len(counts):
        count = int(counts.min())
        where = "" if count == counts.max() else " in one of the comparisons"
        said.append(
            f"{count} test cases{where}: no signed-rank test of so many can give a p below {smallest_p(count):.3g}, "
            "and Holm's correction only raises it."
        )
    if (tests := int(pairs.loc[pairs["row"] == ORGANS_MEAN, "p_weightings"].count())) > PAIRS_OF_SIX:
        said.append(
            f"Holm's correction of the tests between weightings is over {tests} pairs of cells: with so many even a "
            "large difference may not be distinguishable. The claims have a correction of their own."
        )
    if few := [c.name for c in finished if len(c.finished) == 1 and len(cases[c.name]) < LEAST_CASES]:
        said.append(f"Intervals over fewer than {LEAST_CASES} cases are too narrow: {first_few(few)}.")
    return said


def _classes(finished: Sequence[Cell]) -> list[str]:
    said = []
    rare: dict[tuple[str, ...], list[Cell]] = {}
    for cell in finished:
        cases = cell.matrix().notna().sum()
        if names := cases.index[(cases > 0) & (cases < min(FEW_CASES, cell.scores["case"].nunique()))].tolist():
            rare.setdefault(tuple(names), []).append(cell)
    for few, cells in rare.items():
        said.append(
            f"{_told(cells, finished)}: fewer than {FEW_CASES} test cases have {told_names(few)}, too few to tell how "
            "patients differ: the intervals and tests of means that hold them are too narrow."
        )
    for cell in finished:
        names = cell.labels.names
        defined = cell.matrix().notna().any()
        if not defined.all() and len(cell.scores):
            lacking = [name for name in names if not defined[name]]
            unlike = ", and do not compare with the paper's" if is_papers(cell.labels) else ""
            said.append(
                f"{cell.name}: AVG, MAX and MIN are over {defined.sum()} of {len(names)} classes, without "
                f"{told_names(lacking)}{unlike}."
            )
    return said


def _told(some: Sequence[Cell], cells: Sequence[Cell]) -> str:
    return "all cells" if len(some) == len(cells) > 1 else first_few([cell.name for cell in some])
