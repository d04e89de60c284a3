"""Weights in a file without code, which `lightning_dice.recipe.load_network` reads as it does a checkpoint."""

import json
from pathlib import Path

from torch import nn

from lightning_dice.errors import InputError
from lightning_dice.files import atomic_write
from lightning_dice.recipe import CHECKPOINT_KEY, Recipe


def write_safetensors(network: nn.Module, recipe: Recipe, path: Path) -> str:
    """Write the network's weights, bit by bit, with its recipe as JSON in the header.

    Format: https://huggingface.co/docs/safetensors. Tensors that share memory are written one by one.

    Args:
        path: ends in `.safetensors`.

    Returns:
        A line that tells what was written.

    Raises:
        InputError: the extra is not installed.
    """
    try:
        from safetensors.torch import save
    except ImportError:
        raise InputError(f"{path}: needs safetensors; pip install 'lightning-dice[safetensors]'") from None
    weights = {name: tensor.clone().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(weights, {"format": "pt", CHECKPOINT_KEY: json.dumps(recipe.entry())}))
    return f"{len(weights)} tensors, {sum(tensor.nbytes for tensor in weights.values()) / 1e6:.1f} MB"
