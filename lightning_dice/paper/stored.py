"""One run's files, read and checked for a report: all that it tells is sound, or it is broken, with the reason."""

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_dice.data.labels import LabelSet
from lightning_dice.errors import InputError
from lightning_dice.naming import OUR_LOSS, SUM_LOSS, SUMMANDS, loss_name
from lightning_dice.runs import SCORE_COLUMNS, Run, metric_columns, read_config, read_labels

TEXTS = ("case", "name")  # columns of scores.csv that are no numbers
HIGHEST = {"dice": 1.0, "jaccard": 1.0, "hd95_mm": math.inf, "surface_dice": 1.0}  # from 0
NEEDED: dict[str, Any] = {
    "seed": int,
    "loss._target_": str,
    "optim.lr": (int, float),
    "trainer.max_steps": int,
}  # of config.yaml


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A run whose files are sound.

    Attributes:
        run: its folder.
        config: `config.yaml`.
        labels: its classes.
        data: fingerprint of the data; None if there is no `environment.json`.
        is_done: whether it finished.
        metrics: the curves so far; no rows where there are none yet.
        scores: `scores.csv`, each case with each class once; None of an unfinished run, or without test cases.
        lost: training Dice of the classes that it had lost at its end, by name; see `lightning_dice.lost`.
        validation: the last validation Dice of the classes, by name; NaN without one.
        failure: `error` and `reason` of the last session, or empty.
    """

    run: Run
    config: dict[str, Any]
    labels: LabelSet
    data: str | None
    is_done: bool
    metrics: pd.DataFrame
    scores: pd.DataFrame | None
    lost: dict[str, float]
    validation: dict[str, float]
    failure: dict[str, Any]

    @property
    def loss(self) -> str:
        """The weighting of the package's own loss, or another one's name."""
        return loss_name(self.config["loss"])

    @property
    def lr(self) -> float:
        return float(self.config["optim"]["lr"])

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def organs_validation(self) -> float:
        """Mean of the organs' last validation Dice; NaN without one."""
        return float(pd.Series([self.validation[name] for name in self.labels.names[1:]], dtype=float).mean())

    @property
    def state(self) -> str:
        """`done`, or how far it got and why it stopped."""
        if self.is_done:
            lacking = [] if len(self.metrics) else ["no curves"]
            return ", ".join(["done", *lacking, *([] if self.scores is not None else ["no test cases"])])
        step = int(self.metrics["step"].max()) if len(self.metrics) else 0
        at = f"step {step} of {self.config['trainer']['max_steps']}"
        if len(self.metrics):
            loss, organs = _last(self.metrics["train/loss"]), self.organs_validation
            at += f", loss {loss:.3g}" if not math.isnan(loss) else ""
            at += f", validation Dice {organs:.3f}" if not math.isnan(organs) else ""
        failure = self.failure
        return f"failed ({failure['error']}: {failure['reason']}), {at}" if failure else f"unfinished, {at}"


def read_run(run: Run) -> StoredRun:
    """Read what a run left. Files that are missing say nothing against it, but for `config.yaml` and the scores of
    test cases that other files name.

    Raises:
        InputError: a file that is damaged or contradicts another one; a line that begins with its folder and name.
    """
    config, labels = _config(run), _read(read_labels, run, run.labels)
    environment, failure = _json(run.environment), _json(run.failed)
    if failure and not {"error", "reason"} <= failure.keys():
        raise _broken(run.failed, "lacks error or reason")
    columns = metric_columns(labels.names)
    metrics = pd.DataFrame(columns=columns, dtype=float)
    if run.metrics.is_file():
        metrics = _table(run.metrics, columns)
        if metrics["step"].isna().any():
            raise _broken(run.metrics, "a point without a step")
    is_done = run.done.is_file()
    _json(run.done)  # which must be whole
    scores = read_scores(run, labels) if is_done else None
    lost = _json(run.summary).get("lost_classes", {})
    if not isinstance(lost, dict) or not all(isinstance(dice, int | float) for dice in lost.values()):
        raise _broken(run.summary, f"lost_classes={lost}: expected a Dice by class")
    validation = {name: _last(metrics[f"val/dice/{name}"]) for name in labels.names}
    data = environment.get("data")
    return StoredRun(run, config, labels, data, is_done, metrics, scores, lost, validation, failure)


def _last(curve: pd.Series) -> float:
    known = curve.dropna()
    return float(known.iloc[-1]) if len(known) else math.nan


