"""An object of the configuration: made, with what it says about its arguments in one line."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from lightning_dice.config import config_folder
from lightning_dice.errors import InputError

REFUSALS = (
    ValueError,
    TypeError,
    ArithmeticError,
    ImportError,
    AttributeError,
    RuntimeError,
)
LIGHTNINGS = "MisconfigurationException"  # by its name, since importing it takes seconds


def instantiated(config: DictConfig | dict[str, Any], name: str, **more: Any) -> Any:
    """Instantiate; what the object says about its arguments becomes one line."""
    try:
        return instantiate(config, **more)
    except (InstantiationException, *REFUSALS) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        if isinstance(cause, (InstantiationException, *REFUSALS)) or type(cause).__name__ == LIGHTNINGS:
            raise InputError(f"{name}: {' '.join(str(cause).split())}") from error
        raise


def refusing(name: str, factory: Callable[..., Any], *arguments: Any) -> Any:
    """Call what was partly built; what it says about its arguments becomes one line."""
    try:
        return factory(*arguments)
    except InputError:  # which is one line already
        raise
    except REFUSALS as error:
        raise InputError(f"{name}: {' '.join(str(error).split())}") from error


def parameters(target: str, name: str) -> Mapping[str, Any]:
    """What a class of the configuration is called with, by `inspect.Parameter`s."""
    try:
        return inspect.signature(get_object(target)).parameters
    except Exception as error:  # Hydra passes on whatever an import raises
        reason = " ".join(str(error).split())
        raise InputError(f"{name}._target_={target}: cannot be imported ({reason})") from error


def taken(settings: DictConfig, name: str, files: str, also: Collection[str] = ()) -> DictConfig:
    """Those settings that the class takes; all of them for the classes that these files are about.

    Args:
        settings: of the group or of a part of it, which goes by `name`.
        files: in the configuration's folder, as a pattern.
        also: what is taken without being an argument.
    """
    given: list[Any] = [OmegaConf.load(file) for file in sorted(config_folder().glob(files))]
    if settings._target_ in [one._target_ for one in given]:
        return settings
    known = parameters(settings._target_, name)
    left_over = [
        key
        for key in map(str, settings)
        if key not in known and key not in also and not key.startswith("_") and any(key in one for one in given)
    ]
    changed = [f"{name}.{key}={settings[key]}" for key in left_over if all(settings[key] != o.get(key) for o in given)]
    if changed:
        raise InputError(
            f"{', '.join(changed)}: {settings._target_} does not take it; expected one of {', '.join(known)}"
        )
    return OmegaConf.masked_copy(settings, [key for key in map(str, settings) if key not in left_over])
