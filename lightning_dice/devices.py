"""What a run is computed on: a GPU that nobody else of ours works on, and the precision that the device is fast in."""

import contextlib
import functools
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout

from lightning_dice.errors import InputError


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
    raise RuntimeError("no GPU to claim")


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
