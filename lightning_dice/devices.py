"""What a run is computed on: a GPU that nobody else of ours works on, and the precision that the device is fast in."""

import contextlib
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig

from lightning_dice.errors import InputError

_held: dict[int, FileLock] = {}  # GPUs of this process, while it lives


def claim_gpus(count: int) -> list[int]:
    """GPUs that no other process of ours works on, such as another cell of a grid; waits while there are not as many.

    The locks are files', and the system drops them when the process ends, however it ends.

    Raises:
        InputError: the machine has fewer.
    """
    found = torch.cuda.device_count()
    if count > found:
        raise InputError(f"trainer.devices={count}: this machine has {found}; expected an integer from 1 to {found}")
    while len(_held) < count:
        for device in range(found):
            name = f"lightning_dice-{torch.cuda.get_device_properties(device).uuid}.lock"
            lock = FileLock(Path(tempfile.gettempdir()) / name)
            if len(_held) < count and device not in _held:
                with contextlib.suppress(Timeout):
                    lock.acquire(blocking=False)
                    _held[device] = lock
        if len(_held) < count:  # none is held in the meantime, which another process may wait for likewise
            while _held:
                _held.popitem()[1].release()
            time.sleep(random.uniform(0.5, 1.5))
    return sorted(_held)[:count]


def claimed(config: DictConfig) -> DictConfig:
    """The configuration with GPUs of its own for a run on several, if it does not choose them itself."""
    config = config.copy()
    if uses_gpu(config.trainer.accelerator) and isinstance(config.trainer.devices, int):
        config.trainer.devices = claim_gpus(config.trainer.devices)
    return config


def device_count(trainer: DictConfig) -> int:
    """On how many devices the settings of a trainer let a run work, on all machines."""
    devices, nodes = trainer.devices, int(trainer.get("num_nodes", 1))
    return nodes * (devices if isinstance(devices, int) else len(devices))


def check_devices(trainer: DictConfig, batch_size: int) -> None:
    """See that each device has as many patches of a batch as the others.

    Raises:
        InputError: there is no such division.
    """
    count = device_count(trainer)
    if batch_size % count:
        raise InputError(
            f"data.batch_size={batch_size}: not divisible by the {count} devices, which share the patches of a batch; "
            f"expected a multiple, such as data.batch_size={count * -(-batch_size // count)}, or other trainer.devices"
        )


def check_index(devices: int | Sequence[int], accelerator: str, name: str) -> None:
    """See that a GPU that was chosen by its index is there.

    Raises:
        InputError: it is not; the setting goes by `name`.
    """
    if isinstance(devices, int):
        return
    count = torch.cuda.device_count() or int(torch.backends.mps.is_available())
    if accelerator == "cpu" or not count:
        why = "accelerator=cpu has none" if accelerator == "cpu" else "this machine has none"
        raise InputError(f"{name}={list(devices)}: chooses a GPU by its index, and {why}; leave it out")
    if max(devices) >= count:
        raise InputError(f"{name}={list(devices)}: no such GPU; expected an index from 0 to {count - 1}")


def device_name(trainer: pl.Trainer) -> str:
    """What the trainer computes on, by the name of the GPU's model."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def best_precision(accelerator: str) -> str:
    """`bf16-mixed` where the device computes in bfloat16, else `32-true`.

    On CPUs that are those with AMX or AVX512-BF16; others emulate it, slower than float32.
    """
    if uses_gpu(accelerator):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # torch has no public names for these yet
        fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if fast else "32-true"


def uses_gpu(accelerator: str) -> bool:
    return accelerator != "cpu" and torch.cuda.is_available()
