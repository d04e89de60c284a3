"""Lightning's callbacks that cannot work in a run, which is one epoch, with batch and rate from the configuration."""

from pytorch_lightning import callbacks
from pytorch_lightning.callbacks import Callback

from lightning_dice.errors import InputError

REASONS: dict[type[Callback], str] = {  # and what to do
    callbacks.BackboneFinetuning: "it wants a part called backbone; expected init_from=…, or a callback of your own",
    callbacks.BatchSizeFinder: "the batch is a setting; expected data.batch_size=…",
    callbacks.GradientAccumulationScheduler: "a run is one epoch; expected +trainer.accumulate_grad_batches=…",
    callbacks.LearningRateFinder: "the rate is a setting; expected optim.lr=…, or the sweep +sweep=rates",
    callbacks.ModelPruning: "it gives weights other names in a checkpoint; expected to prune an exported network",
    callbacks.StochasticWeightAveraging: "a run is one epoch; expected callbacks=ema",
}


def check_fits(callback: Callback, name: str) -> None:
    """See that a callback is none of these, some of which would end only after the first iterations, or never.

    Raises:
        InputError: it is.
    """
    for kind, reason in REASONS.items():
        if isinstance(callback, kind):
            raise InputError(f"{name}: {type(callback).__name__} cannot work here: {reason}")
