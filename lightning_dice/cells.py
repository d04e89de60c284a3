"""Which cell of a grid begins, and when the grid will end."""

import time
from datetime import datetime, timedelta
from math import prod
from statistics import mean
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lightning_dice.durations import duration

TRAINED = "trained, done"  # how the result of a cell ends that was trained from its first iteration to its last


class CellLines(Callback):
    """Prints one line before each cell of a multirun, with the time that it and those after it will take if none of
    them is finished, by the mean of those that were trained in this session.

    It does so where they run one after another in this process: with Hydra's own launcher and sweeper.
    """

    def __init__(self) -> None:
        self.swept: dict[str, int] = {}  # settings and the numbers of their values
        self.seconds: list[float] = []  # of the cells that were trained

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        parts = (config.hydra.launcher._target_, config.hydra.sweeper._target_)
        if [part.rpartition(".")[2] for part in parts] != ["BasicLauncher", "BasicSweeper"]:
            return
        asked = [f"{name}={values}" for name, values in (config.hydra.sweeper.params or {}).items()]
        for override in OverridesParser.create().parse_overrides([*asked, *config.hydra.overrides.task]):
            several = override.is_sweep_override()
            self.swept[override.get_key_element()] = len(list(override.sweep_string_iterator())) if several else 1

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        self.since = time.monotonic()
        cells, number = prod(self.swept.values()), config.hydra.job.get("num", 0)
        if cells == 1:  # also without a multirun
            return
        several = [one for one in config.hydra.overrides.task if self.swept.get(one.partition("=")[0], 1) > 1]
        line = f"cell {number + 1} of {cells}: {' '.join(several)}"
        if self.seconds:
            left, now = timedelta(seconds=mean(self.seconds) * (cells - number)), datetime.now()
            day = "" if (now + left).date() == now.date() else "%d %b "
            line += f", about {duration(left.total_seconds())} left, until {now + left:{day}%H:%M}"
        print(f"\n{line}", flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        if job_return.status is JobStatus.COMPLETED and str(job_return.return_value).endswith(TRAINED):
            self.seconds.append(time.monotonic() - self.since)
