"""Batches of patches and of whole volumes, brought by background processes, and the memory that this takes."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torchio as tio
from torch.utils.data import DataLoader, Sampler

from lightning_dice.data.patches import PatchQueue, PreparedSubjects, collate
from lightning_dice.data.store import PreparedCase
from lightning_dice.errors import InputError
from lightning_dice.parallel import ignore_interrupts

PREFETCH = 2  # batches that each worker has ready or in the making
TAKEN = 2  # beside these: the one that is worked on, and for a moment the one before
BYTES_PER_VOXEL = 5  # of a batch: float32 image, uint8 label
SHARED_MEMORY = "/dev/shm"  # where batches of workers are handed over on Linux; containers often have little


class _Places(Sampler[int]):
    """Indices of the places `places` in each batch from `first` to `last - 1`; its length counts from batch 0, because
    a resumed run counts its steps so."""

    def __init__(self, first: int, last: int, batch_size: int, places: range):
        self.first, self.last, self.batch_size, self.places = first, last, batch_size, places

    def __iter__(self) -> Iterator[int]:
        return (batch * self.batch_size + place for batch in range(self.first, self.last) for place in self.places)

    def __len__(self) -> int:
        return self.last * len(self.places)


class _Loader(tio.SubjectsLoader):
    """Tells an error that the user can fix in its own line, without the traceback that torch makes of a worker's."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names the class of its own
        try:
            yield from super().__iter__()
        except InputError as error:
            raise InputError(str(error).rpartition(f"{InputError.__name__}: ")[2].strip()) from None


def patch_loader(
    queue: PatchQueue,
    first: int,
    last: int,
    workers: int,
    pin_memory: bool,
    beside: Sequence[PreparedCase] = (),
    places: range | None = None,
) -> DataLoader[Any]:
    """Batches `first` to `last - 1` of the queue, loaded by background processes if `workers` is above 0.

    Args:
        places: in each batch, where this process has a part of it; by default all.
        beside: cases whose volumes another loader brings at the same time.

    Raises:
        InputError: see `check_shared_memory`; of its batches: a transform that does not do.
    """
    check_shared_memory(workers, queue, beside)
    places = places or range(queue.batch_size)
    return _Loader(
        queue,
        collate_fn=collate,
        batch_size=len(places),
        sampler=_Places(first, last, queue.batch_size, places),
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=ignore_interrupts,
        pin_memory=pin_memory,
    )


def volume_loader(cases: Sequence[PreparedCase], workers: int, pin_memory: bool) -> DataLoader[Any]:
    """Whole volumes, one by one.

    Raises:
        InputError: see `check_shared_memory`.
    """
    check_shared_memory(workers, volumes=cases)
    return tio.SubjectsLoader(
        PreparedSubjects(cases),
        collate_fn=collate,
        batch_size=1,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=ignore_interrupts,
        pin_memory=pin_memory,
    )


def check_shared_memory(workers: int, queue: PatchQueue | None = None, volumes: Sequence[PreparedCase] = ()) -> None:
    """See that shared memory has room for the batches that are on their way at one time.

    Without it a worker dies of a bus error, or waits forever.

    Args:
        workers: of the queue's loader; volumes have one, if this is above 0.
        queue: of patches, if they are loaded.
        volumes: cases that are loaded whole.

    Raises:
        InputError: there is less than that.
    """
    if not workers or not os.path.isdir(SHARED_MEMORY):
        return
    sizes = sorted(math.prod(case.shape) for case in volumes)
    voxels = sum(sizes[-PREFETCH - TAKEN :])
    if queue is not None:
        voxels += (PREFETCH * workers + TAKEN) * queue.batch_size * math.prod(queue.sampler.patch_size.tolist())
    found = os.statvfs(SHARED_MEMORY)
    needed, free = voxels * BYTES_PER_VOXEL, found.f_bavail * found.f_frsize
    if needed > free:
        mib = math.ceil(needed / 2**20)
        raise InputError(
            f"{SHARED_MEMORY}: has {free / 2**20:.3g} MiB free, expected {mib} MiB for the batches that background "
            f"processes hand over; set data.num_workers=0, or start the container with more, such as --shm-size={mib}m"
        )
