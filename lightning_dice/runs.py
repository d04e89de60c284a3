"""What a run leaves on disk: names, columns, the done-marker. The contract between training and report."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from lightning_dice.data.labels import NAMES
from lightning_dice.errors import InputError
from lightning_dice.files import replacing

STAGES = ("train", "val")
METRIC_COLUMNS = (
    "step",
    *(f"{stage}/{value}" for stage in STAGES for value in ("loss", *(f"dice/{name}" for name in NAMES))),
)
SCORE_COLUMNS = (
    "case", "label", "name", "dice", "jaccard", "hd95_mm", "surface_dice", "voxels_true", "voxels_pred",
)  # fmt: skip

# Where files lie and what they are computed on is not part of what a run is; everything else is.
NOT_PART_OF_A_RUN = (
    "output_dir", "cache", "rerun", "data.root", "data.store", "data.num_workers", "data.on_error",
    "trainer.accelerator", "trainer.devices", "trainer.enable_progress_bar",
)  # fmt: skip
LONGEST_REASON = 500  # characters of an error's text that are kept
PACKAGES = ("torch", "pytorch-lightning", "torchio", "monai", "nibabel", "numpy", "scipy", "hydra-core")


@dataclass(frozen=True)
class Run:
    """The folder of a run and the files in it."""

    folder: Path

    @property
    def config(self) -> Path:
        """YAML: everything resolved, plain types."""
        return self.folder / "config.yaml"

    @property
    def environment(self) -> Path:
        """JSON: fingerprint of the data, cases left out and why, voxels and weights of the classes; a record per
        session that trained the run, with its first step, time, versions, device, precision, commit."""
        return self.folder / "environment.json"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint to go on from, and the one that the test uses."""
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint with the highest validation Dice, where there is a validation split."""
        return self.checkpoints / "best.ckpt"

    def checkpoint(self, choice: str) -> Path:
        """The last or the best one.

        Raises:
            InputError: another choice.
        """
        choices = {"last": self.last, "best": self.best}
        if choice not in choices:
            raise InputError(f"checkpoint={choice}: no such choice; expected one of {', '.join(choices)}")
        return choices[choice]

    @property
    def metrics(self) -> Path:
        """CSV: the curves, with METRIC_COLUMNS; a row per point, blank where the point has no value."""
        return self.folder / "metrics.csv"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def scores(self) -> Path:
        """CSV: a row per test case and class, with SCORE_COLUMNS."""
        return self.folder / "scores.csv"

    @property
    def native_scores(self) -> Path:
        """CSV: the same on the scans' own grids, where `evaluate` asked for it."""
        return self.folder / "scores_native.csv"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions"

    def prediction(self, case: str) -> Path:
        """Label map of a test case on the prepared grid."""
        return self.predictions / f"{case}.nii.gz"

    @property
    def cases(self) -> Path:
        """JSON: the test cases' CTs and truths in the store, by id, for the pictures of a report."""
        return self.folder / "cases.json"

    @property
    def curves(self) -> Path:
        """Picture of the learning curves."""
        return self.folder / "curves.png"

    @property
    def slices(self) -> Path:
        """Picture of test cases, truth beside prediction."""
        return self.folder / "slices.png"

    @property
    def failed(self) -> Path:
        """JSON: why the last session ended in an error; a session that goes on removes it."""
        return self.folder / "FAILED"

    @property
    def done(self) -> Path:
        """JSON, written last: the run is complete; fingerprints of its configuration and data."""
        return self.folder / "DONE"


def loss_name(config: dict[str, Any]) -> str:
    """The weighting; a loss that has none goes by the name of its class."""
    return config["loss"].get("weighting", config["loss"]["_target_"].rpartition(".")[-1])


