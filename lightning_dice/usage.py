"""What `--help` tells of a command: its settings and choices, in the words of the YAML files themselves.

A file begins with a comment that says what it is; a command's goes on with examples, indented by four blanks. What a
setting does stands at the end of its line; a group with such a comment is told as a whole. Keys of Hydra's own
(`_target_`) are told only where they have a comment.
"""

import re
import shutil
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_dice.config import config_file, config_folder

COMMANDS = ("train", "prepare", "evaluate", "predict", "export", "report", "benchmark")
# Settings that come along with a group and that the command takes no notice of: by name, or by group with a dot.
UNUSED = {
    "prepare": (
        "data.patch_size", "data.batch_size", "data.samples_per_volume", "data.transform", "data.num_workers",
        "data.seed",
    ),
    "export": (
        "data.test", "data.validation", "data.folds", "data.fold", "data.split_seed", "data.patch_size",
        "data.batch_size", "data.samples_per_volume", "data.transform", "data.num_workers", "data.seed",
    ),
    "evaluate": (
        "data.test", "data.validation", "data.folds", "data.fold", "data.split_seed", "data.patch_size",
        "data.batch_size", "data.samples_per_volume", "data.transform", "data.seed", "data.preparation.",
        "trainer.max_steps", "trainer.log_every_n_steps", "trainer.val_check_interval", "trainer.num_sanity_val_steps",
        "trainer.num_nodes", "trainer.strategy", "trainer.sync_batchnorm",
    ),
    "benchmark": ("name", "preset", "logger", "prior", "init_from", "output_dir", "rerun"),
}  # fmt: skip
LONGEST = 100  # letters of a group that is told as a whole
WIDEST = 40  # letters of NAME=VALUE that stand beside what it does


@dataclass(frozen=True)
class Setting:
    """One that a command takes.

    Attributes:
        name: with its groups, as it is typed.
        value: its default, as it would be typed; "…" for those that must be given.
        about: what it does; empty if its file does not say.
    """

    name: str
    value: str
    about: str


@dataclass(frozen=True)
class Group:
    """One whose settings come from a file that is chosen.

    Attributes:
        name: of the group and of the folder of its files.
        choice: the file's name; a list of them where several can be chosen.
        about: as a setting's.
        files: what can be chosen.
    """

    name: str
    choice: str
    about: str
    files: tuple[Path, ...]


def usage(command: str, overrides: Sequence[str] = ()) -> str:
    """All that a command can be told. The settings are those of the choices among the overrides."""
    settings, groups = composed(command, overrides)
    needed = [one for one in settings if one.value == "…"]
    others = [one for one in settings if one.value != "…"]
    parts = [f"lightning-dice {command}: {summary(command)}", "\n".join(f"  {one}" for one in examples(command))]
    if needed:
        parts.append(_listed("Needed:", ((f"{one.name}=…", one.about) for one in needed)))
    for group in groups:
        title = f"{group.name}={group.choice}" + (f": {group.about}" if group.about else ", or another of:")
        parts.append(_listed(title, ((file.stem, about(file)) for file in group.files)))
    parts.append(_listed("Settings:", ((f"{one.name}={one.value}", one.about) for one in others)))
    if groups:
        parts.append(f"Settings of another choice: lightning-dice {command} {groups[0].name}=… --help")
    return "\n\n".join(parts)


def summary(command: str) -> str:
    """What a command does, in a line."""
    return _header(config_file(command))[0].partition(": ")[2].rstrip(".")


def examples(command: str) -> list[str]:
    """Command lines."""
    return [line.strip() for line in _header(config_file(command)) if line.startswith("    ")]


def about(file: Path) -> str:
    """The first sentence of the file's first comment."""
    return re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(_header(file)))[0].rstrip(".")


