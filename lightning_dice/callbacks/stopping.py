"""Early stopping by Lightning's callback: what it can go by, and why it stopped."""

import math

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping

from lightning_dice.errors import InputError

MONITORED = ("val/dice", "loss")  # what the module tells callbacks


def check_stopping(callback: Callback, name: str) -> None:
    """See that an early stopping can work, since Lightning's own tells only after the first validation.

    Raises:
        InputError: a quantity that is not monitored, no patience, or a difference that is no number.
    """
    if not isinstance(callback, EarlyStopping):
        return
    monitor, patience, min_delta = callback.monitor, callback.patience, callback.min_delta
    if monitor not in MONITORED:
        raise InputError(f"{name}.monitor={monitor}: expected {' or '.join(MONITORED)}")
    if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
        raise InputError(f"{name}.patience={patience}: expected an integer from 1")
    if not isinstance(min_delta, int | float) or not math.isfinite(min_delta):
        raise InputError(f"{name}.min_delta={min_delta}: expected a finite number")


def check_validates(trainer: pl.Trainer, validates: bool) -> None:
    """See that there are validations to stop by.

    Raises:
        InputError: an early stopping without them.
    """
    if trainer.early_stopping_callbacks and not validates:
        raise InputError(
            "data.validation=0: early stopping goes by the validation; expected a share above 0, or no early stopping"
        )


def why_stopped(trainer: pl.Trainer) -> str:
    """At which step a training ended before its last one, and why as far as a callback says it."""
    reasons = [c.stopping_reason_message for c in trainer.early_stopping_callbacks if c.stopping_reason_message]
    told = "".join(f": {reason.removesuffix(' Signaling Trainer to stop.')}" for reason in reasons[:1])
    return f"stopped after step {trainer.global_step} of {trainer.max_steps}{told}"
