"""How much faster the training goes on more devices, of which each adds its own patches to a batch."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from lightning_dice.build import build_datamodule, build_module, build_trainer
from lightning_dice.callbacks.timing import WARM_UP_STEPS, StepTimes
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.devices import claimed
from lightning_dice.launch import run_ranks
from lightning_dice.module import SegmentationModule


def time_training(config: DictConfig, module: SegmentationModule, data: CTDataModule) -> dict[str, Any]:
    """The times of a training of `steps` iterations as `train` does it, without validation and checkpoints."""
    times = StepTimes()
    short = OmegaConf.merge(config, {"trainer": {"max_steps": config.steps + WARM_UP_STEPS}})
    assert isinstance(short, DictConfig)  # as the first of what is merged
    trainer = build_trainer(
        short, callbacks=[times], logger=False, profiler=times.wait, enable_checkpointing=False, limit_val_batches=0
    )
    trainer.fit(module, datamodule=data)
    return times.summary()


def scaling(config: DictConfig, counts: Sequence[int]) -> pd.DataFrame:
    """Time the training on so many devices, in turn, `rounds` times, each time in processes of their own.

    Returns:
        A row per number of `devices`: `patches` of an iteration, median `seconds` of it, `patches_per_second`, and
        `efficiency`, these per device beside those of the first row.

    Raises:
        InputError: fewer GPUs, or fewer training patients than patches.
    """
    parts = {count: _on(config, count) for count in counts}
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(config.rounds):
        for count, (own, data) in parts.items():
            seconds[count].append(run_ranks(_seconds, count, f"devices={count}", own, data))
    table = pd.DataFrame({"devices": counts, "seconds": [median(seconds[count]) for count in counts]})
    table.insert(1, "patches", [data.batch_size for _, data in parts.values()])
    table["patches_per_second"] = table["patches"] / table["seconds"]
    per_device = table["patches_per_second"] / table["devices"]
    table["efficiency"] = per_device / per_device[0]
    return table


def _on(config: DictConfig, count: int) -> tuple[DictConfig, CTDataModule]:
    """Settings and data for so many devices."""
    more = {"trainer": {"devices": count}, "data": {"batch_size": count * config.data.batch_size}}
    own = OmegaConf.merge(config, more)
    assert isinstance(own, DictConfig)
    data = build_datamodule(own)
    data.setup()
    data.check_patches()
    return claimed(own), data


def _seconds(rank: int, config: DictConfig, data: CTDataModule) -> float:
    pl.seed_everything(config.seed, workers=True, verbose=False)
    config.trainer.enable_progress_bar = False
    return float(time_training(config, build_module(config, data), data)["seconds_per_iteration"])
