import pytest
import pytorch_lightning as pl
import torch
from monai.networks.nets import DynUNet, SegResNetDS
from torch import nn

from lightning_dice.data.patches import Batch
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from lightning_dice.module import SegmentationModule
from lightning_dice.recipe import Recipe
from tests.conftest import PAPER

RECIPE = Recipe(
    PAPER,
    Preparation(factor=None, spacing_mm=[2.5, 2.5, 3.0], window_hu=[-160, 240]),
    (2.5, 2.5, 3.0),
    (16, 24, 16),
    {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 8, "kernel_size": 1},
)


def save_module(path, module) -> None:
    """A checkpoint as the trainer writes it."""
    trainer = pl.Trainer(
        logger=False, enable_progress_bar=False, accelerator="cpu", barebones=False, default_root_dir=path.parent
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)


class Recorder(nn.Module):
    """A loss that keeps what it was given."""

    def forward(self, logits, target):
        self.given = logits.detach(), target
        return logits.sum() * 0


def module_of(taught=None):
    return SegmentationModule(nn.Conv3d(1, len(PAPER), 1), RECIPE, Recorder(), taught=taught)


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


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (nn.Conv3d(1, 7, 1), r"\(2, 7, 8, 8, 8\)"),
        (nn.Sequential(nn.Conv3d(1, 16, 1), nn.Unflatten(1, (2, 8))), r"\(2, 2, 8, 8, 8, 8\)"),
        (DynUNet(3, 1, 8, [3] * 3, [1, 2, 2], [2, 2], [2, 4, 8], deep_supervision=True), r"\(2, 2, 8, 8, 8, 8\)"),
        (SegResNetDS(3, 8, out_channels=8, blocks_down=[1, 1, 1], dsdepth=2), "a list"),
    ],
)
def test_a_network_that_gives_no_logits_of_the_classes_is_told_in_one_line(network, told):
    module = SegmentationModule(network, RECIPE, Recorder())
    with pytest.raises(
        InputError, match=rf"^network\._target_=torch\.nn\.Conv3d: gives {told}; expected logits \(B, 8, X"
    ):
        trained_on(module, torch.zeros(2, 8, 8, 8, dtype=torch.uint8))


def test_with_all_classes_annotated_nothing_changes():
    label = torch.arange(8, dtype=torch.uint8).reshape(1, 2, 2, 2)
    everything, logits, target = trained_on(module_of(), label)
    assert torch.equal(logits, everything)
    assert torch.equal(target, label)
