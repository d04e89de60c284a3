"""Any loss as one of the module's: made with the class weights, given the target that it expects; the sum of two."""

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.functional import one_hot

from lightning_dice.config import plain
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.data.labels import told_names
from lightning_dice.errors import InputError
from lightning_dice.loss import DiceLoss, class_weights
from lightning_dice.naming import OUR_LOSS, SUM_LOSS, SUMMANDS
from lightning_dice.objects import instantiated, parameters, refusing, taken
from lightning_dice.ranks import total, whole_batch
from lightning_dice.settings import LossSettings
from lightning_dice.validation import check

# Of a target (B, X, Y, Z) and the number of classes.
TARGETS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "indices": lambda target, classes: target.long(),
    "channel": lambda target, classes: target.long()[:, None],
    "one_hot": lambda target, classes: one_hot(target.long(), classes).movedim(-1, 1).float(),
}
USUAL = {"monai": "channel"}  # by package; all others take indices, as torch's
ACTIVATIONS = ("softmax", "sigmoid", "other_act")  # MONAI's names for what makes probabilities of logits


def taken_by_loss(config: DictConfig, name: str = "loss") -> DictConfig:
    """Those settings that the class takes, of a sum those that each of its losses takes."""
    if config._target_ == SUM_LOSS:
        for part in SUMMANDS:
            config[part] = taken_by_loss(config[part], f"{name}.{part}")
        return config
    return taken(config, name, "loss/uniform.yaml", ("weighting",) if _is_weighted(config, name) else ())


def build_loss(config: DictConfig, data: CTDataModule | None = None, name: str = "loss") -> nn.Module:
    """The loss, with the weights of the data's class counts; without data only to see that it takes its arguments.

    `_target_format_` is ours: what the loss expects of its target, see `AnyLoss`. `weighting` becomes `weight` for a
    class that takes the latter alone, see `class_weights`.

    Raises:
        InputError: what the loss refuses, when it is made and, with data, when it is called.
    """
    if config._target_ == SUM_LOSS:
        parts = [build_loss(config[part], data, f"{name}.{part}") for part in SUMMANDS]
        return refusing(name, SumLoss, *parts, plain(config)["factors"])
    check(plain(config), LossSettings, f"{name}.")
    settings = {key: value for key, value in plain(config).items() if key != "_target_format_"}
    called = name if config._target_ == OUR_LOSS else f"{name}._target_={config._target_}"
    weights: Tensor | None = None
    more: dict[str, Tensor] = {}
    if _is_weighted(config, name):
        weighting = settings.pop("weighting", "uniform")
        if settings.get("weight") is None:
            weights = refusing(name, class_weights, data.class_voxels if data else [1], weighting)
        elif weighting != "uniform":
            raise InputError(f"{name}.weighting={weighting}: there is {name}.weight too; leave one of them out")
        if weights is not None and data and weighting != "uniform":  # which is the same as without
            more = {"weight": weights.float()}
    _check_activation(settings, name)
    make = instantiated(settings, called, _partial_=True, _convert_="all")
    loss = refusing(called, lambda: make(**more))
    if data and hasattr(loss, "set_class_voxels"):
        loss.set_class_voxels(data.class_voxels)
    if not isinstance(loss, nn.Module):
        raise InputError(f"{called}: makes a {type(loss).__name__}; expected a Module")
    if isinstance(loss, DiceLoss):
        if "_target_format_" in config:
            raise InputError(
                f"{name}._target_format_={config._target_format_}: {config._target_} takes no other; leave it out"
            )
        if data:
            _check_absent(loss, name, data)
        loss.across = total
        return loss
    usual = USUAL.get(config._target_.partition(".")[0], "indices")
    loss = AnyLoss(loss, called, config.get("_target_format_", usual), weights)
    if data:
        loss.check(len(data.taught), data.patch_size)
    return loss


