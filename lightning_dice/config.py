"""The YAML files that the package ships, and settings as plain types."""

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from lightning_dice.data.labels import LabelSet, label_set

PACKAGE = Path(__file__).resolve().parent

# `${when:${a.switch},text}`: a text only where a switch is on.
OmegaConf.register_new_resolver("when", lambda switch, text: text if switch is True else "", replace=True)


def config_folder() -> Path:
    """Where the YAML files are: inside an installed package, beside it in a checkout."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


def config_file(command: str) -> Path:
    """The YAML file of a command, in a folder of its name where it has one of its own."""
    own = config_folder() / command / f"{command}.yaml"
    return own if own.is_file() else config_folder() / f"{command}.yaml"


@cache
def shipped_labels(name: str) -> LabelSet:
    """The classes of `conf/labels/NAME.yaml`."""
    return label_set(name, plain(OmegaConf.load(config_folder() / "labels" / f"{name}.yaml"))["labels"])


def plain(config: DictConfig | ListConfig) -> dict[str, Any]:  # a file could hold a list; ours do not
    """Everything resolved, as plain types."""
    settings: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return settings
