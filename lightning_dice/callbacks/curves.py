"""The curves' points, as the module logs them."""

from typing import Any

from pytorch_lightning.loggers.logger import Logger

from lightning_dice.runs import STAGES, Run
from lightning_dice.sessions import append_metrics


class CurvesLogger(Logger):
    """Appends what the module logs to the run's `metrics.csv`; what others log, as learning rates, is not."""

    name = "metrics.csv"
    version = None

    def __init__(self, run: Run):
        super().__init__()
        self.run = run

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None  # the module tells it
        if any(key.partition("/")[0] in STAGES for key in metrics):
            append_metrics(self.run, step, metrics)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run has its config.yaml."""
