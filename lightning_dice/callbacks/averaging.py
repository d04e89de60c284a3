"""Averages of the weights over the iterations."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from lightning_dice.errors import InputError

FLOAT32 = ("32-true", "bf16-mixed", "16-mixed")  # precisions whose weights are that


class MovingAverage(WeightAveraging):
    """An exponential moving average of the weights, by Lightning's and torch's means.

    After iteration n + 1 it moves by 1 - min(decay, (1 + n) / (10 + n)) towards the weights: with a `decay` alone the
    first weights would dominate for some 1 / (1 - decay) iterations (the schedule of TensorFlow's
    ExponentialMovingAverage). The running statistics of batch norm are averaged likewise, since those of other weights
    would not fit; integers are the last ones.

    Validations work with the averaged weights. Checkpoints hold them under the usual names, beside those to go on from.

    Args:
        decay: from 0, no average, to below 1.

    Raises:
        ValueError: another decay.
    """

    def __init__(self, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: expected a number from 0 to below 1")

        def average(averaged: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
            if not averaged.is_floating_point():
                return current
            count = torch.as_tensor(updates, dtype=averaged.dtype)
            return averaged.lerp(current, 1 - ((1 + count) / (10 + count)).clamp(max=decay))

        super().__init__(use_buffers=True, avg_fn=average)

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert self._average_model is not None  # Lightning makes it before the module gets to its device
        self._average_model.to(module.device)

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._average_model is not None:  # in a session that has nothing left to train, the end of that did not come
            self._copy_average_to_current(module)


def check_averaging(callback: pl.Callback, name: str, precision: str) -> None:
    """See that weights to average are float32: in bfloat16 a step of 1 - decay is rounded to none.

    Raises:
        InputError: an average of others.
    """
    if isinstance(callback, MovingAverage) and precision not in FLOAT32:
        raise InputError(
            f"trainer.precision={precision}: {name} averages float32 weights; expected {' or '.join(FLOAT32)}, or "
            "leave the callback out"
        )
