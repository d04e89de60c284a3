"""Whose code a run's own files may run."""

import contextlib
import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from lightning_dice.errors import InputError
from lightning_dice.runs import Run

# By their full names: what can be reached through a module of this package may be anybody's.
TRUSTED = (
    "lightning_dice.data.datamodule.CTDataModule",
    "lightning_dice.data.volumes.Preparation",
    "lightning_dice.data.phantom.dataset.phantom_cases",
)
LAYOUT = re.compile(r"lightning_dice\.data\.layouts\.(\w+)\.\1_cases")  # each has one function, named after its file
# Whose networks a checkpoint may name.
NETWORKS = ("lightning_dice.network", "torch.nn", "monai.networks.nets")
Kind = TypeVar("Kind")


def check_trust(settings: dict[str, Any], run: Run, trust: bool) -> None:
    """Look at the objects that a run's settings name, before they are built.

    Raises:
        InputError: one is not this package's, unless the user trusts the run.
    """
    strange = sorted(name for name in set(_targets(settings)) - set(TRUSTED) if not LAYOUT.fullmatch(name))
    if strange and not trust:
        raise InputError(
            f"{run.config}: wants to run {', '.join(strange)}, which is not part of this package; read the file, and "
            "add trust=true if you know who made it"
        )


def trusted_class(network: dict[str, Any], kind: type[Kind], file: Path | str) -> type[Kind]:
    """The class of a checkpoint's network, of which only plain types are arguments; nothing is called.

    Only packages in NETWORKS are imported. What is reached through them must be defined in them, and be a class.

    Args:
        network: with the class's full name under `_target_`, beside its arguments.
        kind: what it must be a class of.
        file: that names it.

    Raises:
        InputError: it is another's or no such class, or an argument would be an object or is an address to load from.
    """
    target = str(network.get("_target_"))
    found: Any = None
    if _is_in(target, NETWORKS):
        # Whatever an import raises, or MONAI's stand-ins for packages that are not installed.
        with contextlib.suppress(Exception):
            found = pydoc.locate(target)
    is_known = isinstance(found, type) and issubclass(found, kind) and _is_in(f"{found.__module__}.", NETWORKS)
    arguments = {key: value for key, value in network.items() if key != "_target_"}
    strange = [] if is_known else [target]
    strange += _targets(arguments)
    # Such as the weights of MONAI's HoVerNet.
    strange += (text for _, text in _items(arguments) if isinstance(text, str) and "://" in text)
    if strange:
        raise InputError(
            f"{file}: wants to use {', '.join(strange)}; only networks of this package, torch and MONAI are "
            "built from a checkpoint, with plain arguments; add trust=true if you know who made it"
        )
    return found


def _is_in(name: str, packages: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{package}.") for package in packages)


def _targets(node: Any) -> Iterator[str]:
    return (str(value) for key, value in _items(node) if key == "_target_")


def _items(node: Any) -> Iterator[tuple[Any, Any]]:
    """Keys or places with their values, at all depths."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, child in children:
        yield key, child
        yield from _items(child)
