"""The LightningDataModule: prepared data set → patches for training, whole volumes for validation and test."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any, cast

import pytorch_lightning as pl
import torchio as tio
from torch.utils.data import DataLoader

from lightning_dice.data.dataset import CTDataset
from lightning_dice.data.loaders import check_shared_memory, patch_loader, volume_loader
from lightning_dice.data.patches import PatchQueue, Transform, padding_share
from lightning_dice.errors import InputError

MOST_PADDING = 0.5  # of a patch, in the training volume that fills it best: beyond it most of the work is on nothing
TOLD_PADDING = 0.25  # on average: as patches of 64 in volumes of 48 slices have, which is worth a line


class CTDataModule(CTDataset, pl.LightningDataModule):
    """Labelled CTs of one data set, for a trainer.

    Batches are `lightning_dice.data.patches.Batch`. Batch t of the training is a function of the seed and t alone, and
    a resumed run goes on at the trainer's step. On several devices each has its places of batch t, and whole volumes by
    turns, each volume once.

    Args:
        which: all that `CTDataset` takes, as are `cases`.
        patch_size: of the training patches, in voxels.
        batch_size: patches in a batch, from as many patients.
        samples_per_volume: patches per loaded volume; above 1 only pays with costly transforms.
        transform: TorchIO's, on the training volumes; none in the paper.
        num_workers: background processes that cut patches.
        seed: of patients, positions and transforms.

    Raises:
        InputError: as `CTDataset`.
    """

    name: str  # Lightning allows None
    trainer: pl.Trainer  # from Lightning, once a loader is asked for

    def __init__(
        self,
        *which: Any,
        patch_size: int | Sequence[int] = 64,
        batch_size: int = 3,
        samples_per_volume: int = 1,
        transform: Transform | None = None,
        num_workers: int = 0,
        seed: int = 0,
        **cases: Any,
    ):
        pl.LightningDataModule.__init__(self)
        CTDataset.__init__(self, *which, **cases)
        size = tuple([patch_size] * 3 if isinstance(patch_size, int) else patch_size)
        self.patch_size = cast(tuple[int, int, int], size)  # as `check_patches` sees to
        self.batch_size, self.samples_per_volume = batch_size, samples_per_volume
        self.transform = transform
        self.num_workers = num_workers
        self.seed = seed

    def check_patches(self) -> None:
        """See that training patches can be drawn, before anything of a run is written; say if they hold much padding.

        Raises:
            InputError: sides that are no positive integers, fewer patients than a batch takes, patches that are mostly
                padding in every training volume, no room in shared memory for the batches of the workers, or a
                transform that does not do for training.
        """
        size = self.patch_size
        if len(size) != 3 or not all(isinstance(side, int) and side > 0 for side in size):
            raise InputError(f"data.patch_size={list(size)}: expected one or three whole numbers of voxels from 1")
        queue = self._queue()
        padding = {case: padding_share(case, size) for case in self.part("train")}
        best = min(padding, key=padding.__getitem__)
        if padding[best] > MOST_PADDING:
            shape, filled = " × ".join(map(str, best.shape)), 100 * (1 - padding[best])
            raise InputError(
                f"data.patch_size={list(size)}: CT would be {filled:.3g} % of a patch and padding the rest, even in "
                f"{best.id}, which fills it best with its {shape} voxels; expected at least {1 - MOST_PADDING:.0%} CT, "
                "lower data.patch_size"
            )
        check_shared_memory(self.num_workers, queue, self.part("validation"))
        if self.transform is not None:
            queue[0]  # what it cannot do is told here, by this process
        if (mean := fmean(padding.values())) > TOLD_PADDING:
            print(f"data.patch_size={list(size)}: {mean:.0%} of a patch is padding, on average over the training cases")

    def train_dataloader(self) -> DataLoader[Any]:
        queue, beside = self._queue(), self.part("validation")
        times = self.trainer.accumulate_grad_batches  # batches in an iteration
        first, last = self.trainer.global_step * times, self.trainer.max_steps * times
        part = self.batch_size // self.trainer.world_size
        places = range(self.trainer.global_rank * part, (self.trainer.global_rank + 1) * part)
        return patch_loader(queue, first, last, self.num_workers, self._pin, beside, places)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self._volumes("validation")

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self._volumes("test")

    def _queue(self) -> PatchQueue:
        return PatchQueue(
            self.part("train"),
            tio.UniformSampler(self.patch_size),
            self.batch_size,
            self.seed,
            self.samples_per_volume,
            self.transform,
        )

    def _volumes(self, part: str) -> DataLoader[Any] | list[Any]:
        cases = self.part(part)
        # One at least, a second time if need be: Lightning leaves out what is done after the last where there is none.
        own = cases[self.trainer.global_rank :: self.trainer.world_size] or cases[:1]
        return volume_loader(own, min(self.num_workers, 1), self._pin) if own else []

    @property
    def _pin(self) -> bool:
        return self.trainer.strategy.root_device.type == "cuda"
