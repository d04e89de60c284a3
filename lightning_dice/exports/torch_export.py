"""A network as `torch.export` writes it: graph and weights in one file, which torch runs without the network's code."""

import io
import json
from pathlib import Path

import torch
from torch import nn

from lightning_dice.exports.tracing import largest_difference, quiet, takes_any_size, traced
from lightning_dice.files import atomic_write
from lightning_dice.recipe import CHECKPOINT_KEY, Recipe

RECIPE_FILE = f"{CHECKPOINT_KEY}.json"  # among the file's extra files


def write_torch_export(network: nn.Module, recipe: Recipe, path: Path) -> str:
    """Write the network's graph, and its recipe as the extra file RECIPE_FILE; read them back and compare.

    Args:
        network: maps (B, 1, X, Y, Z) to logits (B, L, X, Y, Z); in evaluation mode, on the CPU.
        path: ends in `.pt2`.

    Returns:
        A line that tells what was written.

    Raises:
        InputError: the network cannot be traced, or the file gives other logits.
    """
    program = traced(network, recipe.patch_size, path)
    buffer = io.BytesIO()  # torch's own writer does not say that a disk is full
    with atomic_write(path) as temporary:
        with quiet():
            torch.export.save(program, buffer, extra_files={RECIPE_FILE: json.dumps(recipe.entry())})
            temporary.write_bytes(buffer.getbuffer())
            again = torch.export.load(temporary).module()
        worst = largest_difference(network, again, program, recipe.patch_size, path)
    sizes = "patches of any size" if takes_any_size(program) else f"patches of {list(recipe.patch_size)}"
    return f"torch.export program for {sizes}, logits at most {worst:.2g} off"
