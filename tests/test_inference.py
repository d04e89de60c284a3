import pytest
import torch
from torch import nn

from lightning_dice.errors import InputError
from lightning_dice.inference import segment, sliding_window
from lightning_dice.network import UNet3D

PATCH = (16, 16, 16)


class Pointwise(nn.Module):
    """Logits that depend on the voxel alone, so that tiling cannot show."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv3d(1, 3, 1)

    def forward(self, image):
        assert image.shape[2:] == PATCH
        return self.convolution(image)


@pytest.mark.parametrize("overlap", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(40, 17, 9), (16, 16, 16), (33, 20, 50)])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_tiling_a_pointwise_network_is_applying_it(shape, overlap, batch_size):
    network, image = Pointwise(), torch.randn(1, *shape)
    logits = sliding_window(network, image, PATCH, overlap, batch_size)
    with torch.no_grad():
        expected = network.convolution(image[None])[0]
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, expected, atol=1e-5)
    labels = segment(network, image, PATCH, overlap, batch_size)
    assert (labels.shape, labels.dtype) == (shape, torch.uint8)
    assert torch.equal(labels, logits.argmax(0).to(torch.uint8))


def test_one_window_is_the_network_itself():
    torch.manual_seed(0)
    network, image = UNet3D(base_channels=2, levels=3).eval(), torch.randn(1, *PATCH)
    with torch.no_grad():
        expected = network(image[None])[0]
    assert torch.allclose(sliding_window(network, image, PATCH), expected, atol=1e-6)


def test_windows_without_overlap_are_segmented_one_by_one():
    torch.manual_seed(0)
    network, image = UNet3D(base_channels=2, levels=3).eval(), torch.randn(1, 32, 16, 16)
    with torch.no_grad():
        halves = [network(image[None, :, :16])[0], network(image[None, :, 16:])[0]]
    assert torch.allclose(sliding_window(network, image, PATCH), torch.cat(halves, dim=1), atol=1e-5)


def test_an_overlap_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"overlap=1\.5"):
        segment(Pointwise(), torch.zeros(1, *PATCH), PATCH, overlap=1.5)
