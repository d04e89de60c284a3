"""Where a network starts: the probabilities of the classes before it has learnt anything, by the last layer's bias."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_dice.errors import InputError
from lightning_dice.module import SegmentationModule

HALF = "half"
SHIFT_TOLERANCE = 1e-3  # of logits in float32; a bias that is not the last layer's moves them by what follows it


def set_prior(module: SegmentationModule, voxels: Sequence[int], prior: bool | str) -> str:
    """Set the last layer's bias to the logarithm of a probability per class. Its other weights stay random.

    The shares of the training voxels are what Lin et al. 2017 (Focal loss, section 3.3,
    https://arxiv.org/abs/1708.02002) take for the rare class of two. They keep the background from being lost, and
    organs from being found early. One half for the background, and as much for all organs together, does only the
    first.

    Args:
        voxels: of the training, of each of the module's taught classes. One is added to each class's.
        prior: True for the classes' shares, "half" for one half.

    Returns:
        A line that tells what was set.

    Raises:
        InputError: the network has no bias that its logits are moved by, one for each class.
    """
    names = module.recipe.labels.names
    name = _bias_of_last_layer(module)
    if name is None:
        raise InputError(
            f"prior={str(prior).lower()}: network._target_={module.recipe.network['_target_']} has no bias for each of "
            f"the {len(names)} classes in its last layer; expected one, give another network or prior=false"
        )
    if prior == HALF:
        shares = torch.tensor([0.5] + (len(names) - 1) * [0.5 / (len(names) - 1)], dtype=torch.float64)
    else:
        counted = dict(zip(module.taught, voxels, strict=True))
        counts = torch.tensor([counted.get(each, 0) + 1 for each in names], dtype=torch.float64)
        shares = counts / counts.sum()
    module.network.get_parameter(name).data.copy_(shares.log())
    low, high = int(shares.argmin()), int(shares.argmax())
    told = f"{names[high]} {100 * shares[high]:.3g} % to {names[low]} {100 * shares[low]:.3g} %"
    return f"prior: {name} starts at the logarithm of probabilities from {told}"


@torch.no_grad()
def _bias_of_last_layer(module: SegmentationModule) -> str | None:
    """The parameter that moves each class's logits by as much as it is moved itself, whatever the network is."""
    network, classes = module.network, len(module.recipe.labels)
    was_training = network.training
    network.eval()
    image = torch.rand(1, 1, *module.recipe.patch_size, generator=torch.Generator().manual_seed(0))
    before = _logits(network, image)
    shift = torch.linspace(0.5, 1, classes)
    found = None
    for name, parameter in network.named_parameters():
        if parameter.shape != (classes,):
            continue
        kept = parameter.clone()
        parameter.add_(shift)
        moved = _logits(network, image) - before
        parameter.copy_(kept)
        if (moved - shift[:, None, None, None]).abs().max() < SHIFT_TOLERANCE:
            found = name
            break
    network.train(was_training)
    return found


def _logits(network: nn.Module, image: Tensor) -> Tensor:
    return network(image)[0].float()
