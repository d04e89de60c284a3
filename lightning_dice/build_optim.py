"""Optimiser and schedule of the configuration, tried before anything is written."""

import functools
import inspect
import warnings

from omegaconf import DictConfig
from torch import nn, zeros
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_dice.config import plain
from lightning_dice.devices import uses_gpu
from lightning_dice.errors import InputError
from lightning_dice.module import OptimizerFactory, ScheduleFactory
from lightning_dice.objects import instantiated, refusing


def check_optim(config: DictConfig) -> None:
    """Make them once, for a weight of their own, and see that they can work.

    Raises:
        InputError: they refuse their arguments; an optimiser that asks for the loss by itself, or a schedule that waits
            for validations; rates that are none.
    """
    optimizer = refusing("optim", build_optimizer(config), [nn.Parameter(zeros(1))])
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise InputError(
            f"optim._target_={config.optim._target_}: asks for the loss several times in an iteration; expected an "
            "optimiser that goes by one gradient, such as torch.optim.Adam"
        )
    schedule = build_schedule(config.schedule)
    if schedule is None:
        return
    made = refusing("schedule", schedule, optimizer)
    if not isinstance(made, LRScheduler) or isinstance(made, ReduceLROnPlateau):  # which waits for a validation
        raise InputError(
            f"schedule._target_={config.schedule._target_}: makes a {type(made).__name__}; expected a schedule by "
            "iterations, such as one of torch.optim.lr_scheduler"
        )
    rates = refusing("schedule", _rates, made, config.trainer.max_steps)
    if wrong := [rate for rate in rates if not 0 <= rate < float("inf")]:
        raise InputError(f"schedule: comes to a learning rate of {wrong[0]}; expected finite ones from 0")


def build_optimizer(config: DictConfig) -> OptimizerFactory:
    """In one kernel for all weights on a GPU, where the optimiser has it; on a CPU it takes no time to speak of."""
    factory = instantiated(config.optim, "optim")
    if uses_gpu(config.trainer.accelerator) and "fused" in inspect.signature(factory.func).parameters:
        return functools.partial(factory.func, **{"fused": True} | factory.keywords)
    return factory


def build_schedule(config: DictConfig) -> ScheduleFactory | None:
    """None where there is none.

    Raises:
        InputError: arguments without a schedule.
    """
    if config._target_ is not None:
        return instantiated(config, "schedule", _partial_=True)
    if left_over := [f"schedule.{key}={value}" for key, value in plain(config).items() if key != "_target_"]:
        raise InputError(f"{', '.join(left_over)}: no schedule takes it; add schedule._target_=… or one by its name")
    return None


def _rates(schedule: LRScheduler, steps: int) -> list[float]:
    """Of all iterations, tried before the training."""
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch minds schedules that step alone
        for _ in range(steps):
            schedule.step()
            rates.append(float(schedule.get_last_lr()[0]))
    return rates
