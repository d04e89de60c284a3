"""The name of a run: its weighting, learning rate and seed, and whatever else differs from its preset."""

import hashlib
import re
from functools import cache, reduce
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
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.enable_progress_bar",
    "logger",
)  # fmt: skip
# Null, false or empty is as good as absent, as they are in runs of before.
NEWER = ("prior", "init_from", "callbacks", "data.folds", "data.fold")
SYNCHRONISED = "trainer.sync_batchnorm"  # newer too, and as good as absent where it is true
CALLBACKS = "callbacks"  # a group of which a run's name says all the files that are chosen
# Groups of which a run's name says the file that the settings are those of, and where these stand.
TOLD_BY_FILE = {
    "network": ("network",), "optim": ("optim",), "schedule": ("schedule",), "transform": ("data", "transform"),
}  # fmt: skip
COMPOSED = "torchio.Compose"  # of which one can leave parts out
ABSENT = "absent"
# The folders above a run's, and the first part of its own name, say these.
SAID_ELSEWHERE = ("name", "data.name", "labels.name", "optim.lr", "optim._partial_", "seed")
LONGEST = 200  # bytes of a folder's name; file systems take 255, and a rerun adds to it


def loss_name(loss: dict[str, Any]) -> str:
    """The weighting of the package's own loss, FIRST+SECOND of a sum; any other goes by its file, or by its class."""
    target = loss["_target_"]
    if target == OUR_LOSS:
        return loss["weighting"]
    if target == SUM_LOSS:
        return "+".join(loss_name(loss[part]) for part in SUMMANDS)
    return file_name("loss", loss)


def file_name(group: str, settings: Any, usual: str | None = None) -> Any:
    """The file in `conf/GROUP/` that a group's settings are those of, or differ least from, the usual one rather than
    another such. A class that no file is about, or that lacks some of a file's settings, goes by its own name, and what
    are no settings as it is."""
    if not isinstance(settings, dict):
        return "none" if settings is None else settings
    own, target = flat(settings), settings.get("_target_")
    files = {name: flat(file) for name, file in _files(group).items() if file.get("_target_") == target}
    differing = {
        name: sum(own.get(key, ABSENT) != file.get(key, ABSENT) for key in own.keys() | file.keys() if key != "lr")
        for name, file in files.items()
        if file.keys() <= own.keys() or (target == COMPOSED and len(own.keys() & file.keys()) > 1)
    }
    return min(differing, key=lambda name: (differing[name], name != usual), default=target)


def told_name(config: dict[str, Any], group: str, usual: str | None = None) -> Any:
    """What a run's name says of a group of which it says the file, or the files; see `file_name`."""
    if group != CALLBACKS:
        return file_name(group, setting(config, ".".join(TOLD_BY_FILE[group])), usual)
    chosen = config.get(CALLBACKS) or {}
    return ("+".join(sorted(map(str, chosen))) or "none") if isinstance(chosen, dict) else chosen


