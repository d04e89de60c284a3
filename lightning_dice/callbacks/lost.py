"""A lost class is told while there is something to save."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger

from lightning_dice.lost import lost_classes

TRAINED = "train/dice/"


class LostClassWarning(Logger):
    """Tells of each class once that it is lost, on the screen and in TensorBoard, and changes nothing.

    It sees the curves' points as any logger does.

    Args:
        shares: of the training's voxels, by class.
        board: gets the lines as text.
        has_prior: the training began with a prior already.
    """

    name = "lost"
    version = None

    def __init__(self, shares: Mapping[str, float], board: TensorBoardLogger, has_prior: bool = False):
        super().__init__()
        self.shares = shares
        self.board = board
        self.remedy = "another seed may find it" if has_prior else "another seed may find it, or prior=half"
        self._told: set[str] = set()

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None  # the module tells it
        dice = {key.removeprefix(TRAINED): value for key, value in metrics.items() if key.startswith(TRAINED)}
        for name, value in lost_classes(dice, self.shares, step).items():
            if name not in self._told:
                self._told.add(name)
                line = (
                    f"{name}: training Dice {value:.2f} at step {step}, with {self.shares[name]:.1%} of the training's "
                    f"voxels: the network does not find it, however good its loss looks; {self.remedy}"
                )
                print(f"\nwarning: {line}", flush=True)
                self.board.experiment.add_text("lost", line, step)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run has its config.yaml."""
