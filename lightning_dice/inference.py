"""A whole CT → a label map, by one sliding window for validation, evaluation and prediction."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from lightning_dice.ensemble import Ensemble
from lightning_dice.errors import InputError

PROGRAM_GB = 1.2  # libraries, and one window of the paper's network
FLOAT = 4  # bytes
NATIVE_SLICES = 8  # on the native grid at a time: 64 MB of probabilities for 512 × 512 and eight classes


@torch.no_grad()
def sliding_window(
    network: nn.Module, image: Tensor, patch_size: Sequence[int], overlap: float = 0.0, batch_size: int = 3
) -> Tensor:
    """Logits of a whole volume.

    Windows stand on a regular grid, the last one of each axis ends with the volume. Where they overlap the logits are
    averaged, with the weights of a Hann window unless `overlap` is 0.

    Args:
        network: maps (B, C, *patch_size) to logits (B, L, *patch_size), or several that do and are combined after each
            one's windows; call `network.eval()` before.
        image: (C, X, Y, Z), prepared as in training; patches go to the network's device, the rest stays where it is. A
            volume smaller than a window is padded with zeros, and its logits are cropped.
        patch_size: of the windows, in voxels.
        overlap: share of the window by which neighbours overlap: 0 as in the paper, up to below 1; rounded down to an
            even number of voxels.
        batch_size: windows at a time.

    Returns:
        Logits float32 (L, X, Y, Z) where the image is.

    Raises:
        InputError: an overlap outside [0, 1).
    """
    if isinstance(network, Ensemble):
        each = (sliding_window(one, image, patch_size, overlap, batch_size) for one in network.networks)
        return network.combine(each)
    device = next(network.parameters()).device
    missing = [max(patch - size, 0) for patch, size in zip(patch_size, image.shape[1:], strict=True)]
    sides = [side for m in reversed(missing) for side in (m // 2, m - m // 2)]  # of the last axis first
    padded = functional.pad(image, sides)
    starts = [window_starts(size, patch, overlap) for size, patch in zip(padded.shape[1:], patch_size, strict=True)]
    windows: list[tuple[slice, ...]] = [
        (slice(None), *(slice(start, start + patch) for start, patch in zip(corner, patch_size, strict=True)))
        for corner in itertools.product(*starts)
    ]
    profiles = [torch.hann_window(p + 2, periodic=False)[1:-1] if overlap else torch.ones(p) for p in patch_size]
    profiles = [profile.to(image.device) for profile in profiles]
    blend = _outer(profiles)
    total: Tensor | None = None
    for first in range(0, len(windows), batch_size):
        some = windows[first : first + batch_size]
        logits = network(torch.stack([padded[window] for window in some]).to(device)).to(image.device)
        if total is None:  # classes last in memory, as the network's channels
            total = image.new_zeros(*padded.shape[1:], logits.shape[1], dtype=torch.float32).movedim(-1, 0)
        for window, one in zip(some, logits, strict=True):
            total[window].addcmul_(one, blend)
    assert total is not None  # there is one window at least
    total /= _outer([_summed(*along) for along in zip(profiles, starts, padded.shape[1:], strict=True)])
    for axis, (m, size) in enumerate(zip(missing, image.shape[1:], strict=True)):
        total = total.narrow(1 + axis, m // 2, size)
    return total


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the windows along an axis."""
    if not 0 <= overlap < 1:
        raise InputError(f"overlap={overlap}: expected a share of the patch from 0 to below 1, such as 0.5")
    last = max(size - patch, 0)
    return sorted({*range(0, last, patch - 2 * int(overlap * patch / 2)), last})


def _summed(profile: Tensor, starts: Sequence[int], size: int) -> Tensor:
    """What the windows' weights come to along an axis."""
    weights = profile.new_zeros(size)
    for start in starts:
        weights[start : start + len(profile)] += profile
    return weights


def _outer(profiles: Sequence[Tensor]) -> Tensor:
    x, y, z = profiles
    return x[:, None, None] * y[:, None] * z


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
    with tqdm(total=layers, desc="segmenting", unit="layer", disable=None if progress else True) as bar:
        for first, last, begin, end in slabs:
            low, high = starts[first], min(starts[last] + patch, size)
            inner = slice(begin - low, end - low)
            yield sliding_window(network, image[..., low:high], patch_size, overlap, batch_size)[..., inner]
            bar.update(last - first + 1)


def plan_slabs(
    shape: Sequence[int],
    itemsize: int,
    step: Sequence[float] | np.ndarray,
    classes: int,
    patch_size: Sequence[int],
    overlap: float,
    limit_gb: float,
    whole: bool = False,
    further_weights: int = 0,
) -> tuple[int, float]:
    """How many layers of windows a slab may have to keep to the memory, and what that comes to.

    Args:
        shape: of the scan, in RAS+ orientation.
        itemsize: bytes of one of its voxels.
        step: scan voxels from one prepared voxel to the next.
        classes: of the network.
        limit_gb: for the whole process.
        whole: all logits are kept, so that there is one slab.
        further_weights: bytes of those of the networks beside the first.

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
    times = 6 if whole else 3  # logits, probabilities, these with the slab before's last slice; copies that are written
    slice_ = times * FLOAT * classes * max(prepared[0], patch_size[0]) * max(prepared[1], patch_size[1])

    def peak_gb(rows: int) -> float:
        return PROGRAM_GB + further_weights / 1e9 + max(before, held + slice_ * (patch + (rows - 1) * stride)) / 1e9

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


def to_native(
    slabs: Iterable[Tensor], depth: int, shape: Sequence[int], step: Sequence[float] | np.ndarray
) -> np.ndarray:
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
    last: list[Tensor] = []  # the slab before's last slice
    end, done = 0, 0  # which lies before prepared slice `end`; scan slices labelled so far
    for slab in slabs:
        held = torch.cat([*last, slab.softmax(dim=0)], dim=-1)
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
        last = [held[..., -1:].clone()]
        del slab, held  # before the next one comes
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
