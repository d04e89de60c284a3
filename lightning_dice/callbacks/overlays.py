"""Pictures of a validation case, as the training goes on."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_dice.data.patches import Batch
from lightning_dice.data.store import PreparedCase
from lightning_dice.module import SegmentationModule
from lightning_dice.pictures.slices import Pictured, read_pictured, slices_figure
from lightning_dice.recipe import Recipe


class OverlayPictures(pl.Callback):
    """Puts slices of the first validation volume, truth beside prediction, into TensorBoard at each validation."""

    def on_validation_batch_end(  # type: ignore[override]  # of our own module, which gives a tensor
        self,
        trainer: pl.Trainer,
        module: SegmentationModule,
        outputs: torch.Tensor,
        batch: Batch,
        batch_idx: int,
        *args: Any,
    ) -> None:
        if batch_idx:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                case = trainer.datamodule.cases[batch.ids[0]]  # type: ignore[attr-defined]  # set as it begins
                row = pictured(case, outputs.cpu().numpy(), module.recipe)
                figure = slices_figure([row], f"iteration {trainer.global_step}")
                logger.experiment.add_figure("validation", figure, trainer.global_step)


def pictured(case: PreparedCase, prediction: np.ndarray, recipe: Recipe) -> Pictured:
    """A case of the store with its prediction, for the slices."""
    window_hu = recipe.preparation.window_hu
    return read_pictured(case.id, case.image, case.label, prediction, case.spacing_mm, window_hu, recipe.labels)
