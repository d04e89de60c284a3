"""python -m lightning_dice.train: train one network on one data set, test it, and leave a run folder."""

from lightning_dice.cli import command

if __name__ == "__main__":
    command("train", "run_cell", paths=("init_from",))

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from omegaconf import DictConfig

from lightning_dice.build import build_datamodule, build_module, build_training, join_group, settle
from lightning_dice.callbacks.scoring import TestResults
from lightning_dice.callbacks.stopping import why_stopped
from lightning_dice.callbacks.timing import StepTimes
from lightning_dice.checkpoints import find_checkpoint
from lightning_dice.config import plain
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.data.labels import told_names
from lightning_dice.devices import claimed, device_count, device_name
from lightning_dice.errors import InputError
from lightning_dice.files import atomic_write
from lightning_dice.launch import run_ranks
from lightning_dice.loggers import open_loggers
from lightning_dice.loss import DiceLoss
from lightning_dice.losses import warn_of_absent
from lightning_dice.lost import lost_at_end, shares_of
from lightning_dice.naming import flat
from lightning_dice.pictures.curves import learning_curves
from lightning_dice.pictures.tables import classes_table, scores_table
from lightning_dice.prior import set_prior
from lightning_dice.runs import Run, read_json, write_json
from lightning_dice.sessions import begin, find_run, outcome, work_on
from lightning_dice.settings import TrainSettings
from lightning_dice.transfer import start_from
from lightning_dice.validation import checked


def train(config: DictConfig) -> Run:
    """Train, test and record what the configuration says; go on with an unfinished run, leave a finished one alone.

    Raises:
        InputError: a data set or a setting that cannot be used, or a run folder that holds something else.
        Interrupted: Ctrl-C; the same configuration goes on.
    """
    checked(config, TrainSettings)
    config = settle(config)
    settings = plain(config)
    if config.prior and config.init_from is not None:
        raise InputError(
            f"prior={str(config.prior).lower()}: the last layer comes from init_from={config.init_from}; leave one of "
            "both out"
        )
    group = join_group(config)
    rank = group.global_rank if group else 0
    with contextlib.redirect_stdout(None if rank else sys.stdout):
        data = build_datamodule(config)
        data.setup()
        if data.findings:
            found = f"{len(data.findings)} findings about the data, {len(data.excluded)} cases left out"
            print(f"{found}: {data.integrity}")
        run = find_run(settings, data.fingerprint)
        if group:
            run = group.broadcast(run)  # rank zero's, of a rerun
        if run.done.is_file():
            print(f"{run.folder}: finished before; rerun=true starts over in a new folder")
        elif group and rank:
            _train(rank, config, settings, run, data, group.broadcast(0))
            group.barrier()
        else:
            with work_on(run, settings, data.fingerprint):
                step = find_checkpoint(run)
                if group:
                    _train(rank, config, settings, run, data, group.broadcast(step))
                elif (devices := device_count(config.trainer)) > 1:
                    run_ranks(_train, devices, str(run.folder), claimed(config), settings, run, data, step)
                else:
                    _train(rank, config, settings, run, data, step)
            if group:
                group.barrier()  # what others tell of the run is there
            print(f"\nwritten to {run.folder}\n")
        print(scores_table(read_json(run.summary)))
    return run


def _train(rank: int, config: DictConfig, settings: dict[str, Any], run: Run, data: CTDataModule, step: int) -> None:
    """Train from `step` on, and test. Of several ranks the first one writes all files but the others' predictions."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    data.check_patches()
    module = build_module(config, data)
    times, results = StepTimes(), TestResults(run, data)
    if config.prior and not step:
        print(set_prior(module, data.class_voxels, config.prior))
    if config.init_from is not None and not step:
        classes_argument = config.network.get("_classes_", "num_classes")
        print(start_from(Path(config.init_from).expanduser(), module, classes_argument))
    checkpoint = run.last if step else None
    if rank:
        trainer = build_training(config, run, data, times, results, step, rank=rank)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if data.split.test:
            trainer.test(module, datamodule=data, verbose=False)
        return
    with open_loggers(config.logger, run, step) as loggers:
        trainer = build_training(config, run, data, times, results, step, list(loggers.values()))
        weights = getattr(module.loss, "weights", None)
        classes: dict[str, Any] = {
            "names": data.taught,
            "voxels": data.class_voxels,
            "weights": None if weights is None else weights.tolist(),
        }
        devices = {"devices": trainer.world_size, "patches_per_device": data.batch_size // trainer.world_size}
        session = {"from_step": step, "device": device_name(trainer), "precision": trainer.precision} | devices
        session["loggers"] = {name: str(logger.version) for name, logger in loggers.items()}
        # Whatever can be refused has been.
        begin(run, settings, data.fingerprint, data.labels, data.excluded, classes, session)
        for logger in loggers.values():
            logger.log_hyperparams(flat(settings))
        print(classes_table(**classes))
        warn_of_absent(module.loss, data)
        if data.untaught:
            told = f"{told_names(data.untaught)}: not taught, not scored (labels={data.labels.name})"
            print(f"{len(data.labels)} classes; {told}")
        where = f"{trainer.world_size} × {session['device']}" if trainer.world_size > 1 else session["device"]
        print(f"{run.folder}: step {step} of {trainer.max_steps}, {trainer.precision} on {where}")
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        stopped: dict[str, Any] = {}
        if trainer.global_step < trainer.max_steps:
            print(f"{run.folder}: {why_stopped(trainer)}")
            stopped = {"stopped_after_step": trainer.global_step}
        metrics = pd.read_csv(run.metrics)
        lost = {"lost_classes": lost_at_end(metrics, shares_of(data.taught, data.class_voxels))}
        with atomic_write(run.curves) as path:
            least = module.loss.least if isinstance(module.loss, DiceLoss) else None
            learning_curves(metrics, data.labels, run.folder.name, least).savefig(path, dpi=150)
        if data.split.test:
            trainer.test(module, datamodule=data, verbose=False)
        write_json(run.summary, results.summary | times.summary() | devices | stopped | lost)


def run_cell(config: DictConfig) -> str:
    """Train, and say in a word what was done; a grid lists it."""
    since = time.time()
    run = train(config)
    return f"{run.folder}: {outcome(run, since)}"
