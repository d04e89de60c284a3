"""A checkpoint stands alone: the network is rebuilt from it, whichever it is."""

import dataclasses
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from lightning_dice import __version__
from lightning_dice.checkpoints import read_checkpoint
from lightning_dice.config import config_folder, shipped_labels
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from lightning_dice.module import SegmentationModule
from lightning_dice.network import UNet3D
from lightning_dice.predict import predict
from lightning_dice.recipe import CHECKPOINT_KEY, FORMAT, Recipe, load_network
from lightning_dice.train import train
from tests.conftest import SHAPE
from tests.test_module import save_module
from tests.test_train import config_of

UNET = {"_target_": "lightning_dice.network.UNet3D", "num_classes": 4, "base_channels": 2, "levels": 3}
RECIPE = Recipe(
    shipped_labels("paper").select(["liver", "spleen", {"vessels": ["artery", "vein"]}]),
    Preparation(factor=None, spacing_mm=[2.5, 2.5, 3.0], window_hu=[-160, 240]),
    (2.5, 2.5, 3.0),
    (16, 24, 16),
    UNET,
)


def unet() -> UNet3D:
    network = UNet3D(num_classes=4, base_channels=2, levels=3)
    network(torch.randn(2, 1, 16, 16, 16))  # moves the batch norms' statistics
    return network


def save(path, network, described=UNET) -> None:
    recipe = dataclasses.replace(RECIPE, network=described)
    save_module(path, SegmentationModule(network, recipe, nn.Identity(), torch.optim.Adam))


def edit(path, change) -> None:
    """Change the package's entry in a checkpoint."""
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint[CHECKPOINT_KEY])
    torch.save(checkpoint, path)


def test_a_checkpoint_rebuilds_network_and_recipe_with_nothing_else_given(tmp_path):
    network = unet()
    save(tmp_path / "a.ckpt", network)
    again, recipe = load_network(tmp_path / "a.ckpt")
    assert recipe == RECIPE
    assert not again.training
    image = torch.randn(1, 1, 16, 16, 16)
    assert torch.equal(again(image), network.eval()(image))


def test_a_checkpoint_is_made_of_plain_types(tmp_path):
    save(tmp_path / "a.ckpt", unet())
    entry = torch.load(tmp_path / "a.ckpt", weights_only=True)[CHECKPOINT_KEY]
    assert (entry["format"], entry["version"]) == (FORMAT, __version__)
    assert [label["name"] for label in entry["recipe"]["labels"]["labels"]] == [
        "background", "liver", "spleen", "vessels",
    ]  # fmt: skip
    assert entry["recipe"]["preparation"]["window_hu"] == (-160.0, 240.0)
    assert entry["recipe"]["network"] == UNET


def test_a_checkpoint_of_the_first_format_loads(tmp_path):
    """As 0.1.0 wrote it: the paper's network by its arguments, and classes of the paper's by name."""
    network = UNet3D(in_channels=1, num_classes=3, base_channels=2, levels=2).eval()
    preparation = {"factor": 4, "spacing_mm": None, "window_hu": (-500.0, 500.0), "smooth": False}
    entry = {
        "network": {"in_channels": 1, "num_classes": 3, "base_channels": 2, "levels": 2},
        "recipe": {
            "classes": ("background", "liver", "pancreas"),
            "preparation": preparation,
            "spacing_mm": (3.0, 3.0, 4.0),
            "patch_size": (8, 8, 8),
        },
        "losses": [],
    }
    weights = {f"network.{name}".replace("upsample", "grow"): value for name, value in network.state_dict().items()}
    torch.save({"state_dict": weights, "global_step": 3, CHECKPOINT_KEY: entry}, tmp_path / "a.ckpt")
    again, recipe = load_network(tmp_path / "a.ckpt")
    image = torch.randn(1, 1, 8, 8, 8)
    assert torch.equal(again(image), network(image))
    assert recipe.labels.names == ("background", "liver", "pancreas")
    assert recipe.labels.organs[0].snomed == "Liver"
    assert (recipe.preparation.factor, recipe.spacing_mm, recipe.patch_size) == (4, (3.0, 3.0, 4.0), (8, 8, 8))
    assert recipe.network == {"_target_": "lightning_dice.network.UNet3D", **entry["network"]}

    edit(tmp_path / "a.ckpt", lambda entry: entry.update(network=None))
    with pytest.raises(InputError, match=r"a\.ckpt: was trained with a network of your own by an early version"):
        load_network(tmp_path / "a.ckpt")


def test_a_checkpoint_of_a_later_version_is_told_to_be_one(tmp_path):
    save(tmp_path / "a.ckpt", unet())
    edit(tmp_path / "a.ckpt", lambda entry: entry.update(format=3, version="0.9.1", recipe="another"))
    with pytest.raises(InputError, match=r"a\.ckpt: was written by lightning-dice 0\.9\.1, in format 3; expected"):
        load_network(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.update(format="two"),
        lambda entry: entry.pop("recipe"),
        lambda entry: entry["recipe"].pop("labels"),
        lambda entry: entry["recipe"]["labels"].update(labels=[]),
        lambda entry: entry["recipe"]["preparation"].update(x=1),
        lambda entry: entry["recipe"].update(network=None),
        lambda entry: entry["recipe"]["network"].update(width=1),
        lambda entry: entry["recipe"]["network"].update(levels=2),
        lambda entry: entry["recipe"]["network"].update(_partial_=True),
    ],
)
def test_a_recipe_that_is_not_whole_is_refused_in_one_line(tmp_path, change):
    save(tmp_path / "a.ckpt", unet())
    edit(tmp_path / "a.ckpt", change)
    with pytest.raises(InputError, match=r"a\.ckpt: its network cannot be rebuilt \(.+\); make") as refusal:
        load_network(tmp_path / "a.ckpt")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint", "foreign"])
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.ckpt"
    if content == "foreign":
        torch.save({"state_dict": {}}, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.ckpt: ") as refusal:
        load_network(path)
    assert "\n" not in str(refusal.value)


def test_code_in_a_checkpoint_is_not_executed(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"state_dict": Payload()}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="holds other objects than tensors and plain types") as refusal:
        read_checkpoint(tmp_path / "a.ckpt")
    assert "weights_only" not in str(refusal.value)  # torch's own advice is how to switch the protection off
    assert not (tmp_path / "executed").exists()