def run_folder(config: dict[str, Any]) -> Path:
    """`OUTPUT_DIR/DATA/NAME/loss=…,lr=…,seed=…`."""
    cell = f"loss={loss_name(config)},lr={config['optim']['lr']:g},seed={config['seed']}"
    return Path(config["output_dir"]).expanduser() / config["data"]["name"] / config["name"] / cell


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
    if not run.config.is_file():
        return run
    differences = _differences(read_config(run), config)
    if read_json(run.environment).get("data") != data_fingerprint:
        differences.append("other data")
    if differences:
        raise InputError(
            f"{folder}: holds a run with other settings ({'; '.join(differences)}); "
            "give this one a name=… of its own, or rerun=true to start over in a new folder"
        )
    return run


def begin_run(
    run: Run,
    config: dict[str, Any],
    data_fingerprint: str,
    excluded: dict[str, str],
    classes: dict[str, Any],
    session: dict[str, Any],
) -> None:
    """Write a new run's configuration and environment, or add a session to those of one that goes on.

    Args:
        excluded: the cases that are left out, with the reason.
        classes: voxels and weights of the training.
        session: `from_step`, `device` and `precision`; where and with which versions it runs is added.
    """
    new = {"data": data_fingerprint, "excluded": excluded, "classes": classes, "sessions": []}
    environment = read_json(run.environment) if run.config.is_file() else new
    environment["sessions"].append(session | _environment())
    write_json(run.environment, environment)
    run.failed.unlink(missing_ok=True)
    if not run.config.is_file():
        with replacing(run.config) as path:
            OmegaConf.save(OmegaConf.create(config), path)


def read_config(run: Run) -> dict[str, Any]:
    """The resolved configuration of a run, as plain types.

    Raises:
        InputError: the folder is not a run's.
    """
    if not run.config.is_file():
        raise InputError(f"{run.folder}: no config.yaml in it; expected the folder of a run")
    return OmegaConf.to_container(OmegaConf.load(run.config))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run; empty when it is not there."""
    return json.loads(path.read_text()) if path.is_file() else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2))


def write_table(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def mark_done(run: Run, config: dict[str, Any], data_fingerprint: str) -> None:
    """Call it last."""
    digest = hashlib.sha256(json.dumps(_flat(config), sort_keys=True).encode()).hexdigest()[:16]
    write_json(run.done, {"config": digest, "data": data_fingerprint})


def mark_failed(run: Run, error: Exception) -> None:
    """Record why a session ended."""
    reason = " ".join(str(error).split())[:LONGEST_REASON]
    write_json(run.failed, {"error": type(error).__name__, "reason": reason})


def outcome(run: Run, since: float) -> str:
    """What was done with a run since a time, in seconds since the epoch."""
    if run.done.stat().st_mtime < since:
        return "finished before, left alone"
    step = read_json(run.environment)["sessions"][-1]["from_step"]
    return f"went on from step {step}, done" if step else "trained, done"


def append_metrics(run: Run, step: int, values: dict[str, float]) -> None:
    """Add a point to the curves. `values` has keys of METRIC_COLUMNS; others are passed by."""
    is_new = not run.metrics.is_file()
    row = pd.DataFrame([{"step": step, **values}], columns=METRIC_COLUMNS)
    row.to_csv(run.metrics, mode="a", header=is_new, index=False)


def cut_metrics(run: Run, step: int) -> None:
    """Drop the points after `step`, which a resumed run makes again."""
    if run.metrics.is_file():
        table = pd.read_csv(run.metrics)
        write_table(run.metrics, table[table["step"] <= step])


def _with_suffixes(folder: Path) -> Iterator[Path]:
    yield folder
    number = 2
    while True:
        yield folder.with_name(f"{folder.name},rerun={number}")
        number += 1


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys to values, without those that are not part of a run."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif prefix + key not in NOT_PART_OF_A_RUN:
            flat[prefix + key] = value
    return flat


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    old, new = _flat(old), _flat(new)
    return [
        f"{key}: {old.get(key, 'absent')} there, {new.get(key, 'absent')} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "absent") != new.get(key, "absent")
    ]


def _environment() -> dict[str, Any]:
    versions = {}
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
