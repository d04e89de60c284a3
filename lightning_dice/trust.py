"""Whose code a run's own configuration may run."""

from collections.abc import Iterator
from typing import Any

from lightning_dice.errors import InputError
from lightning_dice.runs import Run

# By their full names: what can be reached through a module of this package may be anybody's.
TRUSTED = (
    "lightning_dice.data.datamodule.CTDataModule",
    "lightning_dice.data.volumes.Preparation",
    "lightning_dice.data.phantom.dataset.phantom_cases",
    "lightning_dice.data.layouts.nnunet.nnunet_cases",
    "lightning_dice.data.layouts.paired.paired_cases",
    "lightning_dice.data.layouts.totalsegmentator.totalsegmentator_cases",
)


def check_trust(settings: dict[str, Any], run: Run, trust: bool) -> None:
    """Look at the objects that a run's settings name, before they are built.

    Raises:
        InputError: one is not this package's, unless the user trusts the run.
    """
    strange = sorted(set(_targets(settings)) - set(TRUSTED))
    if strange and not trust:
        raise InputError(
            f"{run.config}: wants to run {', '.join(strange)}, which is not part of this package; read the file, and "
            "add trust=true if you know who made it"
        )


def _targets(node: Any) -> Iterator[str]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        if key == "_target_":
            yield str(child)
        yield from _targets(child)
