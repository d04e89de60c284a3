"""Configuration → objects.

What needs no data can be built first, so that a setting that it refuses is refused before anything is written.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig, open_dict
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_dice.build_data import bound, build_label_choice
from lightning_dice.build_optim import build_optimizer, build_schedule, check_optim
from lightning_dice.callbacks.averaging import check_averaging
from lightning_dice.callbacks.board import BoardTables
from lightning_dice.callbacks.curves import CurvesLogger
from lightning_dice.callbacks.lost import LostClassWarning
from lightning_dice.callbacks.measures import TrainingMeasures
from lightning_dice.callbacks.overlays import OverlayPictures
from lightning_dice.callbacks.scoring import TestResults
from lightning_dice.callbacks.stopping import check_stopping, check_validates
from lightning_dice.callbacks.timing import ProgressBar, StepTimes
from lightning_dice.callbacks.unfit import check_fits
from lightning_dice.checkpoints import BestCheckpoint, CheckpointFiles, LastCheckpoint
from lightning_dice.config import plain
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.data.labels import LabelChoice
from lightning_dice.devices import best_precision, check_devices, check_index, claim_gpus, device_count, uses_gpu
from lightning_dice.errors import InputError
from lightning_dice.loggers import check_loggers
from lightning_dice.losses import build_loss, taken_by_loss
from lightning_dice.lost import shares_of
from lightning_dice.module import SegmentationModule
from lightning_dice.naming import grid_settings
from lightning_dice.network import channels_last
from lightning_dice.objects import REFUSALS, instantiated, parameters, taken
from lightning_dice.recipe import Recipe
from lightning_dice.runs import Run
from lightning_dice.sync_norm import CPUSyncBatchNorm

QUIET = (  # warnings of Lightning's that are none here
    r".*isinstance\(treespec, LeafSpec\).*",  # its own use of an old name of torch's
    r"You're resuming from a checkpoint that ended before the epoch ended.*",  # our loader starts at the step
    r"Checkpoint directory .* exists and is not empty.*",  # because the run goes on in its folder
    r"Total length of `list` across ranks is zero.*",  # a run without a validation split
    r"Experiment logs directory .* exists and is not empty.*",  # of a session that began at the same step
    r"The '\w+_dataloader' does not have many workers.*",  # cutting a mapped volume takes none
    r"It is recommended to use `self.log\('val/dice'.*",  # the ranks' cases are gathered before
    r"Grad strides do not match bucket view strides.*",  # of the weights of 1³ convolutions, which lie alike either way
)


def settle(config: DictConfig) -> DictConfig:
    """The configuration with only those settings of loss and network that they take, once all that needs no data was
    built.

    The paper's loss files are about `DiceLoss`, and a network's file about its own class. With `loss._target_=…` or
    `network._target_=…` their own values are left out for another class that does not take them.

    Raises:
        InputError: what a loss, an optimiser, a schedule or the trainer refuses; a setting that a loss or a network
            does not take.
    """
    config = config.copy()
    with open_dict(config):
        config.loss = taken_by_loss(config.loss)
        config.network = taken(config.network, "network", "network/*.yaml")
    build_loss(config.loss)
    describe_network(config.network, classes=2)
    check_optim(config)
    check_loggers(config.logger)
    check_devices(config.trainer, config.data.batch_size)
    trainer = build_trainer(config, logger=False, devices=config.trainer.devices)
    check_validates(trainer, config.data.validation > 0)
    return config


def build_datamodule(config: DictConfig, labels: LabelChoice | None = None) -> CTDataModule:
    """The data of the group `data`, with the classes of the group `labels` if no others are given."""
    transform = (
        instantiated(config.data.transform, "data.transform", _convert_="all") if config.data.get("transform") else None
    )
    if transform is not None and not callable(transform):
        name = config.data.transform._target_
        raise InputError(f"data.transform._target_={name}: makes a {type(transform).__name__}; expected a transform")
    return bound(config.data, labels or build_label_choice(config.labels), transform=transform)


def build_module(config: DictConfig, data: CTDataModule) -> SegmentationModule:
    """Network, loss and optimiser around the training data, which must be set up: the loss gets its class counts."""
    description = describe_network(config.network, len(data.labels))
    network = instantiated(description, "network", _convert_="all")
    if not isinstance(network, nn.Module):
        raise InputError(
            f"network._target_={config.network._target_}: makes a {type(network).__name__}; expected a Module"
        )
    network = channels_last(network)
    divisor = getattr(network, "divisor", config.network.get("_divisor_", 1))
    if any(size % divisor for size in data.patch_size):
        raise InputError(
            f"data.patch_size={list(data.patch_size)}: each side must be divisible by {divisor} for this network"
        )
    loss = build_loss(config.loss, data)
    recipe = Recipe(data.labels, data.preparation, data.spacing_mm, data.patch_size, description)
    optimizer = build_optimizer(config)
    schedule = build_schedule(config.schedule)
    return SegmentationModule(network, recipe, loss, optimizer, config.overlap, data.taught, config.compile, schedule)


def describe_network(config: DictConfig, classes: int) -> dict[str, Any]:
    """What builds the network for so many classes, now and from its checkpoint: `_target_` and arguments, plain types.

    Two of its settings are ours. `_classes_` is the name that the constructor has for the number of classes,
    `num_classes` without it. `_divisor_` is what each side of a patch must be divisible by, 1 without it; where that
    depends on its arguments, a network may have an attribute `divisor`, which goes before.

    Raises:
        InputError: a class that cannot be imported, that has no such argument, or one for which it was given already.
    """
    description = {key: value for key, value in plain(config).items() if key not in ("_classes_", "_divisor_")}
    name, target = config.get("_classes_", "num_classes"), config._target_
    if name in description:
        raise InputError(
            f"network.{name}={description[name]}: is the number of classes, which the data say; leave it out"
        )
    known = parameters(target, "network")
    if name not in known and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        raise InputError(
            f"network._classes_={name}: {target} has no such argument; expected that of the number of classes, among "
            f"{', '.join(known)}"
        )
    return description | {name: classes}


def build_trainer(config: DictConfig, callbacks: Sequence[pl.Callback] = (), **settings: Any) -> pl.Trainer:
    """The trainer of the configuration, with its precision chosen for the device; `settings` go to it as they are.

    Callbacks of the configuration's own join those given.
    """
    check_index(settings.get("devices", config.trainer.devices), config.trainer.accelerator, "trainer.devices")
    precision = config.trainer.precision
    if precision == "auto":
        precision = best_precision(config.trainer.accelerator)
    for message in QUIET:
        warnings.filterwarnings("ignore", message=message)
    # All iterations are one epoch for Lightning, which wants the interval within it, and counts it in batches.
    interval = min(config.trainer.val_check_interval, config.trainer.max_steps)
    interval *= config.trainer.get("accumulate_grad_batches", 1)
    settings |= {"precision": precision, "val_check_interval": interval, "enable_model_summary": False}
    has_choice = config.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.device_count() > 1
    if has_choice and config.trainer.devices == 1 and "devices" not in settings:
        settings["devices"] = claim_gpus(1)
    settings["use_distributed_sampler"] = False  # the data module's loaders know their part
    if device_count(config.trainer) == 1:
        settings |= {"strategy": "auto", "sync_batchnorm": False}
    elif config.trainer.get("sync_batchnorm", True) and not uses_gpu(config.trainer.accelerator):
        settings |= {"sync_batchnorm": False, "plugins": [*settings.get("plugins", ()), CPUSyncBatchNorm()]}
    own = [("trainer.callbacks", callback) for callback in config.trainer.get("callbacks", ())]
    own += [(f"callbacks.{name}", callback) for name, callback in config.get("callbacks", {}).items()]
    made = [(name, instantiated(callback, name, _convert_="all")) for name, callback in own]
    for name, callback in made:
        check_fits(callback, name)
        check_stopping(callback, name)
    trainer = instantiated(config.trainer, "trainer", callbacks=[*callbacks, *(one for _, one in made)], **settings)
    for name, callback in made:
        check_averaging(callback, name, trainer.precision)
    return trainer


def join_group(config: DictConfig) -> DDPStrategy | None:
    """Join the ranks that torchrun or SLURM started, of which this process is one; None for a process of its own.

    Raises:
        InputError: they are not one for each device; or there should be some, on other machines.
    """
    devices, nodes = config.trainer.devices, config.trainer.get("num_nodes", 1)
    if (count := device_count(config.trainer)) == 1:
        return None
    strategy = build_trainer(config, logger=False, devices=devices).strategy
    assert isinstance(strategy, DDPStrategy)
    assert strategy.cluster_environment is not None
    if not strategy.cluster_environment.creates_processes_externally:
        if nodes > 1:
            raise InputError(
                f"trainer.num_nodes={nodes}: this machine cannot start processes on others; use SLURM, such as by "
                "hydra/launcher=slurm, or torchrun on each of them"
            )
        return None
    if (started := strategy.cluster_environment.world_size()) != count:
        raise InputError(
            f"trainer.devices={devices}, trainer.num_nodes={nodes}: {started} processes were started; expected one for "
            f"each of the {count} devices, such as by hydra.launcher.tasks_per_node or srun --ntasks-per-node"
        )
    strategy.setup_environment()
    return strategy


def build_training(
    config: DictConfig,
    run: Run,
    data: CTDataModule,
    times: StepTimes,
    results: TestResults,
    step: int,
    loggers: Sequence[Logger] = (),
    rank: int = 0,
) -> pl.Trainer:
    """A trainer that leaves in the run's folder what `runs.py` says, from `step` on, and tells it `loggers` too.

    On several devices those of ranks above 0 do the same work, and tell nobody.
    """
    callbacks: list[pl.Callback] = [times, results, LastCheckpoint(run)]
    if data.split.validation:
        callbacks.append(BestCheckpoint(run))
    telling: dict[str, Any] = {"logger": False, "enable_progress_bar": False}
    if rank == 0:
        # A new run's events, at step 0 too, take the place of those of a session that left no checkpoint.
        purged: dict[str, Any] = {"purge_step": step + 1 if step else 0}
        board = TensorBoardLogger(run.tensorboard, name="", version="", default_hp_metric=False, **purged)
        tables = BoardTables(board, grid_settings(plain(config)), data.class_voxels, results)
        callbacks += [TrainingMeasures(times), tables, OverlayPictures()]
        if config.schedule._target_ is not None:
            callbacks.append(LearningRateMonitor("step"))
        if config.trainer.enable_progress_bar:
            callbacks.append(ProgressBar(run.folder.name, times))
        lost = LostClassWarning(shares_of(data.taught, data.class_voxels), board, bool(config.prior))
        telling = {"logger": [board, CurvesLogger(run), lost, *loggers]}
    trainer = build_trainer(config, callbacks, profiler=times.wait, plugins=[CheckpointFiles(run)], **telling)
    check_validates(trainer, bool(data.split.validation))
    return trainer


def build_fabric(accelerator: str, devices: int | Sequence[int], precision: str, group: str = "") -> Fabric:
    """What places a network on a device outside of training, with its precision chosen as for the trainer.

    `group` is what stands before the settings' names, with its dot.

    Raises:
        InputError: a device that is not there, or a precision that it does not have.
    """
    check_index(devices, accelerator, f"{group}devices")
    precision = best_precision(accelerator) if precision == "auto" else precision
    try:
        return Fabric(accelerator=accelerator, devices=devices, precision=precision)  # type: ignore[arg-type]  # it checks
    except (*REFUSALS, MisconfigurationException) as error:
        raise InputError(
            f"{group}accelerator={accelerator}, {group}precision={precision}: {error}; expected auto, or others"
        ) from error
