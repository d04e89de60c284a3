"""The progress bar, and how long an iteration takes and waits for data."""

import resource
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from pytorch_lightning.profilers import Profiler

from lightning_dice.durations import duration

WARM_UP_STEPS = 2  # not timed: threads start, kernels are chosen
ESTIMATE_STEPS = 3  # timed before the duration is told
DRAWN_EVERY = 0.5  # seconds between two states of the progress bar
LINES = 20  # of a whole run, where there is no progress bar
LONG_HOURS = 1.0  # an estimate above this on a CPU names the demo


class ProgressBar(TQDMProgressBar):
    """Iterations of the run, under its name, with loss, the last validation's Dice, share of waiting and time left.

    It is drawn anew by the clock and not by the step, because showing a loss waits for the device. Where the output is
    no terminal, there are a few plain lines instead of the bar.
    """

    def __init__(self, title: str, times: "StepTimes"):
        super().__init__()
        self.title = title
        self.times = times
        self._drawn = 0.0
        self._part = 0  # of the run, of LINES, that the last line was about

    def init_train_tqdm(self) -> Tqdm:
        """With title, total and the iterations of sessions before from its first frame on."""
        self._part = self._part_at(self.trainer.global_step)
        return self._bar(self.title, self.trainer.max_steps, initial=self.trainer.global_step, smoothing=0)

    def init_sanity_tqdm(self) -> Tqdm:
        return self._bar("sanity check", self.trainer.num_sanity_val_batches[0], leave=False)

    def init_validation_tqdm(self) -> Tqdm:
        return self._bar("validation", self.trainer.num_val_batches[0], leave=False, position=1)

    def init_test_tqdm(self) -> Tqdm:
        return self._bar("test", self.trainer.num_test_batches[0])

    def _bar(self, title: str, total: float, **more: Any) -> Tqdm:
        look = {"dynamic_ncols": True, "file": sys.stdout, "bar_format": self.BAR_FORMAT}
        return Tqdm(desc=title, total=total, disable=None, **look, **more)  # None: in a terminal only

    def on_train_epoch_start(self, *_: Any) -> None:
        """Nothing: iterations are counted through, not by epochs."""

    def on_validation_batch_start(self, *_: Any) -> None:
        """Nothing: the bar has its total."""

    def on_test_batch_start(self, *_: Any) -> None:
        """Nothing: the bar has its total."""

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if self.train_progress_bar.disable:
            if self._part_at(trainer.global_step) > self._part:
                self._part = self._part_at(trainer.global_step)
                print(self._line(trainer), flush=True)
        elif time.monotonic() > self._drawn + DRAWN_EVERY or trainer.is_last_batch:
            self.train_progress_bar.n = trainer.global_step
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, module))
            self._drawn = time.monotonic()

    def _part_at(self, step: int) -> int:
        return step * LINES // self.trainer.max_steps

    def _line(self, trainer: pl.Trainer) -> str:
        line = [f"step {trainer.global_step} of {trainer.max_steps}"]
        line += [f"{name} {value:.3g}" for name, value in trainer.progress_bar_metrics.items()]
        steps, seconds, _ = self.times.totals
        if steps:
            left = seconds / steps * (trainer.max_steps - trainer.global_step)
            line += [f"{seconds / steps:.3g} s per iteration", f"{duration(left)} left"]
        return ", ".join(line)

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
            seconds = self._seconds / ESTIMATE_STEPS
            hours = seconds * (trainer.max_steps - trainer.global_step) / 3600
            if hours > LONG_HOURS:
                trainer.print(
                    f"\n{seconds:.1f} s per iteration on this CPU: the remaining "
                    f"{trainer.max_steps - trainer.global_step} iterations will take about {hours:.0f} hours, without "
                    "validation. A GPU is many times faster; experiment=demo shows the same at a scale for CPUs."
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
    def totals(self) -> tuple[int, float, float]:
        """The iterations timed, their seconds, and those of them in which they waited for data."""
        return max(0, self.steps - WARM_UP_STEPS), self._seconds, self.wait.seconds - self._waited_before

    @property
    def share_waiting(self) -> float | None:
        _, seconds, waited = self.totals
        return waited / seconds if seconds else None

    def summary(self) -> dict[str, float | None]:
        """Seconds per iteration, the share of them that waited for data, peak memory of the host and of the device."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cuda = torch.cuda.is_available()
        steps, seconds, _ = self.totals
        return {
            "iterations_timed": steps,
            "seconds_per_iteration": seconds / steps if steps else None,
            "share_waiting_for_data": self.share_waiting,
            "peak_memory_gb": peak * (1 if sys.platform == "darwin" else 1024) / 1e9,  # bytes there, KiB on Linux
            "peak_device_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
        }


def _finish_work(trainer: pl.Trainer) -> None:
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize()
