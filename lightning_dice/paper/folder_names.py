"""What the name of a run's folder says, and whether its configuration agrees."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_dice.naming import CALLBACKS, OUR_LOSS, TOLD_BY_FILE, setting, setting_text, told_name
from lightning_dice.paper.published import LOSS_SETTINGS
from lightning_dice.paper.stored import StoredRun

FOLDER = re.compile(r"loss=([^,]+),lr=([^,]+),seed=(\d+)((?:,[^,=]+=.*?)??)(?:,rerun=(\d+))?")
SETTING = re.compile(r",(?=[^,=\[\]]+=)")  # before KEY=VALUE; a value may be a list with commas
DIGEST = "settings"  # the key that stands for all others where a folder's name would get too long


@dataclass(frozen=True)
class FolderName:
    """What the name of a run's folder says; `variant` holds KEY=VALUE of what differs from the preset."""

    loss: str
    lr: float
    seed: int
    variant: tuple[str, ...]
    rerun: int

    @classmethod
    def of(cls, name: str) -> "FolderName | None":
        """None for a folder that is not named as a run's."""
        if not (found := FOLDER.fullmatch(name)):
            return None
        loss, lr, seed, settings, rerun = found.groups()
        try:
            rate = float(lr)
        except ValueError:
            return None
        return cls(loss, rate, int(seed), tuple(SETTING.split(settings)[1:]), int(rerun or 1)) if rate > 0 else None


def variant_of(name: FolderName, run: StoredRun) -> tuple[list[str], list[str]]:
    """KEY=VALUE of the settings beyond loss, rate and seed, and in which points the folder's name is not true."""
    told = dict(part.split("=", 1) for part in name.variant)
    variant = []
    lies = [f"loss={run.loss}"] if run.loss != name.loss else []
    lies += [f"lr={run.lr:g}"] if f"{run.lr:g}" != f"{name.lr:g}" else []
    lies += [f"seed={run.seed}"] if run.seed != name.seed else []
    for key, text in told.items():
        value = setting(run.config, "labels.name" if key == "labels" else key)
        if key in TOLD_BY_FILE or key == CALLBACKS:
            value = told_name(run.config, key, text)
        said = text if key == DIGEST else setting_text(value)
        variant.append(f"{key}={said}")
        lies += [] if _same(text, said) else [variant[-1]]
    if run.config["loss"]["_target_"] == OUR_LOSS:
        untold = _untold_loss_settings(run.config["loss"], told)
        variant, lies = variant + untold, lies + ([] if DIGEST in told else untold)
    return variant, lies


def _untold_loss_settings(loss: Mapping[str, Any], told: Mapping[str, str]) -> list[str]:
    """What makes the loss another one than the paper's, whatever the preset says."""
    return [
        f"loss.{key}={setting_text(loss[key])}"
        for key, usual in LOSS_SETTINGS.items()
        if f"loss.{key}" not in told and loss.get(key, usual) != usual
    ]


def _same(text: str, other: str) -> bool:
    try:
        return text == other or float(text) == float(other)
    except ValueError:
        return False
