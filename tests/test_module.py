import dataclasses

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_dice.checkpoints import read_checkpoint
from lightning_dice.data.patches import Batch
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from lightning_dice.module import CHECKPOINT_KEY, Recipe, SegmentationModule, load_network
from lightning_dice.network import UNet3D
from tests.conftest import NAMES

RECIPE = Recipe(
    NAMES, Preparation(factor=None, spacing_mm=[2.5, 2.5, 3.0], window_hu=[-160, 240]), (2.5, 2.5, 3.0), (16, 24, 16)
)


def save(path, network) -> None:
    save_module(path, SegmentationModule(network, RECIPE, nn.Identity(), torch.optim.Adam))


def save_module(path, module) -> None:
    """A checkpoint as the trainer writes it."""
    trainer = pl.Trainer(
        logger=False, enable_progress_bar=False, accelerator="cpu", barebones=False, default_root_dir=path.parent
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)


def test_a_checkpoint_rebuilds_network_and_recipe_with_nothing_else_given(tmp_path):
    network = UNet3D(base_channels=2, levels=3)
    network(torch.randn(2, 1, 16, 16, 16))  # moves the batch norms' statistics
    save(tmp_path / "a.ckpt", network)
    again, recipe = load_network(tmp_path / "a.ckpt")
    assert recipe == RECIPE
    assert again.arguments == network.arguments
    assert not again.training
    image = torch.randn(1, 1, 16, 16, 16)
    assert torch.equal(again(image), network.eval()(image))


def test_a_checkpoint_is_made_of_plain_types(tmp_path):
    save(tmp_path / "a.ckpt", UNet3D(base_channels=2, levels=2))
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert checkpoint[CHECKPOINT_KEY]["recipe"]["classes"] == NAMES
    assert checkpoint[CHECKPOINT_KEY]["recipe"]["preparation"]["window_hu"] == (-160.0, 240.0)
    assert checkpoint[CHECKPOINT_KEY]["network"] == {
        "in_channels": 1,
        "num_classes": 8,
        "base_channels": 2,
        "levels": 2,
    }


def test_another_network_is_told_to_be_one(tmp_path):
    save(tmp_path / "a.ckpt", nn.Conv3d(1, 8, 1))
    with pytest.raises(InputError, match="network of your own"):
        load_network(tmp_path / "a.ckpt")


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


class Recorder(nn.Module):
    """A loss that keeps what it was given."""

    def forward(self, logits, target):
        self.given = logits.detach(), target
        return logits.sum() * 0


def module_of(taught=None, classes=NAMES):
    network = nn.Conv3d(1, len(classes), 1)
    return SegmentationModule(network, dataclasses.replace(RECIPE, classes=classes), Recorder(), taught=taught)


def trained_on(module, label):
    image = torch.randn(label.shape)[:, None]
    module.log = lambda *args, **kwargs: None  # there is no trainer
    module.training_step(Batch(image, label, ["a"]), 0)
    return module.network(image).detach(), *module.loss.given


def test_a_class_that_the_data_do_not_annotate_counts_as_background_to_the_loss():
    module = module_of(taught=("background", "liver", "pancreas"))
    label = torch.tensor([0, 3, 7, 0], dtype=torch.uint8).reshape(1, 1, 2, 2)
    everything, logits, target = trained_on(module, label)
    p = everything.double().softmax(dim=1)
    expected = torch.stack([p[:, [0, 1, 2, 4, 5, 6]].sum(dim=1), p[:, 3], p[:, 7]], dim=1)
    torch.testing.assert_close(logits.double().softmax(dim=1), expected, rtol=1e-5, atol=1e-6)
    assert target.flatten().tolist() == [0, 1, 2, 0]


def test_a_class_that_the_network_does_not_know_is_background():
    module = module_of(classes=("background", "spleen"))
    label = torch.arange(8, dtype=torch.uint8).reshape(1, 2, 2, 2)
    everything, logits, target = trained_on(module, label)
    assert torch.equal(logits, everything)
    assert target.flatten().tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
    assert set(module.label_map(torch.tensor([[1.0, 0], [0, 1]])[None, :, :, None, None]).flatten().tolist()) == {0, 4}


def test_with_all_classes_annotated_nothing_changes():
    label = torch.arange(8, dtype=torch.uint8).reshape(1, 2, 2, 2)
    everything, logits, target = trained_on(module_of(), label)
    assert torch.equal(logits, everything)
    assert torch.equal(target, label)
