"""Configuration → objects. The only caller of Hydra's `instantiate`."""

import contextlib
import functools
import inspect
import itertools
import tempfile
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from lightning_dice.callbacks import CurvesLogger, OverlayPictures, ProgressBar, StepTimes, TestResults
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.errors import InputError
from lightning_dice.loss import DiceLoss
from lightning_dice.module import OptimizerFactory, Recipe, SegmentationModule
from lightning_dice.runs import Run

CHECKPOINT_EVERY = timedelta(minutes=1)  # what a kill can cost; a checkpoint of the paper's network is 230 MB

QUIET = (  # warnings of Lightning's that are none here
    r".*isinstance\(treespec, LeafSpec\).*",  # its own use of an old name of torch's
    r"You're resuming from a checkpoint that ended before the epoch ended.*",  # our loader starts at the step
    r"Checkpoint directory .* exists and is not empty.*",  # because the run goes on in its folder
    r"Total length of `list` across ranks is zero.*",  # a run without a validation split
    r"The '\w+_dataloader' does not have many workers.*",  # cutting a mapped volume takes none
)


def plain(config: DictConfig) -> dict[str, Any]:
    """Everything resolved, as plain types."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def build_datamodule(config: DictConfig) -> CTDataModule:
    return _build(config.data, "data")


def build_module(config: DictConfig, data: CTDataModule) -> SegmentationModule:
    """Network, loss and optimiser around the training data, which must be set up: the loss gets its class counts."""
    network = _build(config.network, "network", num_classes=len(data.classes)).to(memory_format=torch.channels_last_3d)
    divisor = getattr(network, "divisor", 1)
    if any(size % divisor for size in data.patch_size):
        raise InputError(
            f"data.patch_size={list(data.patch_size)}: each side must be divisible by {divisor} for this network"
        )
    loss = _build_loss(config.loss)
    if hasattr(loss, "set_class_voxels"):
        loss.set_class_voxels(data.class_voxels)
    recipe = Recipe(data.classes, data.preparation, data.spacing_mm, data.patch_size)
    optimizer = _build_optimizer(config)
    return SegmentationModule(network, recipe, loss, optimizer, config.overlap, data.taught, config.compile)


def _build_optimizer(config: DictConfig) -> OptimizerFactory:
    """In one kernel for all weights on a GPU, where the optimiser has it; on a CPU it takes no time to speak of."""
    factory = _build(config.optim, "optim")
    if _uses_gpu(config.trainer.accelerator) and "fused" in inspect.signature(factory.func).parameters:
        return functools.partial(factory.func, **{"fused": True} | factory.keywords)
    return factory


def _build_loss(config: DictConfig) -> nn.Module:
    """Any module that takes (logits, target): `loss._target_=my.module.MyLoss` needs no other change.

    The loss files are about `DiceLoss`, so what they set is kept from another loss that does not take it.
    """
    try:
        taken = inspect.signature(get_class(config._target_)).parameters
    except Exception as error:  # Hydra passes on whatever an import raises
        raise InputError(f"loss._target_={config._target_}: cannot be imported ({error})") from error
    ours = inspect.signature(DiceLoss).parameters
    return _build(OmegaConf.masked_copy(config, [key for key in config if key in taken or key not in ours]), "loss")


def build_trainer(config: DictConfig, **settings: Any) -> pl.Trainer:
    """The trainer of the configuration, with its precision chosen for the device; `settings` go to it as they are."""
    precision = config.trainer.precision
    if precision == "auto":
        precision = best_precision(config.trainer.accelerator)
    for message in QUIET:
        warnings.filterwarnings("ignore", message=message)
    if config.trainer.max_steps < 1:
        raise InputError(f"trainer.max_steps={config.trainer.max_steps}: expected the number of iterations, from 1")
    # All iterations are one epoch for Lightning, which wants the interval within it.
    interval = min(config.trainer.val_check_interval, config.trainer.max_steps)
    settings |= {"precision": precision, "val_check_interval": interval, "enable_model_summary": False}
    several = config.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.device_count() > 1
    if several and config.trainer.devices == 1:
        settings["devices"] = [claim_gpu()[0]]
    return _build(config.trainer, "trainer", **settings)


def build_training(config: DictConfig, run: Run, data: CTDataModule, times: StepTimes, step: int) -> pl.Trainer:
    """A trainer that leaves in the run's folder what `runs.py` says, from `step` on."""
    where = {"dirpath": run.checkpoints, "enable_version_counter": False}
    last = ModelCheckpoint(
        filename=run.last.stem, train_time_interval=CHECKPOINT_EVERY, save_on_exception=True, **where
    )
    callbacks = [times, TestResults(run, data), OverlayPictures(), last]
    if data.split.validation:
        callbacks.append(ModelCheckpoint(filename=run.best.stem, monitor="val/dice", mode="max", **where))
    if config.trainer.enable_progress_bar:
        callbacks.append(ProgressBar(run.folder.name, times))
    board = TensorBoardLogger(run.tensorboard, name="", version="", default_hp_metric=False, purge_step=step + 1)
    return build_trainer(config, callbacks=callbacks, logger=[board, CurvesLogger(run)], profiler=times.wait)


@functools.cache  # one for the process, which holds it while it lives
def claim_gpu() -> tuple[int, FileLock]:
    """A GPU that no other process of ours works on, such as another cell of a grid; waits while there is none.

    The lock is a file's, and the system drops it when the process ends, however it ends.
    """
    for device in itertools.cycle(range(torch.cuda.device_count())):
        name = f"lightning_dice-{torch.cuda.get_device_properties(device).uuid}.lock"
        lock = FileLock(Path(tempfile.gettempdir()) / name)
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=1)
            return device, lock


def device_name(trainer: pl.Trainer) -> str:
    """What the trainer computes on, by the name of the GPU's model."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def best_precision(accelerator: str) -> str:
    """`bf16-mixed` where the device computes in bfloat16, else `32-true`.

    On CPUs that are those with AMX or AVX512-BF16; others emulate it, slower than float32.
    """
    if _uses_gpu(accelerator):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # torch has no public names for these yet
        fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if fast else "32-true"


def _uses_gpu(accelerator: str) -> bool:
    return accelerator != "cpu" and torch.cuda.is_available()


def _build(config: DictConfig, name: str, **more: Any) -> Any:
    """Instantiate; what the object says about its arguments becomes one line."""
    try:
        return instantiate(config, **more)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ValueError | TypeError | ImportError):
            raise InputError(f"{name}: {cause}") from error
        raise
