"""What a run leaves on disk: names, columns, the done-marker. The contract between training and report."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from lightning_dice.config import shipped_labels
from lightning_dice.data.labels import LabelSet, normalized
from lightning_dice.errors import InputError
from lightning_dice.files import atomic_write

STAGES = ("train", "val")
SCORE_COLUMNS = (
    "case", "label", "name", "dice", "jaccard", "hd95_mm", "surface_dice", "voxels_true", "voxels_pred",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """The folder of a run and the files in it."""

    folder: Path

    @property
    def config(self) -> Path:
        """YAML: everything resolved, plain types."""
        return self.folder / "config.yaml"

    @property
    def lock(self) -> Path:
        """Held by the process that works on the run."""
        return self.folder / ".lock"

    @property
    def environment(self) -> Path:
        """JSON: fingerprint of the data, cases left out and why, voxels and weights of the classes; a record per
        session that trained the run, with its first step, time, versions, device, how many of them and patches on each,
        precision, commit."""
        return self.folder / "environment.json"

    @property
    def labels(self) -> Path:
        """JSON: the classes, as `LabelSet.to_plain` gives them."""
        return self.folder / "labels.json"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint to go on from, and the one that the test uses."""
        return self.checkpoints / "last.ckpt"

    @property
    def previous(self) -> Path:
        """The one before the last, while the run goes on: for a last one that cannot be read."""
        return self.checkpoints / "previous.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint with the highest validation Dice, where there is a validation split."""
        return self.checkpoints / "best.ckpt"

    def checkpoint(self, choice: str) -> Path:
        """The last or the best one."""
        return {"last": self.last, "best": self.best}[choice]

    @property
    def metrics(self) -> Path:
        """CSV: the curves, with `metric_columns`; a row per point, blank where the point has no value."""
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
    def ensemble(self) -> Path:
        """JSON: of an evaluation of several runs, which ones, and how they were combined."""
        return self.folder / "ensemble.json"

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


def metric_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Of `metrics.csv`, for classes of these names."""
    values = ("loss", *(f"dice/{name}" for name in names))
    return "step", *(f"{stage}/{value}" for stage in STAGES for value in values)


def read_labels(run: Run) -> LabelSet:
    """The classes of a run; the paper's where it does not say, as version 0.1 knew no others.

    Raises:
        InputError: the file is damaged.
    """
    try:
        labels = LabelSet.from_plain(json.loads(run.labels.read_text(encoding="utf-8")))
        if odd := [name for name in labels.names if normalized(name) != name]:
            raise ValueError(f"a class of the name {odd[0]!r}")
        if odd := [label.name for label in labels.labels if not 0 <= label.opacity <= 1]:
            raise ValueError(f"the opacity of {odd[0]} is not from 0 to 1")
    except FileNotFoundError:
        return shipped_labels("paper")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{run.labels}: no label set ({reason}); restore it, or train the run anew") from None
    return labels


def read_config(run: Run) -> dict[str, Any]:
    """The resolved configuration of a run, as plain types; nothing in it is interpolated or executed.

    Raises:
        InputError: the folder is not a run's, or its configuration is damaged.
    """
    if not run.config.is_file():
        raise InputError(f"{run.folder}: no config.yaml in it; expected the folder of a run")
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(run.config))
    except Exception as error:  # OmegaConf passes on what the YAML reader raises, and has many errors of its own
        reason = " ".join(str(error).split())
        raise InputError(f"{run.config}: cannot be read ({reason}); restore it, or train the run anew") from None
    if not isinstance(config, dict) or not config:
        raise InputError(f"{run.config}: holds no settings; restore it, or train the run anew")
    return config


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run; empty when it is not there.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it, and the same command writes it anew") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {content!r:.60}; expected an object, remove the file")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")


def write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)