def composed(command: str, overrides: Sequence[str] = ()) -> tuple[list[Setting], list[Group]]:
    """The settings of a command, and its groups."""
    file = config_file(command)
    with initialize_config_dir(str(file.parent), version_base="1.3"):
        config = compose(file.name, list(overrides), return_hydra_config=True)
        chosen = GlobalHydra.instance().config_loader().compute_defaults_list(file.name, list(overrides), RunMode.RUN)
    choices = dict(config.hydra.runtime.choices)
    del config.hydra
    told: dict[str, str] = {}
    wholes = set()
    for one in chosen.defaults:  # what a file says first holds, others only change the value
        source = config_folder() / f"{str(one.config_path).removesuffix('.yaml')}.yaml"
        if one.primary or source.is_file():  # Hydra's own files lie elsewhere
            text = (file if one.primary else source).read_text(encoding="utf-8")
            prefix = f"{one.package}." if one.package else ""
            for name, comment, is_group in comments(text):
                told.setdefault(prefix + name, comment)
                wholes |= {prefix + name} if is_group else set()
    groups = []
    for name in [*reversed(choices), *(key for key in map(str, config) if key not in choices)]:
        files = sorted(path for path in (file.parent / name).glob("*.yaml") if path.stem != "base")
        if len(files) > 1 and not name.startswith("hydra/") and not _is_unused(name, command):
            choice = choices.get(name, [])  # of those that take several, none
            groups.append(Group(name, _typed(choice), told.get(name, ""), tuple(files)))
    names = {group.name for group in groups}
    settings = [Setting(name, value, told.get(name, "")) for name, value in _flat(config, told, wholes)]
    return [one for one in settings if not _is_unused(one.name, command) and one.name not in names], groups


def comments(text: str) -> Iterator[tuple[str, str, bool]]:
    """The settings of a YAML file that have a comment at the end of their line: their dotted names, the comments, and
    whether they are groups of settings."""
    lines = text.splitlines()

    def walk(node: yaml.Node, prefix: str) -> Iterator[tuple[str, str, bool]]:
        for key, value in node.value:
            is_group = isinstance(value, yaml.MappingNode) and bool(value.value)
            if found := re.search(r"\s# *(.*)$", lines[key.end_mark.line][key.end_mark.column :]):
                yield f"{prefix}{key.value}", found[1], is_group
            if is_group:
                yield from walk(value, f"{prefix}{key.value}.")

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return walk(root, "") if isinstance(root, yaml.MappingNode) else iter(())


def _header(file: Path) -> list[str]:
    """The lines of the file's first comment, without the one that Hydra reads."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line[2:])
    return lines


def _flat(
    config: DictConfig, told: Collection[str], wholes: Collection[str], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """Settings by their dotted names, with their values; a group with a comment of its own is told as a whole."""
    for key in map(str, config):
        name = prefix + key
        node = None if OmegaConf.is_missing(config, key) else config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and name not in wholes and len(node):
            yield from _flat(node, told, wholes, f"{name}.")
        elif not key.startswith("_") or name in told:
            yield name, "…" if OmegaConf.is_missing(config, key) else _typed(_value(config, key))


def _value(config: DictConfig, key: str) -> Any:
    """As it is without more being set: what refers to a setting that must be given stays a reference."""
    try:
        value = config[key]
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:
        unresolved: Any = OmegaConf.to_container(config, resolve=False)
        return unresolved[key]


def _typed(value: Any) -> str:
    if isinstance(value, dict):
        text = "{" + ",".join(f"{key}: {_typed(one)}" for key, one in value.items()) + "}"
        return text if len(text) <= LONGEST else "{…}"
    if isinstance(value, list):
        return "[" + ",".join(map(_typed, value)) + "]"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _is_unused(name: str, command: str) -> bool:
    return any(name == one or (one.endswith(".") and name.startswith(one)) for one in UNUSED.get(command, ()))


def _listed(title: str, rows: Iterator[tuple[str, str]]) -> str:
    """Two columns below a title."""
    listed = list(rows)
    width = max((len(left) for left, _ in listed if len(left) <= WIDEST), default=0)
    columns = shutil.get_terminal_size((120, 24)).columns
    lines = [title]
    for left, right in listed:
        wrapped = textwrap.wrap(right, max(30, columns - width - 4))
        if len(left) <= width:
            left = f"{left:{width}}  " + "".join(wrapped[:1])
            wrapped = wrapped[1:]
        lines += [f"  {left}".rstrip(), *(" " * (width + 4) + line for line in wrapped)]
    return "\n".join(lines)
