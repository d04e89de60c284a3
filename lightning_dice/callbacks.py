"""What a run writes while the trainer works: curves, pictures, times, and the test's predictions and scores."""

import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.profilers import Profiler

from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.data.patches import Batch
from lightning_dice.data.seven import BACKGROUND, NAMES, NUM_CLASSES
from lightning_dice.data.store import PreparedCase
from lightning_dice.data.volumes import prepared_step, read_case, spacing_mm, to_ras
from lightning_dice.files import replacing
from lightning_dice.inference import to_native
from lightning_dice.metrics import score_case, summarize
from lightning_dice.paper.slices import Pictured, read_pictured, slices_figure
from lightning_dice.runs import SCORE_COLUMNS, Run, read_json, write_json, write_table
from lightning_dice.sessions import append_metrics

WARM_UP_STEPS = 2  # not timed: threads start, kernels are chosen
ESTIMATE_STEPS = 3  # timed before the duration is told
DRAWN_EVERY = 0.5  # seconds between two states of the progress bar
PICTURED_CASES = 3  # in the picture of the test
LONG_HOURS = 1.0  # an estimate above this on a CPU names the demo


class CurvesLogger(Logger):
    """Appends what the module logs to the run's `metrics.csv`."""

    name = "metrics.csv"
    version = None

    def __init__(self, run: Run):
        super().__init__()
        self.run = run

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        append_metrics(self.run, step, metrics)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run has its config.yaml."""


class ProgressBar(TQDMProgressBar):
    """Iterations of the run, under its name, with loss, the last validation's Dice, share of waiting and time left.

    It is drawn anew by the clock and not by the step, because showing a loss waits for the device.
    """

    def __init__(self, title: str, times: "StepTimes"):
        super().__init__()
        self.title = title
        self.times = times
        self._drawn = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(self.title)  # iterations are counted through, not by epochs

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if time.monotonic() > self._drawn + DRAWN_EVERY or trainer.is_last_batch:
            super().on_train_batch_end(trainer, *args)
            self._drawn = time.monotonic()

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, module)
        metrics.pop("v_num", None)
        share = self.times.share_waiting
        return metrics if share is None else metrics | {"waiting": f"{share:.1%}"}


class DataWait(Profiler):
    """Adds up the seconds in which the training loop waits for its next batch."""

    ACTION = "[_TrainingEpochLoop].train_dataloader_next"

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def start(self, action_name: str) -> None:
        if action_name == self.ACTION:
            self._started = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name == self.ACTION:
            self.seconds += time.perf_counter() - self._started

    def summary(self) -> str:
        return ""


class StepTimes(pl.Callback):
    """Times the iterations of this session, warm-up left out: from one's end to the next one's, validation left out.

    A GPU is waited for only where the timing begins and ends, so that its queue of work never runs dry for it.
    On a CPU it tells after a few iterations how long the training will take, and names the demo if that is long.
    """

    def __init__(self) -> None:
        self.wait = DataWait()
        self.steps = 0
        self._seconds = 0.0
        self._waited_before = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._last = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # in the middle of an iteration
        self.steps += 1
        if self.steps <= WARM_UP_STEPS:
            self._waited_before = self.wait.seconds
            self._restart(trainer)
        else:
            self._lap()
        if self.steps == WARM_UP_STEPS + ESTIMATE_STEPS and trainer.strategy.root_device.type == "cpu":
            hours = self.seconds_per_iteration * (trainer.max_steps - trainer.global_step) / 3600
            if hours > LONG_HOURS:
                trainer.print(
                    f"\n{self.seconds_per_iteration:.1f} s per iteration on this CPU: the remaining "
                    f"{trainer.max_steps - trainer.global_step} iterations will take about {hours:.0f} hours, without "
                    "validation. A GPU does them in minutes; experiment=demo shows the same on a CPU."
                )

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.on_train_end(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._restart(trainer)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.steps > WARM_UP_STEPS:
            _finish_work(trainer)
            self._lap()

    def _restart(self, trainer: pl.Trainer) -> None:
        _finish_work(trainer)
        self._last = time.perf_counter()

    def _lap(self) -> None:
        now = time.perf_counter()
        self._seconds += now - self._last
        self._last = now

    @property
    def share_waiting(self) -> float | None:
        return (self.wait.seconds - self._waited_before) / self._seconds if self._seconds else None

    @property
    def seconds_per_iteration(self) -> float | None:
        timed = self.steps - WARM_UP_STEPS
        return self._seconds / timed if timed > 0 else None

    def summary(self) -> dict[str, float | None]:
        """Seconds per iteration, the share of them that waited for data, peak memory of the host and of the device."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cuda = torch.cuda.is_available()
        return {
            "iterations_timed": max(0, self.steps - WARM_UP_STEPS),
            "seconds_per_iteration": self.seconds_per_iteration,
            "share_waiting_for_data": self.share_waiting,
            "peak_memory_gb": peak * (1 if sys.platform == "darwin" else 1024) / 1e9,  # bytes there, KiB on Linux
            "peak_device_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
        }


