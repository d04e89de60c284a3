"""The LightningModule: a given network, loss and optimiser factory; and what a checkpoint needs to stand alone."""

import dataclasses
import math
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_dice.data.patches import Batch
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from lightning_dice.inference import sliding_window
from lightning_dice.metrics import dice_counts, dice_from_counts
from lightning_dice.network import UNet3D

CHECKPOINT_KEY = "lightning_dice"
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Recipe:
    """What inference must know beside the weights: it travels in the checkpoint as plain types.

    Attributes:
        classes: names, in the order of the network's outputs.
        preparation: as in training.
        spacing_mm: the training volumes' median voxel size after it, along RAS axes.
        patch_size: in voxels.
    """

    classes: tuple[str, ...]
    preparation: Preparation
    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]


class SegmentationModule(pl.LightningModule):
    """Trains `network` with `loss`, and segments whole volumes for validation and test.

    Every `log_every_n_steps` steps of the trainer, and after the last one, its loggers get `train/loss`, the mean since
    the last time, and `train/dice/CLASS`, the Dice of the argmax over all voxels of these steps' patches. Validations
    give `val/loss` and `val/dice/CLASS`, means over whole volumes with undefined ones left out; `val/dice` is the mean
    over the organs, without background, and what the best checkpoint goes by.

    Args:
        network: maps (B, 1, X, Y, Z) to logits (B, L, X, Y, Z).
        recipe: of the data, for checkpoint and sliding window.
        loss: called as `loss(logits, target)` with an integer target (B, X, Y, Z); only training needs it.
        optimizer: makes the optimiser from the parameters; only training needs it.
        overlap: of the sliding window.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory | None = None,
        overlap: float = 0.0,
    ):
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.loss = loss
        self.optimizer = optimizer
        self.overlap = overlap
        self._losses: list[Tensor] = []  # of the steps since the curves' last point, on the device
        self._counts: list[Tensor] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.network.parameters())

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self(batch.image)
        loss = self.loss(logits, batch.label)
        self.log("loss", loss, prog_bar=True, logger=False)
        self._losses.append(loss.detach())
        self._counts.append(dice_counts(logits.detach().argmax(dim=1), batch.label, len(self.recipe.classes)))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.global_step % self.trainer.log_every_n_steps == 0 or self.global_step == self.trainer.max_steps:
            self._log_point("train", torch.stack(self._losses), dice_from_counts(sum(self._counts)))
            self._losses, self._counts = [], []

    def on_validation_epoch_start(self) -> None:
        self._validation: list[tuple[Tensor, Tensor]] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits, labels = self._segment(batch)
        truth = batch.label.to(self.device)
        counts = dice_counts(labels[None], truth, len(self.recipe.classes))
        self._validation.append((self.loss(logits[None], truth), dice_from_counts(counts)))
        return labels

    def on_validation_epoch_end(self) -> None:
        losses, dice = (torch.stack(values) for values in zip(*self._validation, strict=True))
        mean = dice.nanmean(dim=0)
        self._log_point("val", losses, mean)
        self.log("val/dice", mean[1:].nanmean(), prog_bar=True, logger=False)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._segment(batch)[1]

    def _segment(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (L, X, Y, Z) and label map (X, Y, Z) of the one volume in the batch, on the device."""
        logits = sliding_window(self, batch.image[0], self.recipe.patch_size, self.overlap).to(self.device)
        return logits, logits.argmax(dim=0).to(torch.uint8)

    def _log_point(self, stage: str, losses: Tensor, dice: Tensor) -> None:
        loss = losses.mean().item()
        if stage == "train" and not math.isfinite(loss):
            raise InputError(
                f"loss={loss} at step {self.global_step}: the training diverged, expected a finite loss; "
                "try a lower optim.lr, or trainer.precision=32-true"
            )
        values = {f"{stage}/loss": loss}
        values |= {f"{stage}/dice/{name}": d for name, d in zip(self.recipe.classes, dice.tolist(), strict=True)}
        for logger in self.loggers:
            logger.log_metrics(values, step=self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `load_network` needs, as plain types."""
        recipe = dataclasses.asdict(self.recipe)
        arguments = self.network.arguments if isinstance(self.network, UNet3D) else None
        checkpoint[CHECKPOINT_KEY] = {"network": arguments, "recipe": recipe}


def load_network(path: Path | str) -> tuple[UNet3D, Recipe]:
    """Rebuild the network of a checkpoint, in evaluation mode on the CPU, with nothing else given.

    No code in the file is executed (`weights_only=True`).

    Raises:
        InputError: no such file, not a checkpoint of ours, or one of another network than `UNet3D`.
    """
    checkpoint = read_checkpoint(path)
    described = checkpoint.get(CHECKPOINT_KEY)
    if described is None:
        raise InputError(f"{path}: holds no {CHECKPOINT_KEY!r} entry; expected a checkpoint that this package wrote")
    if described["network"] is None:
        raise InputError(
            f"{path}: was trained with a network of your own; only UNet3D can be rebuilt from a checkpoint"
        )
    network = UNet3D(**described["network"])
    prefix = "network."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    network.load_state_dict(weights)
    fields = described["recipe"]
    recipe = Recipe(
        classes=tuple(fields["classes"]),
        preparation=Preparation(**fields["preparation"]),
        spacing_mm=tuple(fields["spacing_mm"]),
        patch_size=tuple(fields["patch_size"]),
    )
    return network.eval(), recipe


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Load a checkpoint onto the CPU without executing code.

    Raises:
        InputError: no such file, or not a checkpoint.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a checkpoint, such as RUN/checkpoints/last.ckpt") from None
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable checkpoint ({reason})") from None