class AnyLoss(nn.Module):
    """A loss of another package, called as the module calls its own.

    It is computed in float32, outside autocast, or in float64 if the logits are.

    In training on several devices each computes it from the logits of the whole batch, so that any loss is that of one
    device, also one that is no mean over samples: of sums over the batch, as Dice, or weighted by its classes, as
    torch's cross-entropy. That takes memory and traffic for the logits, 8 MB for a patch of 64³ in 8 classes, and the
    loss's own time for the whole batch; `DiceLoss`, whose sums are enough, needs neither.

    Args:
        loss: called as `loss(logits, target)`.
        name: of the setting, for what `check` says: `loss._target_=CLASS`.
        target_format: "indices", int64 (B, X, Y, Z); "channel", int64 (B, 1, X, Y, Z); "one_hot", float32
            (B, L, X, Y, Z).
        weights: those of the classes that it was made with, to be told; float64 (L,).

    Shapes:
        logits (B, L, X, Y, Z) float; target (B, X, Y, Z) integer; result: scalar.
    """

    def __init__(self, loss: nn.Module, name: str, target_format: str, weights: Tensor | None = None):
        super().__init__()
        self.loss = loss
        self.name = name
        self.target_format = target_format
        self.weights = weights

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.training:
            logits, target = whole_batch(logits), whole_batch(target)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        with torch.autocast(logits.device.type, enabled=False):
            return self.loss(logits, TARGETS[self.target_format](target, logits.shape[1]))

    def check(self, classes: int, size: Sequence[int]) -> None:
        """Call a copy of it once, on patches of this size that hold all classes: what it keeps does not change.

        Neither their number nor a side is that of the classes, and none is 1. Otherwise torch would go on with what
        lacks a dimension, such as a weight per class, which it would then multiply with the places along the last side.

        Raises:
            InputError: it refuses its arguments, or gives no finite scalar to train by.
        """
        shape = [next(multiple for multiple in (n, 2 * n, 4 * n) if multiple not in (1, classes)) for n in (2, *size)]
        drawn = torch.randn(shape[0], classes, *shape[1:], generator=torch.Generator().manual_seed(0))
        logits = drawn.requires_grad_()
        target = (torch.arange(shape[0] * math.prod(shape[1:])) % classes).reshape(shape)
        try:
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                # Torch's own losses go on with what has another shape if they can broadcast it.
                warnings.filterwarnings("error", message="Using a target size")
                value = copy.deepcopy(self)(logits, target)
        except Exception as error:  # whatever a loss of anybody's raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"{self.name}: fails on logits {tuple(logits.shape)} and a target of the format {self.target_format} "
                f"({reason}); expected a loss that takes them, see _target_format_ and its arguments"
            ) from error
        if not isinstance(value, Tensor) or value.dim() or not value.isfinite() or not value.requires_grad:
            given = f"a {type(value).__name__}"
            if isinstance(value, Tensor):
                given = f"a tensor of shape {tuple(value.shape)}" if value.dim() else f"{value.item():g}"
                given += "" if value.requires_grad else " without a gradient"
            raise InputError(f"{self.name}: gives {given}; expected a finite scalar with a gradient")


class SumLoss(nn.Module):
    """The sum of two losses, each times its factor.

    Raises:
        ValueError: not two finite factors.
    """

    def __init__(self, first: nn.Module, second: nn.Module, factors: Sequence[float] = (1.0, 1.0)):
        super().__init__()
        is_two = len(factors) == 2 and all(isinstance(f, int | float) and abs(f) < float("inf") for f in factors)
        if not is_two:
            raise ValueError(f"factors={list(factors)}: expected two finite numbers")
        self.first, self.second, self.factors = first, second, tuple(factors)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.factors[0] * self.first(logits, target) + self.factors[1] * self.second(logits, target)


def warn_of_absent(loss: nn.Module, data: CTDataModule) -> None:
    """Print a line on classes without a training voxel where a loss of another package has weights by frequency.

    Cross-entropy never uses their weights. A Dice with smoothing terms does, and whether there are any is not known.
    """
    given = [part.weights for part in loss.modules() if isinstance(part, AnyLoss) and part.weights is not None]
    if (absent := _absent(data)) and any(len(weights.unique()) > 1 for weights in given):
        print(
            f"warning: {told_names(absent)}: no training voxel, so the weight is N/ε; unless the loss multiplies it by "
            "zero, as cross-entropy does, little else will be learnt; labels without such a class are safer"
        )


def _check_activation(settings: Mapping[str, Any], name: str) -> None:
    """See that a loss that can make probabilities of the network's logits, such as MONAI's Dice, is told to.

    Raises:
        InputError: it would take the logits for probabilities.
    """
    known = parameters(settings["_target_"], name)
    choices = {one: settings.get(one, known[one].default) for one in ACTIVATIONS if one in known}
    if len(choices) > 1 and not any(choices.values()):
        raise InputError(
            f"{name}._target_={settings['_target_']}: takes probabilities, and a network gives logits; expected "
            f"{' or '.join(f'{name}.{one}' for one in choices)}, add ++{name}.softmax=true"
        )


def _check_absent(loss: DiceLoss, name: str, data: CTDataModule) -> None:
    """See that N/ε, the weight of a class without a training voxel, is multiplied by a Dice of 0.

    Raises:
        InputError: it is not, or the other weights are divided by it.
    """
    given = [f"{name}.smooth={loss.smooth}"] if loss.smooth else []
    given += [f"{name}.normalize={loss.normalize}"] if loss.normalize in ("mean", "sum") else []
    if loss.weighting != "uniform" and given and (absent := _absent(data)):
        raise InputError(
            f"{', '.join(given)}: no training voxel is {told_names(absent)}, whose weight is then N/ε with "
            f"{name}.weighting={loss.weighting}, and nothing else would be learnt; expected {name}.smooth=0 and "
            f"{name}.normalize=none, or labels without such a class"
        )


def _absent(data: CTDataModule) -> list[str]:
    return [each for each, voxels in zip(data.taught, data.class_voxels, strict=True) if not voxels]


def _is_weighted(config: DictConfig, name: str) -> bool:
    known = parameters(config._target_, name)
    return "weight" in known and "weighting" not in known