def _finish_work(trainer: pl.Trainer) -> None:
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize()


class OverlayPictures(pl.Callback):
    """Puts slices of the first validation volume, truth beside prediction, into TensorBoard at each validation."""

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: torch.Tensor,
        batch: Batch,
        batch_idx: int,
        *args: Any,
    ) -> None:
        if batch_idx:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                case = trainer.datamodule.cases[batch.ids[0]]
                row = pictured(case, outputs.cpu().numpy(), module.recipe.preparation.window_hu)
                figure = slices_figure([row], f"iteration {trainer.global_step}")
                logger.experiment.add_figure("validation", figure, trainer.global_step)


class Scoring(pl.Callback):
    """Scores a test case while the next one is segmented; one at a time, so that cases do not pile up in memory."""

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._rows: list[Future[list[dict[str, Any]]]] = []

    def score(self, *case: Any) -> None:
        """Begin to score a case, given as to `score_rows`, when the one before is done."""
        if self._rows:
            self._rows[-1].result()
        self._rows.append(self._thread.submit(score_rows, *case))

    def scores(self) -> pd.DataFrame:
        """Of all cases, in their order."""
        self._thread.shutdown()
        return pd.DataFrame([row for rows in self._rows for row in rows.result()], columns=SCORE_COLUMNS)


class TestResults(Scoring):
    """Writes each test case's prediction and, at the end, all scores, their summary and a picture into the folder."""

    __test__ = False  # not a test of ours, whatever pytest makes of the name

    def __init__(self, run: Run, datamodule: CTDataModule):
        self.run = run
        self.data = datamodule
        self._pictured: list[Pictured] = []

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: torch.Tensor, batch: Batch, *args: Any
    ) -> None:
        case = self.data.cases[batch.ids[0]]
        prediction = module.label_map(outputs).cpu().numpy()
        with replacing(self.run.prediction(case.id)) as path:
            nib.save(nib.Nifti1Image(prediction, np.array(case.affine)), path)
        self.score(case.id, prediction, batch.label[0].cpu().numpy(), case.spacing_mm, module.taught)
        if len(self._pictured) < PICTURED_CASES:
            self._pictured.append(pictured(case, prediction, module.recipe.preparation.window_hu))

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        scores = self.scores()
        scored = scores["case"].drop_duplicates().tolist()
        if scored != list(self.data.split.test):
            raise RuntimeError(f"scored {scored} instead of the test cases {list(self.data.split.test)}")
        write_table(self.run.scores, scores)
        write_json(self.run.summary, summarize(scores))
        cases = self.data.cases
        files = {i: {"image": str(cases[i].image), "label": str(cases[i].label)} for i in scored}
        write_json(self.run.cases, files)
        with replacing(self.run.slices) as path:
            slices_figure(self._pictured).savefig(path, dpi=150)


class NativeScores(Scoring):
    """Scores the test cases on their scans' own grids too: a table, and `native` in the summary. After TestResults."""

    def __init__(self, run: Run, datamodule: CTDataModule):
        self.run = run
        self.data = datamodule

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: torch.Tensor, batch: Batch, *args: Any
    ) -> None:
        case = batch.ids[0]
        scan, _ = read_case(self.data.sources[case])
        truth, affine = to_ras(scan.label, scan.affine)
        step = prepared_step(affine, self.data.preparation)
        places = to_native([outputs[0].float().cpu()], outputs.shape[-1], truth.shape, step)
        prediction = np.array([NAMES.index(name) for name in module.taught], np.uint8)[places]
        self.score(case, prediction, truth, spacing_mm(affine), module.taught)

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        scores = self.scores()
        write_table(self.run.native_scores, scores)
        write_json(self.run.summary, read_json(self.run.summary) | {"native": summarize(scores)})


def score_rows(
    case: str, prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], taught: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of `scores.csv` of a case, one per class. What is not taught counts as background in the truth."""
    known = [NAMES.index(name) for name in taught]
    truth = np.where(np.isin(truth, known), truth, BACKGROUND).astype(np.uint8)
    scores = score_case(prediction, truth, spacing_mm, NUM_CLASSES)
    return [{"case": case, "name": NAMES[score.label], **asdict(score)} for score in scores]


def pictured(case: PreparedCase, prediction: np.ndarray, window_hu: tuple[float, float]) -> Pictured:
    """A case of the store with its prediction, for the slices."""
    return read_pictured(case.id, case.image, case.label, prediction, case.spacing_mm, window_hu)
