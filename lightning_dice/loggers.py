"""Loggers beside TensorBoard and metrics.csv: Lightning's own, told of which run they are."""

import contextlib
import functools
import importlib.util
import inspect
import os
from collections.abc import Iterator
from typing import Any

from filelock import FileLock
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import Logger

from lightning_dice.config import plain
from lightning_dice.errors import InputError
from lightning_dice.objects import instantiated, parameters, refusing
from lightning_dice.runs import Run, read_json

CSV, WANDB, MLFLOW = (f"pytorch_lightning.loggers.{name}" for name in ("CSVLogger", "WandbLogger", "MLFlowLogger"))
EXTRAS = {WANDB: "wandb", MLFLOW: "mlflow"}  # packages, of which the extras have the names

TRACKING_URI = os.environ.get("MLFLOW_TRACKING_URI")  # now, since MLflow sets it to that of the run before


def check_loggers(config: DictConfig) -> None:
    """What can be known of the loggers `config` without making them, which writes files.

    Raises:
        InputError: no such class, a package that is not installed, or an argument that a logger does not take.
    """
    for name, settings in plain(config).items():
        known = parameters(settings["_target_"], f"logger.{name}")
        extra = EXTRAS.get(settings["_target_"])
        if extra and importlib.util.find_spec(extra) is None:
            raise InputError(
                f"logger.{name}: the package {extra} is not installed; pip install 'lightning-dice[{extra}]'"
            )
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
            given = {key: value for key, value in settings.items() if key not in ("_target_", "_partial_")}
            bind = inspect.Signature(list(known.values())).bind_partial
            refusing(f"logger.{name}", functools.partial(bind, **given))


@contextlib.contextmanager
def open_loggers(config: DictConfig, run: Run, step: int) -> Iterator[dict[str, Logger]]:
    """The loggers `config`, by their names, with what depends on the run unless the settings say it.

    From a step after 0 they go on in those of W&B's and MLflow's runs that the sessions in `environment.json` name. W&B
    has one run at a time, which ends here.

    Raises:
        InputError: a logger that cannot begin, such as one without its account.
    """
    before: dict[str, str] = {}
    for session in read_json(run.environment).get("sessions", []) if step else []:
        before |= session.get("loggers", {})
    loggers: dict[str, Logger] = {}
    exit_code = 1
    try:
        for name in map(str, config):
            loggers[name] = _opened(config[name], f"logger.{name}", run, step, before.get(name))
        yield loggers
        exit_code = 0
    finally:
        for logger in loggers.values():
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code)


def _opened(config: DictConfig, name: str, run: Run, step: int, before: str | None) -> Logger:
    """A logger that has begun a run of its own, or goes on with the one before."""
    kind = config._target_
    given = {key: value for key, value in plain(config).items() if value is not None}
    folder = run.folder.resolve()
    output_dir, experiment = folder.parents[2], f"{folder.parts[-3]}/{folder.parts[-2]}"
    of_run: dict[str, Any] = {}
    lock: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if kind == CSV:
        of_run = {"save_dir": str(folder), "name": "csv", "version": f"from_step_{step}"}
    elif kind == WANDB:
        of_run = {"save_dir": str(folder), "name": folder.name, "group": experiment, "id": before}
    elif kind == MLFLOW:
        of_run = {"experiment_name": experiment, "run_name": folder.name, "run_id": before}
        if TRACKING_URI:
            of_run["tracking_uri"] = TRACKING_URI
        elif "tracking_uri" not in given:
            of_run["tracking_uri"] = f"sqlite:///{output_dir}/mlflow.db"
            of_run["artifact_location"] = (output_dir / "mlartifacts").as_uri()
            lock = FileLock(output_dir / "mlflow.db.lock")  # of cells that start at once, one makes its tables
    try:
        with lock:
            logger: Logger = instantiated(of_run | given, name)
            _ = logger.experiment  # type: ignore[attr-defined]  # Lightning's loggers have one; asking for it begins
    except InputError:
        raise
    except Exception as error:  # each package has its own
        cause = (isinstance(error, InstantiationException) and error.__cause__) or error
        raise InputError(f"{name}: {' '.join(str(cause).split())}") from error
    return logger
