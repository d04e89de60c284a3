"""All scores of a grid in one tidy table, from which its report can be drawn again without the runs."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lightning_dice.config import shipped_labels
from lightning_dice.data.labels import LabelSet, label_set
from lightning_dice.errors import InputError
from lightning_dice.paper.ensembles import Combined
from lightning_dice.paper.grid import Cell, Grid, papers_cells
from lightning_dice.paper.remarks import folder_remarks
from lightning_dice.paper.stored import HIGHEST, StoredRun
from lightning_dice.pictures.escaping import one_line
from lightning_dice.runs import Run, metric_columns

ARCHIVE = "scores.csv.gz"
DECIMALS = {"dice": 5, "hd95_mm": 2, "surface_dice": 4, "lost": 3, "validation": 4}  # Jaccard follows from Dice
WHOLE = ("seed", "label", "runs")
TEXTS = ("loss", "variant", "data", "ensemble", "case", "name", "remark")
OF_RUN = ("loss", "lr", "variant", "seed", "data")
OF_ENSEMBLE = ("ensemble", "runs")
COLUMNS = (*OF_RUN, *OF_ENSEMBLE, "case", "label", "name", *DECIMALS, "remark")


def archive_table(grid: Grid, ensembles: Sequence[Combined]) -> pd.DataFrame:
    """Every score of every finished run, and the Dice of every ensemble.

    Returns:
        COLUMNS, a row per run, case and class: Dice and surface Dice in [0, 1], NaN where undefined; `data` is the
        fingerprint of the run's data, `lost` the final training Dice of a class that the run lost, else NaN, and
        `validation` the last validation Dice of the class, or NaN. After them the same of each ensemble, by its name
        and number of runs, with `seed` counting its seeds from 0, and a row per line on which runs it has. At the end a
        row per remark on the runs' folders, blank but for that: what is missing from the table, and which runs are not
        alike.
    """
    tables = []
    for cell in grid.cells:
        for run in cell.finished:
            assert run.scores is not None  # it is finished
            of_run = {"loss": cell.loss, "lr": cell.lr, "variant": cell.variant, "seed": run.seed, "data": run.data}
            of_class = {"lost": run.scores["name"].map(run.lost), "validation": run.scores["name"].map(run.validation)}
            tables.append(run.scores.assign(**of_run, **of_class))
    tables += [_of_ensemble(one, grid.labels) for one in ensembles]
    remarks = pd.DataFrame({"remark": folder_remarks(grid)}, dtype=str)
    table = pd.concat([*tables, remarks]).reindex(columns=COLUMNS)
    return table.astype(dict.fromkeys(WHOLE, "Int64")).round(DECIMALS)


def _of_ensemble(ensemble: Combined, labels: LabelSet) -> pd.DataFrame:
    cases, dice = ensemble.scores
    index = pd.MultiIndex.from_product([range(len(dice)), cases, range(len(labels))], names=["seed", "case", "label"])
    rows = pd.DataFrame({"dice": dice.ravel()}, index).reset_index()
    rows = rows.assign(name=rows["label"].map(dict(enumerate(labels.names))), runs=ensemble.runs)
    return pd.concat([rows, pd.DataFrame({"remark": ensemble.told})]).assign(ensemble=ensemble.name)


def write_archive(path: Path, grid: Grid, ensembles: Sequence[Combined]) -> None:
    """As compressed CSV, the same bytes for the same scores."""
    text = archive_table(grid, ensembles).to_csv(index=False)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def read_archive(file: Path) -> tuple[Grid, list[Combined]]:
    """The grid of an archived table, as `read_grid` has it of the runs, but without curves, settings and pictures; and
    the ensembles, as `read_ensembles` has them.

    Raises:
        InputError: a file that cannot be read, or is no such table.
    """
    try:
        blank = {column: [""] for column in ("lr", *WHOLE, *DECIMALS)}
        table = pd.read_csv(file, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=blank)
        if lacking := [column for column in COLUMNS if column not in table]:
            raise ValueError(f"no column {lacking[0]}")
        is_remark = table["remark"] != ""
        remarks, table = table[is_remark], table[~is_remark].astype({"seed": int, "label": int})
        of_grid = table[table["ensemble"] == ""]
        if of_grid.empty or not (of_grid["lr"] > 0).all():
            raise ValueError("no rows" if of_grid.empty else "a row without a rate")
        for score, highest in HIGHEST.items():
            if score in table and not (table[score].between(0, highest) | table[score].isna()).all():
                raise ValueError(f"a {score} out of range")
        if table.duplicated(["loss", "lr", "variant", "ensemble", "seed", "case", "label"]).any():
            raise ValueError("a score twice")
        if (of_grid.groupby(["loss", "lr", "variant"])["data"].nunique() > 1).any():
            raise ValueError("seeds of one cell on different data")
        labels = _labels(table)
        cells = papers_cells(labels)
        for (loss, lr, variant), rows in of_grid.groupby(["loss", "lr", "variant"], sort=False):
            runs = [_run(rows[rows["seed"] == seed], labels) for seed in rows["seed"].unique()]
            cells[loss, lr, variant] = Cell(loss, lr, labels, variant, tuple(runs))
        told = remarks.groupby("ensemble")["remark"].agg(tuple).to_dict()
        combined = table[table["ensemble"] != ""].astype({"runs": int}).groupby("ensemble", sort=False)
        ensembles = [_ensemble(str(name), told.get(name, ()), rows, labels) for name, rows in combined]
    except (OSError, EOFError, ValueError, TypeError) as error:  # of gzip, pandas and a table's contents
        reason = " ".join(str(error).split())
        raise InputError(f"sweep={file}: no table of scores ({reason}); expected a report's {ARCHIVE}") from None
    return Grid(tuple(cells.values()), labels, tuple(map(one_line, told.get("", ())))), ensembles


def _labels(table: pd.DataFrame) -> LabelSet:
    classes = table.drop_duplicates("label").sort_values("label")
    names = classes["name"].tolist()
    if classes["label"].tolist() != list(range(len(names))) or set(table["name"]) != set(names):
        raise ValueError("classes and their indices do not agree")
    papers = shipped_labels("paper")
    return papers if tuple(names) == papers.names else label_set("archive", {name: {} for name in names[1:]})


def _check_classes(rows: pd.DataFrame, labels: LabelSet) -> None:
    if rows.groupby(["seed", "case"])["label"].size().ne(len(labels)).any():
        raise ValueError(f"a case without all {len(labels)} classes")


def _ensemble(name: str, told: Sequence[str], rows: pd.DataFrame, labels: LabelSet) -> Combined:
    _check_classes(rows, labels)
    by_case = rows.pivot(index=["seed", "case"], columns="label", values="dice")
    seeds, cases = by_case.index.unique("seed"), by_case.index.unique("case")
    if len(by_case) != len(seeds) * len(cases):
        raise ValueError("an ensemble's seeds with unlike cases")
    dice = by_case.to_numpy(float).reshape(len(seeds), len(cases), len(labels))
    return Combined(name, int(rows["runs"].iloc[0]), tuple(map(one_line, told)), (cases.tolist(), dice))


def _run(rows: pd.DataFrame, labels: LabelSet) -> StoredRun:
    first = rows.iloc[0]
    _check_classes(rows, labels)
    scores = rows.drop(columns=[*OF_RUN, *OF_ENSEMBLE, "lost", "validation", "remark"])
    scores = scores.assign(jaccard=scores["dice"] / (2 - scores["dice"]), voxels_true=np.nan, voxels_pred=np.nan)
    of_class = rows.drop_duplicates("name").set_index("name")
    lost, validation = of_class["lost"].dropna().to_dict(), of_class["validation"].to_dict()
    config = {"seed": int(first["seed"]), "optim": {"lr": float(first["lr"])}}
    folder = Path(f"loss={first['loss']},lr={first['lr']:g},seed={first['seed']}")
    metrics = pd.DataFrame(columns=metric_columns(labels.names), dtype=float)
    return StoredRun(Run(folder), config, labels, first["data"], True, metrics, scores, lost, validation, {})
