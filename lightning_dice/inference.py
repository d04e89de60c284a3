"""A whole CT → a label map, by one sliding window for validation, evaluation and prediction."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_dice.data.patches import Grid


@torch.no_grad()
def sliding_window(
    network: nn.Module, image: Tensor, patch_size: Sequence[int], overlap: float = 0.0, batch_size: int = 3
) -> Tensor:
    """Logits of a whole volume.

    Args:
        network: maps (B, C, *patch_size) to logits (B, L, *patch_size); call `network.eval()` before.
        image: (C, X, Y, Z), prepared as in training; patches go to the network's device, the rest stays where it is.
        patch_size: of the windows, in voxels.
        overlap: share of the window by which neighbours overlap: 0 as in the paper, up to below 1.
        batch_size: windows at a time.

    Returns:
        Logits float32 (L, X, Y, Z) on the CPU, averaged where windows overlap.

    Raises:
        InputError: an overlap outside [0, 1).
    """
    device = next(network.parameters()).device
    grid = Grid(image, patch_size, overlap)
    for patches, places in grid.batches(batch_size):
        grid.add(network(patches.to(device)).float(), places)
    return grid.volume()


def segment(
    network: nn.Module, image: Tensor, patch_size: Sequence[int], overlap: float = 0.0, batch_size: int = 3
) -> Tensor:
    """Label map uint8 (X, Y, Z) of a whole volume: the class of the highest logit. Arguments as in `sliding_window`."""
    return sliding_window(network, image, patch_size, overlap, batch_size).argmax(dim=0).to(torch.uint8)
