import pytest
import torch
from torch import nn

from lightning_dice.network import UNet3D, channels_last, compiled


def parameters_by_hand(base: int = 32, classes: int = 8) -> int:
    """Widths as the paper's group published them, counted layer by layer."""

    def block(i, m, o):
        return 27 * i * m + 2 * m + 27 * m * o + 2 * o  # two 3³ convolutions without bias, two batch norms

    b = base
    down = block(1, b, 2 * b) + block(2 * b, 2 * b, 4 * b) + block(4 * b, 4 * b, 8 * b) + block(8 * b, 8 * b, 16 * b)
    upsample = sum(8 * w * w + w for w in (16 * b, 8 * b, 4 * b))
    up = block(24 * b, 8 * b, 8 * b) + block(12 * b, 4 * b, 4 * b) + block(6 * b, 2 * b, 2 * b)
    return down + upsample + up + 2 * b * classes + classes


def test_the_papers_network_has_19_07_million_parameters():
    count = sum(parameter.numel() for parameter in UNet3D().parameters())
    assert count == parameters_by_hand()
    assert abs(count / 19.07e6 - 1) < 0.01


def test_widths_are_the_published_ones():
    convolutions = [m for m in UNet3D().modules() if isinstance(m, nn.Conv3d)]
    widths = [(m.in_channels, m.out_channels) for m in convolutions]
    assert widths == [
        (1, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512),
        (768, 256), (256, 256), (384, 128), (128, 128), (192, 64), (64, 64), (64, 8),
    ]  # fmt: skip
    assert all(m.bias is None for m in convolutions[:-1])
    assert [m.in_channels for m in UNet3D().modules() if isinstance(m, nn.ConvTranspose3d)] == [512, 256, 128]


@pytest.mark.parametrize(("levels", "size"), [(4, (16, 8, 24)), (3, (4, 12, 8)), (1, (5, 3, 7))])
def test_the_size_stays_and_classes_come_out(levels, size):
    network = UNet3D(in_channels=2, num_classes=5, base_channels=4, levels=levels)
    assert network(torch.randn(2, 2, *size)).shape == (2, 5, *size)


@pytest.mark.parametrize("size", [(16, 16, 12), (7, 16, 16), (64, 60, 64)])
def test_a_size_that_does_not_divide_is_refused(size):
    with pytest.raises(ValueError, match=rf"input of size \({size[0]}, {size[1]}, {size[2]}\).*divisible by 8"):
        UNet3D(base_channels=2)(torch.zeros(1, 1, *size))


def test_gradients_reach_every_parameter():
    network = UNet3D(base_channels=2)
    network(torch.randn(2, 1, 16, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_output_depends_on_every_resolution():
    """Each skip and the bottom matter: cutting any path changes the output."""
    torch.manual_seed(0)
    network, image = UNet3D(base_channels=2).eval(), torch.randn(1, 1, 16, 16, 16)
    expected = network(image)
    for block in network.down:
        handle = block.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
        assert not torch.allclose(network(image), expected)
        handle.remove()
    assert torch.equal(network(image), expected)


def test_convolutions_start_as_he_proposes():
    torch.manual_seed(0)
    for module in UNet3D().modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size == (3, 3, 3):
            fan_in = 27 * module.in_channels
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)


def test_the_order_in_memory_changes_for_3d_convolutions_alone_and_no_value_does():
    network = nn.Sequential(nn.Conv3d(2, 4, 3), nn.Conv2d(2, 4, 3))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert channels_last(network) is network
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert network[1].weight.is_contiguous()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_where_compiling_fails_a_line_says_so_and_the_network_goes_on(monkeypatch, capsys):
    torch.compiler.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    network, image = UNet3D(base_channels=2, levels=2).eval(), torch.randn(1, 1, 8, 8, 8)
    call = compiled(network)
    with torch.no_grad():
        assert torch.equal(call(image), network(image))
        assert torch.equal(call(image), network(image))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1
    assert told[0].startswith("compile=true: goes on uncompiled (")


def test_an_error_of_the_network_itself_is_not_hidden_by_compiling(capsys):
    with pytest.raises(ValueError, match="must be divisible by 2"):
        compiled(UNet3D(base_channels=2, levels=2))(torch.zeros(1, 1, 9, 8, 8))
    assert not capsys.readouterr().out