def setting(config: dict[str, Any], key: str) -> Any:
    """The value at a dotted key, or `absent`."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part, ABSENT) if isinstance(value, dict) else ABSENT
    return value


def run_folder(config: dict[str, Any]) -> Path:
    """`OUTPUT_DIR/DATA/NAME/loss=…,lr=…,seed=…`, and a `,KEY=VALUE` for each setting that differs from the preset."""
    cell = f"loss={loss_name(config['loss'])},lr={_number(config['optim']['lr'])},seed={config['seed']}"
    variant = ",".join(_variant(config))
    if len(f"{cell},{variant}".encode()) > LONGEST:
        variant = f"settings={hashlib.sha256(variant.encode()).hexdigest()[:8]}"  # of the same ones the same
    name = f"{cell},{variant}" if variant else cell
    return Path(config["output_dir"]).expanduser() / str(config["data"]["name"]) / str(config["name"]) / name


def grid_settings(config: dict[str, Any]) -> dict[str, str | int | float]:
    """What runs of a grid are compared by, under the same keys whatever was chosen. `others` is what their names say
    beyond these, as KEY=VALUE."""
    preset = _preset(config)
    groups = {group: str(told_name(config, group, told_name(preset, group))) for group in (*TOLD_BY_FILE, CALLBACKS)}
    told = {"loss", "labels", "prior", *groups}
    others = [setting for setting in _variant(config) if setting.partition("=")[0] not in told]
    return {
        "loss": loss_name(config["loss"]),
        "optim.lr": config["optim"]["lr"],
        "seed": config["seed"],
        "prior": setting_text(config.get("prior") or False),
        **groups,
        "labels": config["labels"]["name"],
        "data": config["data"]["name"],
        "name": str(config["name"]),
        "others": ",".join(others) or "none",
    }


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys to values, without those that are not part of a run."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        is_absent = name in NEWER and (value is None or value is False or value == {})
        if name in NOT_PART_OF_A_RUN or is_absent or (name == SYNCHRONISED and value is True):
            continue
        if isinstance(value, dict) and value:
            found |= flat(value, f"{name}.")
        else:
            found[name] = value
    return found


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two runs' configurations, a text per setting."""
    old, new = flat(old), flat(new)
    return [
        f"{key}: {old.get(key, ABSENT)} there, {new.get(key, ABSENT)} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, ABSENT) != new.get(key, ABSENT)
    ]


def setting_text(value: Any) -> str:
    """As it would be typed, but for what a folder's name should not hold."""
    if isinstance(value, dict):  # classes that are merged
        parts = {name: part if isinstance(part, list) else [part] for name, part in value.items()}
        return ",".join(f"{name}({'+'.join(map(setting_text, part))})" for name, part in parts.items())
    if isinstance(value, list):
        return f"[{','.join(map(setting_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _number(value) if isinstance(value, int | float) else re.sub(r"[^\w.+\[\]-]", "_", str(value))


def _variant(config: dict[str, Any]) -> list[str]:
    """KEY=VALUE of each setting that is not the preset's; of another network, optimiser, schedule or transform and of
    other callbacks their names, and what is not their files'."""
    preset = _preset(config)
    chosen: dict[str, Any] = {}
    for group, place in TOLD_BY_FILE.items():
        usual = told_name(preset, group)
        if (name := told_name(config, group, usual)) != usual:
            *parents, key = place
            own, expected = (reduce(dict.__getitem__, parents, part) for part in (config, preset))
            filed = own[key] and {"_target_": own[key]["_target_"]} | _files(group).get(name, {})
            expected[key] = plain(OmegaConf.create({"trainer": config["trainer"], group: filed}))[group]
            chosen |= {group: name} | _left_out(expected[key], own[key], ".".join(place))
    if (names := told_name(config, CALLBACKS)) != told_name(preset, CALLBACKS):
        files, added = _files(CALLBACKS), config[CALLBACKS]
        preset[CALLBACKS] = {name: files.get(name, {name: {}})[name] for name in added}
        chosen |= {CALLBACKS: names} | _left_out(preset[CALLBACKS], added, CALLBACKS)
    settings, usual_settings = flat(config), flat(preset)
    told = chosen | {
        key: value
        for key, value in settings.items()
        if key not in SAID_ELSEWHERE and value != usual_settings.get(key, ABSENT)
    }
    # What is as good as absent, and the preset has: `prior=false` of an experiment that begins with a prior.
    told |= {key: setting(config, key) for key in NEWER if key in usual_settings and key not in settings}
    if config["labels"]["name"] != PAPERS:
        told["labels"] = config["labels"]["name"]
    return [f"{key}={setting_text(told[key])}" for key in sorted(told)]


def _left_out(expected: Any, own: Any, name: str) -> dict[str, str]:
    """What one's own settings lack of those expected, each with all below it as one, `absent`."""
    if not isinstance(expected, dict) or not isinstance(own, dict):
        return {}
    found: dict[str, str] = {}
    for key, value in expected.items():
        found |= _left_out(value, own[key], f"{name}.{key}") if key in own else {f"{name}.{key}": ABSENT}
    return found


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
