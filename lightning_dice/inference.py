"""A whole CT → a label map, by one sliding window for validation, evaluation and prediction."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightning_dice.data.patches import Grid, window_starts
from lightning_dice.errors import InputError

PROGRAM_GB = 1.5  # libraries, and one window of the paper's network
FLOAT = 4  # bytes
NATIVE_SLICES = 8  # on the native grid at a time: 64 MB of probabilities for 512 × 512 and eight classes


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


def sliding_window_slabs(
    network: nn.Module,
    image: Tensor,
    patch_size: Sequence[int],
    overlap: float = 0.0,
    batch_size: int = 3,
    rows: int | None = None,
    progress: bool = False,
) -> Iterator[Tensor]:
    """The same logits in slabs (L, X, Y, depth) from the first slice along Z to the last, to bound the memory.

    A slab is made of `rows` layers of windows, or of as many as it takes to be one slice deep; layers that reach into
    the next slab are computed for both. None makes one slab of all. With a batch of one the logits are the same to the
    last bit; larger batches are made up differently, and round differently.
    """
    size, patch = image.shape[-1], patch_size[2]
    starts = window_starts(size, patch, overlap)
    slabs = list(_slabs(starts, patch, size, rows or len(starts)))
    layers = sum(last - first + 1 for first, last, _, _ in slabs)
    with tqdm(total=layers, desc="segmenting", unit="layer", disable=not progress) as bar:
        for first, last, begin, end in slabs:
            low, high = starts[first], min(starts[last] + patch, size)
            logits = sliding_window(network, image[..., low:high], patch_size, overlap, batch_size)
            bar.update(last - first + 1)
            yield logits[..., begin - low : end - low]


def plan_slabs(
    shape: Sequence[int],
    itemsize: int,
    step: Sequence[float],
    classes: int,
    patch_size: Sequence[int],
    overlap: float,
    limit_gb: float,
    whole: bool = False,
) -> tuple[int, float]:
    """How many layers of windows a slab may have to keep to the memory, and what that comes to.

    Args:
        shape: of the scan, in RAS+ orientation.
        itemsize: bytes of one of its voxels.
        step: scan voxels from one prepared voxel to the next.
        classes: of the network.
        limit_gb: for the whole process.
        whole: all logits are kept, so that there is one slab.

    Returns:
        The layers, and an estimate of the peak in GB.

    Raises:
        InputError: the limit is too low for the thinnest slab, or for all logits if they are kept.
    """
    prepared = [size / s for size, s in zip(shape, step, strict=True)]
    voxels, patch = float(np.prod(shape)), patch_size[2]
    starts = window_starts(max(int(np.ceil(prepared[2])), patch), patch, overlap)
    stride = starts[1] if len(starts) > 1 else patch
    # The scan and its copy in float32, before; the scan, the prepared image three times and two label maps, later.
    before = voxels * (itemsize + FLOAT)
    held = voxels * (itemsize + 2) + 3 * FLOAT * float(np.prod(prepared))
    held += 3 * FLOAT * classes * shape[0] * shape[1] * NATIVE_SLICES
    slice_ = (
        (8 if whole else 5) * FLOAT * classes * max(prepared[0], patch_size[0]) * max(prepared[1], patch_size[1])
    )  # of logits

    def peak_gb(rows: int) -> float:
        return PROGRAM_GB + max(before, held + slice_ * (patch + (rows - 1) * stride)) / 1e9

    fewest = len(starts) if whole else min(-(-patch // stride) + 1, len(starts))  # what one slice can take
    if peak_gb(fewest) > limit_gb:
        raise InputError(
            f"memory_limit_gb={limit_gb}: this scan of {' × '.join(map(str, shape))} voxels takes at least "
            f"{peak_gb(fewest):.1f} GB; raise the limit, or crop the scan"
        )
    rows = max(rows for rows in range(fewest, len(starts) + 1) if peak_gb(rows) <= limit_gb)
    return rows, peak_gb(rows)


def _slabs(starts: Sequence[int], patch: int, size: int, rows: int) -> Iterator[tuple[int, int, int, int]]:
    """First and last layer of windows that a slab takes, and its slices from begin to below end."""
    begin = 0
    while begin < size:
        first = next(i for i, start in enumerate(starts) if start + patch > begin)
        reached = sum(start <= begin for start in starts) - 1  # the last layer that this slab's first slice lies in
        last = min(max(first + rows - 1, reached), len(starts) - 1)
        end = starts[last + 1] if last + 1 < len(starts) else size
        yield first, last, begin, end
        begin = end


def to_native(slabs: Iterable[Tensor], depth: int, shape: Sequence[int], step: Sequence[float]) -> np.ndarray:
    """Label map on the scan's own grid, from logits on the prepared grid.

    The class probabilities are interpolated linearly, and the highest wins, which is closer than a label map enlarged.
    Beyond the last prepared voxel its value holds.

    Args:
        slabs: logits (L, X', Y', d) that follow one another along Z', as from `sliding_window_slabs`.
        depth: of all slabs together.
        shape: of the scan (X, Y, Z) in RAS+ orientation.
        step: scan voxels from one prepared voxel to the next along each axis; their first voxels coincide.

    Returns:
        Places in the logits' first dimension, uint8 (X, Y, Z).
    """
    labels = np.empty(shape, np.uint8)
    held, end, done = None, 0, 0  # probabilities up to prepared slice `end`; scan slices that are labelled
    for slab in slabs:
        fresh = slab.softmax(dim=0)
        held = fresh if held is None else torch.cat([held[..., -1:], fresh], dim=-1)
        end += slab.shape[-1]
        begin = end - held.shape[-1]
        ready = shape[2] if end == depth else int((end - 1) * step[2] + 1e-6) + 1
        for low in range(done, ready, NATIVE_SLICES):
            high = min(low + NATIVE_SLICES, ready)
            part = _interpolate(held, 3, np.minimum(np.arange(low, high) / step[2], depth - 1) - begin)
            for axis in (0, 1):
                places = np.minimum(np.arange(shape[axis]) / step[axis], slab.shape[1 + axis] - 1)
                part = _interpolate(part, 1 + axis, places)
            labels[..., low:high] = _highest(part).numpy()
        done = ready
    return labels


def _highest(values: Tensor) -> Tensor:
    """Argmax over the first dimension, uint8; torch's own takes ten times as long over any but the last one."""
    best, places = values[0], torch.zeros(values.shape[1:], dtype=torch.uint8)
    for place in range(1, len(values)):
        places.masked_fill_(values[place] > best, place)
        best = torch.maximum(best, values[place])
    return places


def _interpolate(values: Tensor, dim: int, places: np.ndarray) -> Tensor:
    """Linearly, at these places along one dimension."""
    if np.array_equal(places, np.arange(values.shape[dim])):
        return values  # the scan has the network's voxel size along this axis
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, values.shape[dim] - 1)
    share = torch.from_numpy((places - below).astype(np.float32))
    share = share.reshape([-1 if d == dim else 1 for d in range(values.ndim)])
    return torch.lerp(
        values.index_select(dim, torch.from_numpy(below)), values.index_select(dim, torch.from_numpy(above)), share
    )


class Mirrored(nn.Module):
    """A network that also sees each patch mirrored along every combination of axes, and averages the logits."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        flips = [axes for count in range(4) for axes in itertools.combinations((2, 3, 4), count)]
        return sum(self.network(image.flip(axes)).flip(axes) for axes in flips) / len(flips)
