"""A network that starts at the classes' shares of the training voxels, or at one half of background."""

import math

import pytest
import torch
from torch import nn

from lightning_dice.config import plain
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from lightning_dice.module import SegmentationModule
from lightning_dice.naming import flat, run_folder
from lightning_dice.prior import set_prior
from lightning_dice.recipe import Recipe, built, load_network
from lightning_dice.train import train
from tests.conftest import NAMES, PAPER
from tests.test_config import composed
from tests.test_train import config_of

VOXELS = (900_000, 0, 99, 40_000, 9_999, 5_000, 499, 1_000)
NETWORKS = {
    "unet3d": {"_target_": "lightning_dice.network.UNet3D", "base_channels": 4, "levels": 2, "num_classes": 8},
    "segresnet": {
        "_target_": "monai.networks.nets.SegResNet", "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1],
        "out_channels": 8,
    },
    "monai_unet": {
        "_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1, "channels": [8, 8],
        "strides": [2], "num_res_units": 2, "out_channels": 8,
    },
    "dynunet": {
        "_target_": "monai.networks.nets.DynUNet", "spatial_dims": 3, "in_channels": 1, "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [8, 8, 8], "out_channels": 8,
    },
}  # fmt: skip


def module(network, description, taught=None):
    recipe = Recipe(PAPER, Preparation(), (3.0, 3.0, 3.0), (16, 16, 16), description)
    return SegmentationModule(network, recipe, taught=taught)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_logits_move_by_the_shares_and_nothing_else_changes(name):
    torch.manual_seed(1)
    network = built(NETWORKS[name])
    made = module(network, NETWORKS[name])
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    image = torch.randn(2, 1, 16, 16, 16)
    with torch.no_grad():
        logits = network.eval()(image)
        network.train()
        told = set_prior(made, VOXELS, True)
        assert network.training
        moved = network.eval()(image) - logits
    (changed,) = [key for key, tensor in network.state_dict().items() if not torch.equal(tensor, before[key])]
    expected = [math.log((count + 1) / (sum(VOXELS) + 8)) for count in VOXELS]
    assert network.state_dict()[changed].tolist() == pytest.approx(expected, rel=1e-5)
    shift = (torch.tensor(expected) - before[changed])[:, None, None, None].expand(8, 16, 16, 16)
    assert torch.allclose(moved, shift.expand(2, -1, -1, -1, -1), atol=1e-3)
    assert (
        told == f"prior: {changed} starts at the logarithm of probabilities from background 94.1 % to artery 0.000105 %"
    )


def test_without_anything_else_the_network_gives_the_shares():
    network = built(NETWORKS["unet3d"])
    with torch.no_grad():
        network.classes.weight.zero_()
    set_prior(module(network, NETWORKS["unet3d"]), VOXELS, True)
    with torch.no_grad():
        given = network.eval()(torch.randn(1, 1, 16, 16, 16)).softmax(dim=1)[0, :, 3, 4, 5]
    assert given.tolist() == pytest.approx([(count + 1) / (sum(VOXELS) + 8) for count in VOXELS], rel=1e-4)


def test_half_is_the_backgrounds_and_the_organs_share_the_rest():
    network = built(NETWORKS["unet3d"])
    told = set_prior(module(network, NETWORKS["unet3d"]), VOXELS, "half")
    assert network.classes.bias.exp().tolist() == pytest.approx([0.5] + 7 * [1 / 14])
    assert told.endswith("from background 50 % to artery 7.14 %")


def test_what_is_not_annotated_has_one_voxel():
    network = built(NETWORKS["unet3d"])
    set_prior(module(network, NETWORKS["unet3d"], ("background", "liver")), (89, 4), True)
    expected = [90 if name == "background" else 5 if name == "liver" else 1 for name in NAMES]
    assert network.classes.bias.exp().tolist() == pytest.approx([count / sum(expected) for count in expected])


class Unbiased(nn.Module):
    """Its one bias of eight is not the last layer's."""

    def __init__(self, num_classes=8):
        super().__init__()
        self.first = nn.Conv3d(1, 8, 1)
        self.last = nn.Conv3d(8, num_classes, 1, bias=False)

    def forward(self, image):
        return self.last(self.first(image))


def test_a_network_without_a_bias_for_each_class_is_refused(nnunet_root, tmp_path):
    with pytest.raises(InputError, match=r"prior=true: network\._target_=.*Unbiased has no bias for each of the 8 cla"):
        set_prior(module(Unbiased(), {"_target_": "tests.test_prior.Unbiased"}), VOXELS, True)
    asked = ["prior=true", "network._target_=tests.test_prior.Unbiased", "data.patch_size=16"]
    with pytest.raises(InputError, match="prior=true"):
        train(config_of(tmp_path, nnunet_root, *asked))
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_run_starts_so_once(nnunet_root, tmp_path, capsys):
    """The rate is so low that the start is still there at the end."""
    asked = ["prior=true", "optim.lr=1e-9", "trainer.max_steps=1", "trainer.val_check_interval=1"]
    run = train(config_of(tmp_path, nnunet_root, *asked))
    told = capsys.readouterr().out
    assert "prior: classes.bias starts at the logarithm of probabilities from background " in told
    bias = load_network(run.last)[0].classes.bias
    assert float(bias.detach().exp().sum()) == pytest.approx(1, abs=1e-4)
    run.done.unlink()  # the test again
    train(config_of(tmp_path, nnunet_root, *asked))
    assert "prior:" not in capsys.readouterr().out
    with pytest.raises(InputError, match=r"prior=true: the last layer comes from init_from="):
        train(config_of(tmp_path, nnunet_root, "prior=true", f"init_from='{run.last}'"))


def test_the_default_has_none():
    config = plain(composed("train"))
    assert config["prior"] is False
    assert "prior" not in flat(config)
    assert run_folder(config).name == "loss=uniform,lr=0.001,seed=0"
    assert run_folder(plain(composed("train", "prior=true"))).name == "loss=uniform,lr=0.001,seed=0,prior=true"
