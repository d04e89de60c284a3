"""Settings against their models: what is wrong with them, all at once, a line each."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ValidationError

from lightning_dice.config import plain
from lightning_dice.errors import InputError

MOST_TOLD = 60  # characters of a wrong value


def checked(config: DictConfig, kind: type[BaseModel]) -> dict[str, Any]:
    """The settings as plain types, after checking them.

    Raises:
        InputError: settings that the command does not know, or values that cannot be; all of them, a line each.
    """
    settings = plain(config)
    problems = _problems(settings, kind)
    own = {line for place, line in problems if not _is_taken_over(config, place)}
    _refuse([line for _, line in problems if line in own or not own])
    return settings


def check(settings: dict[str, Any], kind: type[BaseModel], group: str = "") -> None:
    """Check settings that are plain types already; `group` is what stands before their names, with its dot.

    Raises:
        InputError: as `checked`.
    """
    _refuse([line for _, line in _problems(settings, kind, group)])


def _refuse(lines: list[str]) -> None:
    if lines:
        raise InputError("\n".join(dict.fromkeys(lines)))


def _problems(
    settings: dict[str, Any], kind: type[BaseModel], group: str = ""
) -> list[tuple[tuple[int | str, ...], str]]:
    """Where something is wrong, and a line about it."""
    try:
        kind.model_validate(settings)
    except ValidationError as error:
        return [(found["loc"], _line(kind, settings, found["loc"], group)) for found in error.errors()]
    return []


def _is_taken_over(config: DictConfig, place: tuple[int | str, ...]) -> bool:
    """Whether a value is another setting's, as `data.seed` is `seed`, which is told once."""
    node: Any = config
    for name in place:
        if not OmegaConf.is_dict(node) or name not in node:
            return False
        if OmegaConf.is_interpolation(node, name):
            return True
        node = node[name]
    return False


def _line(kind: type[BaseModel], settings: dict[str, Any], place: tuple[int | str, ...], group: str) -> str:
    """One line about a setting, whichever part of its value pydantic minds."""
    value: Any = settings
    expected, keyed = "a group of settings", False
    for depth, name in enumerate(place, start=1):
        dotted = group + ".".join(map(str, place[:depth]))
        value = value.get(name, "not given")
        if keyed:  # in a group of groups of one kind, each under a name of the user's
            keyed = False
        else:
            fields = {field.alias or name: field for name, field in kind.model_fields.items()}
            if name not in fields:
                known = ", ".join(fields)
                return f"{dotted}: no such setting; expected one of {known}"
            expected = fields[name].description or "a group of settings"
            inner, keyed = next(iter(_models(fields[name].annotation)), (None, False))
            if inner is None:
                break
            kind = inner
        if not isinstance(value, dict):
            break
    return f"{dotted}={_told(value)}: expected {expected}"


def _models(annotation: Any, keyed: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    """The models that a field may hold, and whether it holds them by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, keyed
    for part in get_args(annotation):
        yield from _models(part, keyed or get_origin(annotation) is dict)


def _told(value: Any) -> str:
    """As it would be typed."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else str(value)
    return text if len(text) <= MOST_TOLD else text[:MOST_TOLD] + "…"
