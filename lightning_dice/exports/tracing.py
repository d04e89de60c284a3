"""A network as a graph, and whether what another program makes of it is still the same function."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import is_concrete_int

from lightning_dice.errors import InputError

# Of the largest logit. Sums in another order differ by 1e-5 in the shipped networks' float32, and an operator that was
# translated wrongly by more than 1e-2.
TOLERANCE = 1e-3


def traced(network: nn.Module, patch_size: Sequence[int], path: Path) -> ExportedProgram:
    """The network's graph for any number of patches (B, 1, X, Y, Z), and for any X, Y and Z if it does not fix them.

    Args:
        network: in evaluation mode, on the CPU.
        path: what it is to be written to, for the error.

    Raises:
        InputError: torch.export cannot follow the network's code.
    """
    example = torch.rand(2, 1, *patch_size)  # a batch of one would be taken for a constant
    sizes = {0: Dim.DYNAMIC, 2: Dim.AUTO, 3: Dim.AUTO, 4: Dim.AUTO}
    with quiet():
        try:
            return torch.export.export(network, (example,), dynamic_shapes=(sizes,))
        except Exception as error:  # of Dynamo, or whatever the network's own code raises when it is traced
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path}: torch.export cannot trace this network ({reason}); expected one without control flow that "
                "depends on values, use format=safetensors or monai_bundle"
            ) from error


def largest_difference(
    network: nn.Module,
    other: Callable[[Tensor], Tensor],
    program: ExportedProgram,
    patch_size: Sequence[int],
    path: Path,
) -> float:
    """How far apart the logits of both are, on noise: one patch, three, and one twice as long if the graph takes it.

    Args:
        other: the same network as read back from its file.

    Raises:
        InputError: further than rounding explains.
    """
    x, y, z = patch_size
    shapes = [(1, 1, x, y, z), (3, 1, x, y, z)]
    if takes_any_size(program):
        shapes.append((1, 1, x, y, 2 * z))
    differences, magnitudes = [], [1.0]
    for seed, shape in enumerate(shapes):
        image = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            expected = network(image)
            differences.append(float((other(image) - expected).abs().max()))
            magnitudes.append(float(expected.abs().max()))
    worst, allowed = max(differences), TOLERANCE * max(magnitudes)
    if not all(difference <= allowed for difference in differences):  # nor NaN
        raise InputError(
            f"{path}: its logits are up to {worst:.2g} off those of torch; expected {allowed:.2g} at most, so nothing "
            "was written; use format=safetensors or monai_bundle"
        )
    return worst


def takes_any_size(program: ExportedProgram) -> bool:
    """Whether the graph's input may have any X, Y and Z."""
    image = next(node for node in reversed(program.graph.nodes) if node.op == "placeholder")
    return not any(is_concrete_int(size) for size in image.meta["val"].shape[2:])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters tell of their own work."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
