"""Hand-made grids on disk: run folders as training leaves them, with the scores that a test wants."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from lightning_dice.config import config_folder
from lightning_dice.data.labels import LabelSet
from lightning_dice.loss import WEIGHTINGS
from lightning_dice.naming import setting_text
from lightning_dice.runs import SCORE_COLUMNS, Run, metric_columns, read_labels, write_json
from tests.conftest import PAPER, tiny_case, write_nifti

SPACING = np.diag([3.0, 3.0, 3.0, 1.0])


def write_run(
    sweep: Path,
    loss: str,
    lr: float,
    dice: dict[str, list[float]] | None,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    data: str = "same",
    folder: str | None = None,
    labels: LabelSet | None = None,
) -> Run:
    """A run with the Dice per class of each test case, finished; with None instead, an unfinished one at step 20.

    Args:
        loss: a weighting, the file of another loss, or with a dot in it a class that no file is about.
        settings: further ones, by dotted key; the folder's name tells them.
        data: their fingerprint.
        folder: a name that says something else.
        labels: the classes; without, they are the paper's, and no file says so.
    """
    names = (labels or PAPER).names
    told = [
        f"loss={loss}",
        f"lr={lr:g}",
        f"seed={seed}",
        *(f"{key}={setting_text(value)}" for key, value in (settings or {}).items()),
    ]
    run = Run(sweep / (folder or ",".join(told)))
    run.folder.mkdir(parents=True)
    shipped = config_folder() / "loss" / f"{loss}.yaml"
    ours = {"_target_": "lightning_dice.loss.DiceLoss", "weighting": loss}
    is_ours = loss in WEIGHTINGS or not shipped.is_file()
    config = {
        "seed": seed,
        "loss": {"_target_": loss} if "." in loss else ours if is_ours else OmegaConf.load(shipped),
        "optim": {"lr": lr},
        "trainer": {"max_steps": 40},
        "data": {"seed": seed, "preparation": {"window_hu": [-500, 500]}},
    }
    config = OmegaConf.create(config)
    for key, value in (settings or {}).items():
        OmegaConf.update(config, key, value)
    OmegaConf.save(config, run.config)
    run.environment.write_text(json.dumps({"data": data, "sessions": []}))
    if labels is not None:
        write_json(run.labels, labels.to_plain())
    steps = (10, 20) if dice is None else (10, 20, 30, 40)
    curves = [{"step": s, "train/loss": -s * lr, **{f"train/dice/{n}": s / 50 for n in names}} for s in steps]
    curves.append({"step": 20, "val/loss": -0.1, **{f"val/dice/{n}": 0.25 for n in names}})
    pd.DataFrame(curves, columns=metric_columns(names)).to_csv(run.metrics, index=False)
    if dice is None:
        return run
    _write_scores(run, dice, names)
    run.summary.write_text(json.dumps({"cases": len(dice)}))
    run.done.write_text("{}")
    return run


def write_ensemble(
    sweep: Path, name: str, dice: dict[str, list[float]], data: str = "same", **described: object
) -> Run:
    """What `evaluate run=[…]` leaves of several runs, with the Dice per class of each test case."""
    run = Run(sweep / "evaluate" / name)
    run.folder.mkdir(parents=True)
    given = {"combine": "mean", "checkpoint": "last", "data": data, "organs": {}, "runs": ["r/loss=a", "r/loss=b"]}
    run.ensemble.write_text(json.dumps(given | described))
    _write_scores(run, dice, PAPER.names)
    return run


def _write_scores(run: Run, dice: dict[str, list[float]], names: Sequence[str]) -> None:
    rows = [
        {"case": case, "label": label, "name": names[label], "dice": value, "jaccard": value / (2 - value),
         "hd95_mm": 1.0, "surface_dice": 1.0, "voxels_true": 1, "voxels_pred": 1}
        for case, values in dice.items()
        for label, value in enumerate(values)
    ]  # fmt: skip
    pd.DataFrame(rows, columns=SCORE_COLUMNS).to_csv(run.scores, index=False)


def write_pictures(run: Run, store: Path, cases: list[str]) -> None:
    """What the pictures of some cases are made of: CT and truth in a store, and a prediction that is a bit off."""
    store.mkdir(exist_ok=True)
    files = {}
    for number, case in enumerate(cases):
        hu, label = tiny_case(number)
        label[label >= len(read_labels(run))] = 0
        image = store / f"{case}.image.npy"
        np.save(image, ((hu + 500) / 1000).clip(0, 1).astype(np.float16))
        np.save(store / f"{case}.label.npy", label)
        files[case] = {"image": str(image), "label": str(store / f"{case}.label.npy")}
        write_nifti(run.prediction(case), np.roll(label, 1, axis=0), SPACING)
    run.cases.write_text(json.dumps(files))
