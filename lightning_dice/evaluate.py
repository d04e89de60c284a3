"""python -m lightning_dice.evaluate run=FOLDER: score a trained network on its test cases or on another data set."""

from lightning_dice.cli import command

if __name__ == "__main__":
    command("evaluate", paths=("run",))

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from lightning_dice.build import build_datamodule, build_trainer
from lightning_dice.callbacks.scoring import NativeScores, TestResults
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.data.dataset import ALL_CASES
from lightning_dice.data.labels import LabelChoice
from lightning_dice.errors import InputError
from lightning_dice.members import check_tests, load_members, runs_of
from lightning_dice.module import SegmentationModule
from lightning_dice.pictures.tables import scores_table
from lightning_dice.runs import Run, read_config, read_json, write_json
from lightning_dice.settings import DataSettings, EvaluateSettings
from lightning_dice.trust import check_trust
from lightning_dice.validation import check, checked


def evaluate(config: DictConfig) -> Run:
    """Score a run's network, and write scores, predictions and a picture to `RUN/evaluate/DATA,CHECKPOINT/`.

    Several runs' networks are scored as one, into `evaluate/DATA,CHECKPOINT,combine=HOW,runs=DIGEST/` in the folder
    that they share; `ensemble.json` in it names them.

    Scores are told on two grids: on the prepared one as in training and in the paper, and on the scans' own ones.

    Without `data=` the run's own test cases are scored, prepared as in training. All cases of another data set are test
    cases; they are brought to the voxel size that the network was trained at, whatever their own. Of what the run's
    configuration names only this package's own objects are built, unless `trust` is true.

    Raises:
        InputError: no such run or checkpoint, one that names others' code, runs that do not go together, a data set
            that cannot be used, or one that changed since the training.
    """
    checked(config, EvaluateSettings)
    runs = runs_of(config.run)
    trained = runs[0]
    trained_config = OmegaConf.create(read_config(trained))
    members = load_members(runs, config.checkpoint, config.combine, config.trust)
    recipe = members.recipe
    labels = LabelChoice(recipe.labels, outputs="all")
    overlap = trained_config.overlap if config.overlap is None else config.overlap
    if config.get("data") is None:
        check_tests(runs)
        trained_config.data.transform = None  # for training only
        trained_config.data.num_workers = 0  # a prepared volume is there at once; no shared memory is needed
        trained_config.data.pop("labels", None)  # of version 0.1; the classes are the network's
        settings: Any = OmegaConf.to_container(trained_config.data)
        check(settings, DataSettings, f"{trained.config}: data.")
        check_trust(settings, trained, config.trust)
        data = build_datamodule(trained_config, labels)
        data.setup()
        if data.fingerprint != read_json(trained.environment).get("data"):
            raise InputError(f"{data.root}: not as it was for the training in {trained.folder}; restore it")
    else:
        with open_dict(config):
            config.data.test = ALL_CASES
            config.data.preparation.update(asdict(recipe.at_spacing))
        data = build_datamodule(config, labels)
        data.setup()
        _check_unseen(data, runs)

    module = SegmentationModule(members.networks, recipe, overlap=overlap, taught=data.taught)
    run = _results_of(runs, f"{data.name},{config.checkpoint}", config.combine)
    results, native = TestResults(run, data), NativeScores(run, data)
    trainer = build_trainer(config, callbacks=[results, native], logger=False)
    trainer.test(module, datamodule=data, verbose=False)
    summary = results.summary | native.summary
    write_json(run.summary, summary)
    if len(runs) > 1:
        described = {"combine": config.combine, "checkpoint": config.checkpoint, "data": data.fingerprint}
        described |= {"runs": [str(one.folder) for one in runs]}
        described |= {"organs": {organ: str(one.folder) for organ, one in members.deciding.items()}}
        write_json(run.ensemble, described)
    print(f"\ntest cases of {data.root}: {len(data.split.test)}, written to {run.folder}\n")
    print(f"{scores_table(summary)}\n\non the scans' own grids:\n\n{scores_table(summary['native'])}")
    return run


def _check_unseen(data: CTDataModule, runs: Sequence[Run]) -> None:
    """See that no run was trained on the data set, all of whose cases are test cases."""
    for run in runs:
        root = Path(read_config(run)["data"]["root"]).expanduser()
        if data.root.resolve() == root.resolve() or data.fingerprint == read_json(run.environment).get("data"):
            raise InputError(
                f"data.root={data.root}: {run.folder} was trained on it; leave data= out to score its test cases, or "
                "name a data set that it has not seen"
            )


def _results_of(runs: Sequence[Run], name: str, combine: str) -> Run:
    """Where scores go: below the run, or below the folder that several share."""
    if len(runs) == 1:
        return Run(runs[0].folder / "evaluate" / name)
    folders = [run.folder.resolve() for run in runs]
    shared = Path(os.path.commonpath([folder.parent for folder in folders]))
    names = sorted(str(folder.relative_to(shared)) for folder in folders)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return Run(shared / "evaluate" / f"{name},combine={combine},runs={digest}")
