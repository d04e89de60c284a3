"""Configuration → the data set, without torch and Lightning, which take seconds to import."""

import functools
import inspect
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig

from lightning_dice.config import plain, shipped_labels
from lightning_dice.data.dataset import CTDataset
from lightning_dice.data.labels import LabelChoice, label_set
from lightning_dice.objects import instantiated, refusing

OURS = "lightning_dice.data.datamodule.CTDataModule"
EVERYTHING = "totalsegmentator"  # the set with most classes, for what is known of those that a data set declares


def build_label_choice(labels: DictConfig) -> LabelChoice:
    """The choice that the group `labels` describes; without classes of its own they are those that the data declare."""
    given = plain(labels)
    name, described = str(given["name"]), given["labels"]
    known = replace(shipped_labels(EVERYTHING), name=name) if described is None else label_set(name, described)
    return LabelChoice(known, described is None, given["classes"], given["outputs"])


def build_dataset(config: DictConfig, labels: LabelChoice | None = None) -> CTDataset:
    """The data of the group `data`, with the classes of the group `labels` if no others are given.

    Without what only a training takes of them, unless they are of a class of the user's own.
    """
    settings = plain(config)["data"]
    if settings["_target_"] == OURS:
        known = inspect.signature(CTDataset).parameters
        settings = {name: value for name, value in settings.items() if name in known}
        settings["_target_"] = f"{CTDataset.__module__}.{CTDataset.__name__}"
    return bound(settings, labels or build_label_choice(config.labels))


def bound(settings: DictConfig | dict[str, Any], labels: LabelChoice, **more: Any) -> Any:
    """The object that the group `data` describes, with a layout that takes its arguments.

    Raises:
        InputError: what either of them refuses.
    """
    # Hydra would take a dataclass among its arguments apart
    make = instantiated(settings, "data", _partial_=True, **dict.fromkeys(more))
    data = refusing("data", functools.partial(make, labels=labels, **more))
    layout = data.layout  # a partial: inspect would raise an error of its own for an argument too many
    bind = functools.partial(inspect.signature(layout.func).bind, *layout.args, **layout.keywords)
    refusing("data.layout", bind, data.root)
    return data