def _config(run: Run) -> dict[str, Any]:
    if not run.config.is_file():
        raise _broken(run.config, "not there")
    config = _read(read_config, run, run.config)
    for key, kind in NEEDED.items():
        value = _at(config, key)
        if value is None:
            raise _broken(run.config, f"no {key} in it")
        is_kind = isinstance(value, kind) and not isinstance(value, bool)
        if not is_kind or (isinstance(value, float) and not math.isfinite(value)):
            raise _broken(run.config, f"{key}={value!r}: expected {'a text' if kind is str else 'a number'}")
    _check_loss(run, config, "loss")
    return config


def _check_loss(run: Run, config: dict[str, Any], name: str) -> None:
    """A table's heads are LOSS, RATE, FURTHER SETTINGS, and the printed values join by them."""
    target, weighting = _at(config, f"{name}._target_"), _at(config, f"{name}.weighting")
    if not isinstance(target, str) or "." not in target or "," in target:
        raise _broken(run.config, f"{name}._target_={target!r}: expected module.Class")
    if target == OUR_LOSS and (not isinstance(weighting, str) or "," in weighting):
        raise _broken(run.config, f"{name}.weighting={weighting!r}: expected a weighting's name")
    if target == SUM_LOSS:
        for part in SUMMANDS:
            _check_loss(run, config, f"{name}.{part}")


def _read(reader: Callable[[Run], Any], run: Run, file: Path) -> Any:
    try:
        return reader(run)
    except InputError as error:
        raise _broken(file, str(error).removeprefix(f"{file}: ")) from None


def _at(config: Any, key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _json(file: Path) -> dict[str, Any]:
    """Empty when it is not there."""
    if not file.is_file():
        return {}
    try:
        text = file.read_bytes().decode()
        content = json.loads(text) if text.strip() else None
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(file, f"not JSON: {error}") from None
    if content is None:
        raise _broken(file, "empty")
    if not isinstance(content, dict):
        raise _broken(file, f"holds {text:.40}; expected an object")
    return content


def read_scores(run: Run, labels: LabelSet) -> pd.DataFrame | None:
    """Of a test that is done: every case with every class exactly once, and the cases those that the other files name.

    Raises:
        InputError: as `read_run`.
    """
    counted, named = _json(run.summary).get("cases", 0), _json(run.cases)
    if not run.scores.is_file():
        if counted or named:
            raise _broken(run.scores, f"not there, but the run has {counted or len(named)} test cases")
        return None
    scores = _table(run.scores, SCORE_COLUMNS)
    if scores.empty:
        raise _broken(run.scores, "no rows")
    for score, highest in HIGHEST.items():
        if len(odd := scores[~scores[score].between(0, highest) & scores[score].notna()]):
            raise _broken(run.scores, f"{score} {odd[score].iloc[0]:g} of case {odd['case'].iloc[0]} is out of range")
    classes = dict(enumerate(labels.names))
    for case, rows in scores.groupby("case"):
        if sorted(zip(rows["label"], rows["name"], strict=True)) != sorted(classes.items()):
            raise _broken(
                run.scores, f"case {case} has {len(rows)} rows; expected one for each of the {len(labels)} classes"
            )
    cases = set(scores["case"])
    if named and cases != named.keys():
        raise _broken(run.scores, f"{_difference(cases, named.keys())}, unlike {run.cases.name}")
    if counted and len(cases) != counted:
        raise _broken(run.scores, f"{len(cases)} cases, but {run.summary.name} counts {counted}")
    return scores


def _difference(cases: set[str], named: Any) -> str:
    if lacking := sorted(named - cases):
        return f"lacks case {', '.join(lacking)}"
    return f"has case {', '.join(sorted(cases - named))}"


def _table(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV with these columns, and maybe others: numbers but for TEXTS, NaN where a field is blank.

    pandas' own reader fills up short rows without a word, and takes a case called NA for a missing one.
    """
    try:
        text = file.read_bytes().decode()
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _broken(file, f"no CSV: {error}") from None
    if not rows:
        raise _broken(file, "empty")
    header = rows.pop(0)
    if lacking := [column for column in columns if header.count(column) != 1]:
        raise _broken(file, f"not one column {lacking[0]} in its first line")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise _broken(file, f"row {number} has {len(row)} values; expected {len(header)}")
    if not text.endswith("\n"):
        raise _broken(file, "its last line is cut short")
    table = pd.DataFrame(rows, columns=header)[list(columns)]
    for column in table.columns.difference(TEXTS):
        try:
            table[column] = table[column].replace("", "nan").to_numpy(dtype=object).astype(float)
        except ValueError as error:
            raise _broken(file, f"column {column}: {error}") from None
    return table


def _broken(file: Path, reason: str) -> InputError:
    return InputError(f"{file.parent.name}/{file.name}: {' '.join(reason.split())}")
