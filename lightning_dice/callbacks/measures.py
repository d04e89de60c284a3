"""Measures of the training beside its curves."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from lightning_dice.callbacks.timing import StepTimes
from lightning_dice.module import SegmentationModule


class TrainingMeasures(pl.Callback):
    """Gives the loggers, at each point of the training's curves:

    - `optim/lr`: the learning rate of this iteration,
    - `optim/gradient_norm`: the Euclidean norm of its gradients of all weights, before any clipping,
    - `time/seconds_per_iteration` and `time/share_waiting_for_data`: means since the point before, without warm-up and
      validations.

    Nothing is computed in the iterations between, so that a GPU is waited for no oftener than for the curves.
    """

    def __init__(self, times: StepTimes):
        self.times = times

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._before = self.times.totals
        self._taken: dict[str, float | Tensor] = {}

    def on_before_optimizer_step(  # type: ignore[override]  # of our own module
        self, trainer: pl.Trainer, module: SegmentationModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if module.has_point(trainer.global_step + 1):
            gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
            rate = optimizer.param_groups[0]["lr"]  # now, since a schedule steps before the iteration's end
            self._taken = {"optim/lr": rate, "optim/gradient_norm": get_total_norm(gradients)}

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if not self._taken:
            return
        values = {name: float(value) for name, value in self._taken.items()}
        self._taken = {}
        totals = self.times.totals
        steps, seconds, waited = (now - before for now, before in zip(totals, self._before, strict=True))
        self._before = totals
        if steps:
            values |= {"time/seconds_per_iteration": seconds / steps, "time/share_waiting_for_data": waited / seconds}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
