"""What TensorBoard shows beside curves and pictures: settings, tables, and charts by class."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams

from lightning_dice.callbacks.scoring import TEST_MEANS, Scoring
from lightning_dice.module import SegmentationModule
from lightning_dice.pictures.tables import classes_table, scores_table
from lightning_dice.runs import STAGES

METRICS = ("val/dice", *TEST_MEANS)
SHOWN = ("loss", "optim.lr", "seed", "prior", "others")  # TensorBoard shows five columns, these unless asked for others


class BoardTables(pl.Callback):
    """Puts into TensorBoard, as the training begins: the settings, for HPARAMS; voxels and weights of the classes, for
    TEXT; a chart per class of training beside validation, for CUSTOM SCALARS. After the test its table, for TEXT.

    HPARAMS takes its columns from one run, whichever it finds first, so the settings must have the same keys in all
    runs. The metrics' values are those of the curves: there is none before it is known.

    Args:
        board: the logger of TensorBoard.
        settings: numbers and texts.
        class_voxels: of the training, of the taught classes.
        results: of the test, a callback that comes before this one.
    """

    def __init__(
        self, board: TensorBoardLogger, settings: Mapping[str, Any], class_voxels: Sequence[int], results: Scoring
    ):
        self.board = board
        self.settings = settings
        self.class_voxels = class_voxels
        self.results = results

    def on_train_start(  # type: ignore[override]  # of our own module
        self, trainer: pl.Trainer, module: SegmentationModule
    ) -> None:
        if trainer.global_step:
            return  # the session that began the run did it
        for summary in hparams_summaries(self.settings)[:2]:
            self.board.experiment.file_writer.add_summary(summary, 0)
        self.board.experiment.add_custom_scalars(charts(module.taught))
        weights = getattr(module.loss, "weights", None)
        table = classes_table(module.taught, self.class_voxels, None if weights is None else weights.tolist())
        self.board.experiment.add_text("classes", preformatted(table), 0)

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.board.experiment.add_text("test", preformatted(scores_table(self.results.summary)), trainer.global_step)
        self.board.experiment.file_writer.add_summary(hparams_summaries(self.settings)[2], trainer.global_step)


def hparams_summaries(settings: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """For HPARAMS: the columns, with those of SHOWN first; a run's settings; and its end."""
    columns, values, ended = hparams(dict(settings), dict.fromkeys(METRICS, 0.0))  # the names alone are written
    plugin_data = columns.value[0].metadata.plugin_data
    declared = HParamsPluginData.FromString(plugin_data.content)
    for info in declared.experiment.hparam_infos:
        info.differs = info.name in SHOWN
    plugin_data.content = declared.SerializeToString()
    return columns, values, ended


def charts(names: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """The layout of CUSTOM SCALARS for these classes: the loss and each one's Dice, of training and validation."""

    def chart(curve: str) -> list[Any]:
        return ["Multiline", [f"^{stage}/{re.escape(curve)}$" for stage in STAGES]]

    return {"loss": {"loss": chart("loss")}, "Dice": {name: chart(f"dice/{name}") for name in names}}


def preformatted(table: str) -> str:
    """A table of the terminal as Markdown that keeps its columns."""
    return "\n".join(f"    {line}" for line in table.splitlines())
