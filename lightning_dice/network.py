"""The 3D U-Net, with the widths of the group's public network for the paper, after Çiçek et al. 2016."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def convolutions(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """Two 3³ convolutions, each with batch norm, which makes their bias idle, and ReLU; the size stays."""
    return nn.Sequential(
        nn.Conv3d(inputs, middle, 3, padding=1, bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, outputs, 3, padding=1, bias=False),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet3D(nn.Module):
    """3D U-Net: (B, in_channels, D, H, W) → logits (B, num_classes, D, H, W).

    With the defaults its widths are 32-64, 64-128, 128-256, 256-512 on the way down with 2³ max pooling between, and
    256-256, 128-128, 64-64 on the way up after 2³ transposed convolutions that keep 512, 256, 128 channels, each beside
    the channels from across; a 1³ convolution gives the classes. 19.07 million parameters.

    Args:
        in_channels: of the image.
        num_classes: background included.
        base_channels: width of the first convolution; all others are multiples of it.
        levels: resolutions; D, H and W must be divisible by 2 to the power of one less.

    Raises:
        ValueError: in `forward`, for a size that does not divide.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 8, base_channels: int = 32, levels: int = 4):
        super().__init__()
        self.divisor = 2 ** (levels - 1)
        widths = [base_channels * 2 ** (level + 1) for level in range(levels)]  # 64, 128, 256, 512
        inputs = [in_channels, *widths[:-1]]
        self.down = nn.ModuleList(convolutions(i, o // 2, o) for i, o in zip(inputs, widths, strict=True))
        self.pool = nn.MaxPool3d(2)
        self.upsample = nn.ModuleList(nn.ConvTranspose3d(w, w, 2, stride=2) for w in widths[:0:-1])
        self.up = nn.ModuleList(
            convolutions(below + skip, skip, skip) for below, skip in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.classes = nn.Conv3d(widths[0], num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        if any(size % self.divisor for size in image.shape[2:]):
            raise ValueError(
                f"input of size {tuple(image.shape[2:])}: each side must be divisible by {self.divisor}, "
                f"because {len(self.down)} levels halve it {len(self.down) - 1} times"
            )
        features, skips = image, []
        for level, down in enumerate(self.down):
            features = down(features if level == 0 else self.pool(features))  # (B, 64·2^level, D/2^level, …)
            skips.append(features)
        for level, upsample, up in zip(reversed(range(len(self.up))), self.upsample, self.up, strict=True):
            features = up(torch.cat([skips[level], upsample(features)], dim=1))  # (B, 64·2^level, D/2^level, …)
        return self.classes(features)


def channels_last(network: nn.Module) -> nn.Module:
    """The same network, with the weights of its 3D convolutions in the order of memory that they are fastest in."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 5:  # `Module.to(memory_format=…)` fails where a weight has four dimensions
            tensor.data = tensor.data.to(memory_format=torch.channels_last_3d)
    return network


def compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network through `torch.compile`; where that fails, a line says so, and the network itself goes on."""
    fast: Callable[[Tensor], Tensor] = torch.compile(network)

    def forward(image: Tensor) -> Tensor:
        nonlocal fast
        try:
            return fast(image)
        except Exception as error:  # of Dynamo, of Inductor, of the compiler that they call
            logits = network(image)  # where an error of the network's own comes out again
            print(f"compile=true: goes on uncompiled ({str(error).strip().partition(chr(10))[0]})")
            fast = network
            return logits

    return forward
