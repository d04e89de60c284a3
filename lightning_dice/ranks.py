"""What the ranks of one run, a process per device, tell each other, by torch.distributed; a run on one has one."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

Item = TypeVar("Item")
NOTHING: Any = object()


def ranks() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this process is, from 0."""
    return dist.get_rank() if ranks() > 1 else 0


def total(values: Tensor) -> Tensor:
    """The sum of the ranks' values, on each of them, with a gradient that reaches all of them.

    A loss that is computed from it on each rank has there the sum of R equal gradients. DDP takes the mean of the
    ranks' gradients of the weights, and that is the one-device run's.
    """
    summed: Tensor = _Total.apply(values) if ranks() > 1 else values  # type: ignore[no-untyped-call]  # torch's
    return summed


def whole_batch(part: Tensor) -> Tensor:
    """The batch (B, …) whose places the ranks have in order, of each one's part (B/R, …); gradients as of `total`."""
    whole: Tensor = _WholeBatch.apply(part) if ranks() > 1 else part  # type: ignore[no-untyped-call]  # torch's
    return whole


def of_each(own: Item) -> list[Item]:
    """The ranks' objects, with tensors on the CPU; where there is one rank, its own as it is."""
    if ranks() == 1:
        return [own]
    objects = [own] * ranks()
    dist.all_gather_object(objects, move_data_to_device(own, torch.device("cpu")))
    return objects


def in_order(own: Sequence[Item]) -> list[Item]:
    """All ranks' items, of which rank r has those at r, r + R, r + 2R, …"""
    turns = zip_longest(*of_each(list(own)), fillvalue=NOTHING)
    return [item for turn in turns for item in turn if item is not NOTHING]


# torch.distributed.nn.functional, which had these, is deprecated since torch 2.13.
class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


class _WholeBatch(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, part: Tensor) -> Tensor:
        part = part.contiguous()
        parts = [torch.empty_like(part) for _ in range(ranks())]
        dist.all_gather(parts, part)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient).chunk(ranks())[rank()]


def _summed(values: Tensor) -> Tensor:
    values = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(values)
    return values
