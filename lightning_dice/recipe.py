"""What inference must know beside the weights: it travels in the checkpoint, and rebuilds the network from it."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor, nn

from lightning_dice import __version__
from lightning_dice.checkpoints import SAFETENSORS, read_checkpoint, read_safetensors
from lightning_dice.config import shipped_labels
from lightning_dice.data.labels import LabelSet
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from lightning_dice.network import channels_last
from lightning_dice.trust import trusted_class

CHECKPOINT_KEY = "lightning_dice"
FORMAT = 2  # of the entry under that key
MOST_TOLD = 200  # characters of a reason; torch lists all weights that do not fit
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ImportError, InstantiationException)


@dataclass(frozen=True)
class Recipe:
    """How a network of the training is used again.

    Attributes:
        labels: the classes, in the order of the network's outputs.
        preparation: as in training.
        spacing_mm: the training volumes' median voxel size after it, along RAS axes.
        patch_size: in voxels.
        network: its class, by `_target_`, and what it is called with, the number of classes included; plain types.
    """

    labels: LabelSet
    preparation: Preparation
    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    network: dict[str, Any]

    @property
    def at_spacing(self) -> Preparation:
        """How a scan of any voxel size comes to the one of the training."""
        return dataclasses.replace(self.preparation, factor=None, spacing_mm=self.spacing_mm)

    def entry(self) -> dict[str, Any]:
        """For a checkpoint, below CHECKPOINT_KEY: plain types, with the format and the version that wrote them."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields |= {"labels": self.labels.to_plain(), "preparation": dataclasses.asdict(self.preparation)}
        return {"format": FORMAT, "version": __version__, "recipe": fields}

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> "Recipe":
        """What `entry` gave, in this format or an earlier one.

        Raises:
            KeyError, TypeError, ValueError, AttributeError, InputError: something else.
        """
        fields = entry["recipe"]
        if entry.get("format", 1) == 1:  # some of the paper's classes, by name; the paper's network, by its arguments
            labels = shipped_labels("paper").select(fields["classes"][1:])
            network = {"_target_": "lightning_dice.network.UNet3D", **entry["network"]}
        elif entry["format"] != FORMAT:
            raise ValueError(f"format {entry['format']}")
        else:
            labels = LabelSet.from_plain(fields["labels"])
            network = dict(fields["network"])
        return cls(
            labels=labels,
            preparation=Preparation(**fields["preparation"]),
            spacing_mm=tuple(fields["spacing_mm"]),
            patch_size=tuple(fields["patch_size"]),
            network=network,
        )


def load_network(path: Path | str, trust: bool = False) -> tuple[nn.Module, Recipe]:
    """Rebuild the network of a checkpoint or an exported `.safetensors` file, in evaluation mode on the CPU, with
    nothing else given.

    No code in the file is executed (`weights_only=True`), and unless it is trusted none that the file names, but for
    the networks of this package, of torch and of MONAI.

    Args:
        trust: import and call whatever class the file names.

    Raises:
        InputError: no such file, no whole checkpoint of ours, one of a later version, or one of a class that is not
            trusted.
    """
    recipe, weights = read_weights(path)
    kind = None if trust else trusted_class(recipe.network, nn.Module, path)
    with _whole(path):
        network = channels_last(built(recipe.network, kind))
        network.load_state_dict(weights)
    return network.eval(), recipe


def read_weights(path: Path | str) -> tuple[Recipe, dict[str, Tensor]]:
    """The recipe of a checkpoint or an exported `.safetensors` file, and the weights by their names in its network,
    which is not built.

    Raises:
        InputError: no such file, no whole checkpoint of ours, or one of a later version.
    """
    is_exported = Path(path).suffix == SAFETENSORS
    checkpoint = read_safetensors(path, CHECKPOINT_KEY) if is_exported else read_checkpoint(path)
    entry = checkpoint.get(CHECKPOINT_KEY)
    if not isinstance(entry, dict):
        raise InputError(f"{path}: holds no {CHECKPOINT_KEY!r} entry; expected a checkpoint that this package wrote")
    written = entry.get("format", 1)
    if isinstance(written, int) and written > FORMAT:
        raise InputError(
            f"{path}: was written by lightning-dice {entry.get('version')}, in format {written}; expected one up to "
            f"{FORMAT}, install that version"
        )
    if written == 1 and entry.get("network") is None:
        raise InputError(
            f"{path}: was trained with a network of your own by an early version, which did not record how it is "
            "built; train the run anew"
        )
    with _whole(path):
        recipe = Recipe.from_entry(entry)
        prefix = "" if is_exported else "network."
        weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
        if odd := [name for name, weight in weights.items() if not isinstance(weight, Tensor)]:
            raise TypeError(f"{odd[0]} is no tensor")
    if written == 1:  # whose network had another name for these layers
        weights = {re.sub(r"^grow\.", "upsample.", name): weight for name, weight in weights.items()}
    return recipe, weights


def built(network: dict[str, Any], kind: type[nn.Module] | None = None) -> nn.Module:
    """A recipe's network, with weights of its own.

    By Hydra only where it is trusted, since it would interpolate texts and build whatever the arguments name.

    Args:
        kind: its class, where it is not trusted but known.
    """
    if kind is None:
        return instantiate(network, _convert_="all")
    return kind(**{key: value for key, value in network.items() if key != "_target_"})


@contextlib.contextmanager
def _whole(path: Path | str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(error.__cause__ or error).split())[
            :MOST_TOLD
        ]  # Hydra's own text says less than its cause
        raise InputError(
            f"{path}: its network cannot be rebuilt ({reason}); make it importable as it was, or train the run anew"
        ) from None