def test_objects_among_the_arguments_are_built_and_texts_interpreted_only_with_trust(tmp_path):
    network = nn.Sequential(nn.Conv3d(1, 4, 1))
    described = {"_target_": "torch.nn.Sequential", "_args_": [
        {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 4, "kernel_size": 1, "padding_mode": "zeros"},
    ]}  # fmt: skip
    save(tmp_path / "a.ckpt", network, described)
    with pytest.raises(InputError, match=r"wants to use torch\.nn\.Conv3d; .*add trust=true"):
        load_network(tmp_path / "a.ckpt")
    again, _ = load_network(tmp_path / "a.ckpt", trust=True)
    assert torch.equal(again[0].weight, network[0].weight)

    plain = described["_args_"][0] | {"padding_mode": "${oc.env:HOME}"}
    save(tmp_path / "b.ckpt", network[0], plain)
    with pytest.raises(InputError, match=r"\$\{oc\.env:HOME\}"):
        load_network(tmp_path / "b.ckpt")


def trained(folder, root, *overrides):
    few = ["data.test=0", "data.validation=0", "trainer.max_steps=2", "trainer.log_every_n_steps=2"]
    return train(config_of(folder, root, *few, *overrides))


def predicted(run, root, output, *overrides) -> np.ndarray:
    scan = root / "imagesTr" / "case_0_0000.nii.gz"
    asked = [f"run='{run.folder}'", f"input='{scan}'", f"output='{output}'", "precision=32-true", "accelerator=cpu"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        predict(compose("predict", [*asked, "overlap=0", *overrides]))
    return np.asarray(nib.load(output / "case_0_0000.nii.gz").dataobj)


TINY = {  # of each that is shipped and not the package's own: arguments that make it small
    "monai_unet": ["network.channels=[4,8,16]", "network.strides=[2,2]", "network._divisor_=4"],
    "segresnet": ["network.init_filters=8", "network.blocks_down=[1,1]", "network.blocks_up=[1]"],
    "dynunet": [
        "network.kernel_size=[3,3,3]", "network.strides=[1,2,2]", "network.upsample_kernel_size=[2,2]",
        "network.filters=[4,8,16]",
    ],
}  # fmt: skip


def test_all_shipped_networks_are_tried_here():
    shipped = {path.stem for path in (config_folder() / "network").glob("*.yaml")}
    assert shipped == {"unet3d", "unet3d_narrow", "unet3d_tiny", *TINY}


@pytest.mark.parametrize("name", ["unet3d_tiny", *TINY])
def test_a_shipped_network_trains_and_predicts(name, nnunet_root, tmp_path):
    run = trained(tmp_path, nnunet_root, f"network={name}", *TINY.get(name, []))
    label = predicted(run, nnunet_root, tmp_path / "out")
    assert label.shape == SHAPE
    assert label.max() < 8
    moments = [state["exp_avg"] for state in read_checkpoint(run.last)["optimizer_states"][0]["state"].values()]
    assert len(moments) == len(list(load_network(run.last)[0].parameters()))
    assert all(moment.abs().max() > 0 for moment in moments if moment.dim() == 5)  # gradients reached all convolutions


OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, width=2):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(1, width, 3, padding=1), nn.ReLU(), nn.Conv3d(width, classes, 1))
        self.scale = nn.Parameter(1 + 0 * self.layers[0].weight[0])  # of four dimensions

    def forward(self, image):
        return self.layers(image) * self.scale.mean()
"""


def test_a_network_of_the_users_own_trains_and_predicts_for_who_trusts_it(nnunet_root, tmp_path, monkeypatch):
    (tmp_path / "users_own_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    asked = ["network._target_=users_own_net.Net", "+network._classes_=classes", "+network.width=3"]
    run = trained(tmp_path, nnunet_root, *asked)
    assert "base_channels" not in run.config.read_text()
    monkeypatch.delitem(sys.modules, "users_own_net")
    with pytest.raises(
        InputError, match=r"last\.ckpt: wants to use users_own_net\.Net; .*; add trust=true if you know"
    ):
        predicted(run, nnunet_root, tmp_path / "out")
    assert "users_own_net" not in sys.modules
    assert not (tmp_path / "out").exists()
    assert predicted(run, nnunet_root, tmp_path / "out", "trust=true").shape == SHAPE
    (tmp_path / "users_own_net.py").rename(tmp_path / "moved.py")
    monkeypatch.delitem(sys.modules, "users_own_net")
    with pytest.raises(
        InputError, match=r"last\.ckpt: its network cannot be rebuilt \(.*No module named 'users_own_net'"
    ):
        load_network(run.last, trust=True)
    (tmp_path / "moved.py").rename(tmp_path / "users_own_net.py")
    again, recipe = load_network(run.last, trust=True)
    assert recipe.network == {"_target_": "users_own_net.Net", "classes": 8, "width": 3}
    assert again.layers[0].out_channels == 3
