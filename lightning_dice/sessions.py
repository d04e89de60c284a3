"""Work on a run: find it, keep others off it, record what happens to it, and mark it done."""

import contextlib
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from lightning_dice.cells import TRAINED
from lightning_dice.data.labels import LabelSet, told_names
from lightning_dice.errors import InputError, Interrupted
from lightning_dice.files import atomic_write, remove_leftovers
from lightning_dice.naming import differences, flat, run_folder
from lightning_dice.runs import Run, metric_columns, read_config, read_json, read_labels, write_json

LONGEST_REASON = 500  # characters of an error's text that are kept
PACKAGES = ("torch", "pytorch-lightning", "torchio", "monai", "nibabel", "numpy", "scipy", "hydra-core")


def find_run(config: dict[str, Any], data_fingerprint: str) -> Run:
    """The run that the configuration describes: a new one, an unfinished one to go on with, or a finished one.

    With `rerun` it is a new one beside those that are there. Nothing is written yet.

    Raises:
        InputError: the folder holds a run of another configuration or other data.
    """
    folder = run_folder(config)
    if config["rerun"]:
        return Run(next(f for f in _with_suffixes(folder) if not f.exists()))
    run = Run(folder)
    if not has_progress(run):
        return run
    before = read_config(run)
    if "labels" not in before:
        raise InputError(
            f"{folder}: holds a run of version 0.1, before there were label sets; give this one a name=… of its own, "
            "or rerun=true to start over in a new folder"
        )
    differing = differences(before, config)
    if read_json(run.environment).get("data") != data_fingerprint:
        differing.append("other data")
    if differing:
        raise InputError(
            f"{folder}: holds a run with other settings ({'; '.join(differing)}); "
            "give this one a name=… of its own, or rerun=true to start over in a new folder"
        )
    return run


def has_progress(run: Run) -> bool:
    """Whether there is something to go on with; what else a failed start left is in nobody's way."""
    return any(file.is_file() for file in (run.done, run.last, run.previous))


@contextlib.contextmanager
def hold(run: Run) -> Iterator[None]:
    """Keep other processes off a run's folder, which is made if need be, and removed again if it stayed empty.

    The system drops the lock when the process ends, however it ends.

    Raises:
        InputError: another process works on the run.
    """
    made = [folder for folder in (run.folder, *run.folder.parents) if not folder.exists()]
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.lock)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(
            f"{run.folder}: another process works on this run; wait until it ends, or give this one a name=… of its own"
        ) from None
    try:
        yield
    finally:
        run.lock.unlink(missing_ok=True)  # while it is held: who comes next makes a lock of its own
        lock.release()
        with contextlib.suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()


@contextlib.contextmanager
def work_on(run: Run, config: dict[str, Any], data_fingerprint: str) -> Iterator[None]:
    """Hold a run, and record how the work on it ends: `DONE` at its end, or `FAILED` if an error ends it once it began.

    Raises:
        InputError: as `hold`.
        Interrupted: Ctrl-C, told with the run's folder.
    """
    with hold(run):
        try:
            yield
        except Interrupted as stop:
            raise Interrupted(f"{run.folder}: {stop}") from None
        except (KeyboardInterrupt, SystemExit):  # Lightning makes the latter of the former
            raise Interrupted(f"{run.folder}: stopped at once") from None
        except Exception as error:
            if run.environment.is_file():
                mark_failed(run, error)
            raise
        mark_done(run, config, data_fingerprint)


def begin(
    run: Run,
    config: dict[str, Any],
    data_fingerprint: str,
    labels: LabelSet,
    excluded: dict[str, str],
    classes: dict[str, Any],
    session: dict[str, Any],
) -> None:
    """Write a new run's configuration, classes and environment, or add a session to those of one that goes on.

    Args:
        labels: of the data set.
        excluded: the cases that are left out, with the reason.
        classes: voxels and weights of the training.
        session: `from_step`, `device` and `precision`; where and with which versions it runs is added.

    Raises:
        InputError: a run that goes on has other classes.
    """
    goes_on = has_progress(run)
    if goes_on and (names := read_labels(run).names) != labels.names:
        raise InputError(
            f"{run.labels}: the run's classes are {told_names(names, labels.names)}, and the data's "
            f"{told_names(labels.names, names)}; give this run a name=… of its own"
        )
    for folder in (run.folder, run.checkpoints, run.predictions):
        remove_leftovers(folder)
    new: dict[str, Any] = {"data": data_fingerprint, "excluded": excluded, "classes": classes, "sessions": []}
    environment = read_json(run.environment) if goes_on else new
    environment["sessions"].append(session | _environment())
    write_json(run.environment, environment)
    run.failed.unlink(missing_ok=True)
    if not goes_on:
        write_json(run.labels, labels.to_plain())
        with atomic_write(run.config) as path:
            OmegaConf.save(OmegaConf.create(config), path)
    cut_metrics(run, session["from_step"])


def mark_done(run: Run, config: dict[str, Any], data_fingerprint: str) -> None:
    """Call it last."""
    run.previous.unlink(missing_ok=True)
    digest = hashlib.sha256(json.dumps(flat(config), sort_keys=True).encode()).hexdigest()[:16]
    write_json(run.done, {"config": digest, "data": data_fingerprint})


def mark_failed(run: Run, error: Exception) -> None:
    """Record why a session ended."""
    reason = " ".join(str(error).split())[:LONGEST_REASON]
    with contextlib.suppress(OSError):  # the disk may be why
        write_json(run.failed, {"error": type(error).__name__, "reason": reason})


def outcome(run: Run, since: float) -> str:
    """What was done with a run since a time, in seconds since the epoch."""
    if run.done.stat().st_mtime < since:
        return "finished before, left alone"
    step = read_json(run.environment)["sessions"][-1]["from_step"]
    return f"went on from step {step}, done" if step else TRAINED


def append_metrics(run: Run, step: int, values: dict[str, float]) -> None:
    """Add a point to the curves. `values` has keys of `metric_columns`; others are passed by."""
    has_header = run.metrics.is_file() and run.metrics.stat().st_size
    row = pd.DataFrame([{"step": step, **values}], columns=metric_columns(read_labels(run).names))
    row.to_csv(run.metrics, mode="a", header=not has_header, index=False)


def cut_metrics(run: Run, step: int) -> None:
    """Keep the points up to `step`, letter by letter: a resumed run makes the others again. Whatever is no whole point
    of these columns, such as what a kill or a full disk left, goes too."""
    if not run.metrics.is_file():
        return
    lines = run.metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    columns = metric_columns(read_labels(run).names)
    kept = [line for line in lines if _is_point(line, columns) and int(line.partition(",")[0]) <= step]
    with atomic_write(run.metrics) as path:
        path.write_text("".join([",".join(columns) + "\n", *kept]), encoding="utf-8")


def _is_point(line: str, columns: Sequence[str]) -> bool:
    step, *values = line.split(",")
    return line.endswith("\n") and step.isdecimal() and len(values) == len(columns) - 1


def _with_suffixes(folder: Path) -> Iterator[Path]:
    yield folder
    number = 2
    while True:
        yield folder.with_name(f"{folder.name},rerun={number}")
        number += 1


def _environment() -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "versions": versions,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """Of the checkout that the package runs from; None for an installed one."""
    here = Path(__file__).resolve().parent
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=here, capture_output=True, text=True
        )
    except OSError:
        return None
    return said.stdout.strip() or None
