"""The name of a run: its weighting, learning rate and seed, and whatever else differs from its preset."""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from lightning_dice.config import config_folder, plain

OUR_LOSS = "lightning_dice.loss.DiceLoss"
SUM_LOSS = "lightning_dice.losses.SumLoss"
SUMMANDS = ("first", "second")  # its losses
PAPERS = "paper"  # the label set that goes without saying
# Where files lie and what they are computed on is not part of what a run is; everything else is.
NOT_PART_OF_A_RUN = (
    "output_dir", "cache", "rerun", "preset", "data.root", "data.store", "data.num_workers", "data.on_error",
    "trainer.accelerator", "trainer.devices", "trainer.enable_progress_bar",
)  # fmt: skip
# The folders above a run's, and the first part of its own name, say these.
SAID_ELSEWHERE = ("name", "data.name", "labels.name", "optim.lr", "optim._partial_", "seed")
FILED = ("network", "optim", "schedule")  # groups of which another choice is told by its file
LONGEST = 200  # bytes of a folder's name; file systems take 255, and a rerun adds to it


def loss_name(loss: dict[str, Any]) -> str:
    """The weighting of the package's own loss, FIRST+SECOND of a sum; any other goes by its file, or by its class."""
    target = loss["_target_"]
    if target == OUR_LOSS:
        return loss["weighting"]
    if target == SUM_LOSS:
        return "+".join(loss_name(loss[part]) for part in SUMMANDS)
    return file_name("loss", loss)


def file_name(group: str, settings: dict[str, Any], usual: str | None = None) -> str:
    """The file in `conf/GROUP/` that a group's settings are those of, or differ least from, the usual one rather than
    another such; a class that no file is about, or that lacks some of a file's settings, goes by its own name."""
    target: Any = settings.get("_target_")
    own = flat(settings)
    differing = {
        name: sum(own[key] != shipped.get(key, "absent") for key in own if key != "lr")
        for name, shipped in ((name, flat(shipped)) for name, shipped in _files(group).items())
        if shipped.get("_target_") == target and shipped.keys() <= own.keys()
    }
    return min(differing, key=lambda name: (differing[name], name != usual), default=target)


def run_folder(config: dict[str, Any]) -> Path:
    """`OUTPUT_DIR/DATA/NAME/loss=…,lr=…,seed=…`, and a `,KEY=VALUE` for each setting that differs from the preset."""
    cell = f"loss={loss_name(config['loss'])},lr={_number(config['optim']['lr'])},seed={config['seed']}"
    variant = ",".join(_variant(config))
    if len(f"{cell},{variant}".encode()) > LONGEST:
        variant = f"settings={hashlib.sha256(variant.encode()).hexdigest()[:8]}"  # of the same ones the same
    name = f"{cell},{variant}" if variant else cell
    return Path(config["output_dir"]).expanduser() / str(config["data"]["name"]) / str(config["name"]) / name


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys to values, without those that are not part of a run."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        elif prefix + key not in NOT_PART_OF_A_RUN:
            found[prefix + key] = value
    return found


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two runs' configurations, a text per setting."""
    old, new = flat(old), flat(new)
    return [
        f"{key}: {old.get(key, 'absent')} there, {new.get(key, 'absent')} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "absent") != new.get(key, "absent")
    ]


def setting_text(value: Any) -> str:
    """As it would be typed, but for what a folder's name should not hold."""
    if isinstance(value, dict):  # classes that are merged
        return ",".join(f"{name}({'+'.join(members)})" for name, members in value.items())
    if isinstance(value, list):
        return f"[{','.join(map(setting_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _number(value) if isinstance(value, int | float) else re.sub(r"[^\w.+\[\]-]", "_", str(value))


def _variant(config: dict[str, Any]) -> list[str]:
    """KEY=VALUE of each setting that is not the preset's; of another network, optimiser or schedule its name, and what
    is not its file's."""
    preset = _preset(config)
    names = {}
    for group in FILED:
        usual = file_name(group, preset[group])
        name = file_name(group, config[group], usual)
        if name != usual:
            names[group] = name
            filed = {"_target_": config[group]["_target_"]} | _files(group).get(name, {})
            preset[group] = plain(OmegaConf.create({"trainer": config["trainer"], group: filed}))[group]
    own, expected = flat(config), flat(preset)
    told = {
        key: value for key, value in own.items() if key not in SAID_ELSEWHERE and value != expected.get(key, "absent")
    }
    told |= names
    if config["labels"]["name"] != PAPERS:
        told["labels"] = config["labels"]["name"]
    return [f"{key}={setting_text(told[key])}" for key in sorted(told)]


@cache
def _files(group: str) -> dict[str, dict[str, Any]]:
    """Settings of the files in `conf/GROUP/`, by name; what they take over from other groups as it stands there."""
    files = sorted((config_folder() / group).glob("*.yaml"))
    settings: dict[str, Any] = {file.stem: OmegaConf.to_container(OmegaConf.load(file)) for file in files}
    return settings


def _named_loss(loss: dict[str, Any]) -> dict[str, Any]:
    """The settings that a loss's name stands for."""
    name, target = loss_name(loss), loss["_target_"]
    if target == SUM_LOSS:
        return _files("loss")["sum"] | {part: _named_loss(loss[part]) for part in SUMMANDS}
    return _files("loss").get(name, {"_target_": target, "weighting": "uniform"})


def _preset(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the experiment file that this one began with, for its data set, loss and seed."""
    conf, data = config_folder(), str(config["data"]["name"])
    is_shipped = (conf / "data" / f"{data}.yaml").is_file()
    overrides = [f"experiment={config['preset']}", f"data={data if is_shipped else 'nnunet'}", f"seed={config['seed']}"]
    loss, labels = loss_name(config["loss"]), str(config["labels"]["name"])
    if has_shipped_loss := loss in _files("loss"):
        overrides.append(f"loss={loss}")
    if has_shipped_labels := (conf / "labels" / f"{labels}.yaml").is_file():
        overrides.append(f"labels={labels}")
    if GlobalHydra.instance().is_initialized():
        composed = compose("train", overrides)
    else:
        with initialize_config_dir(str(conf), version_base="1.3"):
            composed = compose("train", overrides)
    phantoms, max_steps = composed.phantoms, composed.trainer.max_steps
    composed.phantoms = config["phantoms"]  # which the layout takes over
    composed.trainer.max_steps = config["trainer"]["max_steps"]  # which a schedule does
    resolved: Any = OmegaConf.to_container(composed, resolve=True)
    preset: dict[str, Any] = resolved | {"phantoms": phantoms}
    preset["trainer"]["max_steps"] = max_steps
    if not has_shipped_loss:
        preset["loss"] = _named_loss(config["loss"])
    if not is_shipped:  # the layout belongs to the data set, which a folder is named after
        preset["data"]["layout"] = config["data"]["layout"]
    if not has_shipped_labels:
        preset["labels"] = config["labels"]
    return preset


def _number(value: int | float) -> str:
    """As short as it can be without another number getting the same text."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)
