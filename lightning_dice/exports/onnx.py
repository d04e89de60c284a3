"""A network as ONNX, for onnxruntime and what else runs it."""

import importlib.util
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_dice.errors import InputError
from lightning_dice.exports.tracing import largest_difference, quiet, takes_any_size, traced
from lightning_dice.files import atomic_write
from lightning_dice.recipe import CHECKPOINT_KEY, Recipe

OPSET = 18  # the lowest that torch's exporter writes without a conversion; onnxruntime reads it since 1.14
LARGEST = 2 * 1024**3  # bytes of a protobuf file


def write_onnx(network: nn.Module, recipe: Recipe, path: Path) -> str:
    """Write the network as one ONNX file, its recipe as JSON among the metadata; run it by onnxruntime, and compare.

    Args:
        network: maps (B, 1, X, Y, Z) to logits (B, L, X, Y, Z), float32, named `image` and `logits` in the file; in
            evaluation mode, on the CPU.
        path: ends in `.onnx`.

    Returns:
        A line that tells what was written.

    Raises:
        InputError: the extra is not installed, the network is too large for a file or cannot be traced, or onnxruntime
            gives other logits.
    """
    if any(importlib.util.find_spec(package) is None for package in ("onnx", "onnxscript", "onnxruntime")):
        raise InputError(f"{path}: ONNX needs onnx, onnxscript and onnxruntime; pip install 'lightning-dice[onnx]'")
    import onnxruntime

    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if size >= LARGEST:
        raise InputError(f"{path}: {size / 1e9:.1f} GB of weights; an ONNX file holds 2 GB, use format=torch_export")
    program = traced(network, recipe.patch_size, path)
    with atomic_write(path) as temporary:
        with quiet():
            model = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                verbose=False,
            )
            assert model is not None  # which it is only without dynamo
            model.model.metadata_props[CHECKPOINT_KEY] = json.dumps(recipe.entry())
            model.save(temporary, external_data=False)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])

        def run(image: Tensor) -> Tensor:
            (logits,) = session.run(["logits"], {"image": image.numpy()})
            return torch.from_numpy(logits)

        worst = largest_difference(network, run, program, recipe.patch_size, path)
    sizes = "any size" if takes_any_size(program) else f"{list(recipe.patch_size)}"
    return f"ONNX of opset {OPSET} for patches of {sizes}, logits in onnxruntime at most {worst:.2g} off torch's"
