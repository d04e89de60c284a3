"""Networks that segment as one: an average, or for each organ the network that is best at it."""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Networks whose logits of a volume become one distribution, after the windows of each were put together.

    Without `deciding`, it is the mean of their probabilities. With it, an organ stands where it is the likeliest class
    of the network that decides on it; of several such organs the one with the highest probability, and background
    where there is none. The distribution has the organ and background only, by the odds that the deciding network
    gives the organ against its likeliest other class, so that borders can be interpolated.

    Args:
        networks: with the same classes. One alone is left as it is.
        deciding: for each class after background the place of the network that decides on it.
    """

    def __init__(self, networks: Iterable[nn.Module], deciding: Sequence[int] | None = None):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.deciding = deciding

    @property
    def further_weights(self) -> int:
        """Bytes of the weights of all networks but the first."""
        return sum(weight.nbytes for network in self.networks[1:] for weight in network.parameters())

    def map(self, function: Callable[[nn.Module], nn.Module]) -> "Ensemble":
        """The same of what a function makes of each network."""
        return Ensemble(map(function, self.networks), self.deciding)

    def combine(self, logits: Iterable[Tensor]) -> Tensor:
        """Logits (L, X, Y, Z) of each network → the logarithm of the distribution, likewise. Holds one at a time.

        Of a single network, its logits.
        """
        if len(self.networks) == 1:
            (only,) = logits
            return only
        probabilities = (one.softmax(dim=0) for one in logits)
        if self.deciding is not None:
            return _by_organ(probabilities, self.deciding).log_()
        return functools.reduce(Tensor.add_, probabilities).div_(len(self.networks)).log_()


class Mirrored(nn.Module):
    """A network that also sees each patch mirrored along every combination of axes, and averages the logits."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        flips = [axes for count in range(4) for axes in itertools.combinations((2, 3, 4), count)]
        return sum(self.network(image.flip(axes)).flip(axes) for axes in flips) / len(flips)


def _by_organ(probabilities: Iterable[Tensor], deciding: Sequence[int]) -> Tensor:
    best: Any = 0.0  # numbers first, which go with tensors of any device
    odds: Any = 0.0
    winner: Any = 0
    one = torch.zeros(())
    for place, one in enumerate(probabilities):
        top, classes = one.topk(2, dim=0)
        for organ in (organ for organ, decides in enumerate(deciding, start=1) if decides == place):
            own, stands = one[organ], classes[0] == organ
            against = own / (own + torch.where(stands, top[1], top[0]))
            rank = torch.where(stands, 1 + own, against)  # organs that stand come before those that do not
            better = rank > best
            best, odds = torch.where(better, rank, best), torch.where(better, against, odds)
            winner = torch.where(better, organ, winner)
    distribution = torch.zeros_like(one)
    distribution[0] = 1 - odds
    return distribution.scatter_(0, winner.long()[None], odds[None])
