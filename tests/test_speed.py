"""What makes training fast changes no result. How fast it is, the benchmark measures."""

import shutil

import pandas as pd
import pytest
import torch

from lightning_dice import build_optim
from lightning_dice.build import build_datamodule, build_module
from lightning_dice.network import UNet3D
from lightning_dice.train import train
from tests.test_train import config_of

STEPS = 20


def losses(folder, root, *overrides):
    """Of each step of a seeded training."""
    short = (f"trainer.max_steps={STEPS}", "data.validation=0", "data.test=0", "optim.lr=0.001")
    return pd.read_csv(train(config_of(folder, root, *short, *overrides)).metrics)["train/loss"].to_numpy()


@pytest.fixture(scope="module")
def plain(nnunet_root, tmp_path_factory):
    return losses(tmp_path_factory.mktemp("plain"), nnunet_root)


@pytest.mark.parametrize(
    ("override", "at_first", "later"),
    [
        ("data.num_workers=2", 0.0, 0.0),
        ("+optim.fused=true", 1e-5, 0.01),
        ("trainer.precision=bf16-mixed", 0.02, 0.05),
        pytest.param(
            "compile=true", 1e-5, 0.01, marks=pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
        ),
    ],
)
def test_the_first_losses_are_the_same_in_every_setting(
    plain, nnunet_root, tmp_path, capsys, override, at_first, later
):
    assert len(plain) == STEPS
    found = losses(tmp_path, nnunet_root, override)
    assert found[:5] == pytest.approx(plain[:5], rel=at_first, abs=0)
    assert found == pytest.approx(plain, rel=later, abs=0)  # a step's rounding is the next one's difference
    assert "goes on uncompiled" not in capsys.readouterr().out


def test_the_memory_format_does_not_change_the_logits():
    torch.manual_seed(0)
    network, image = UNet3D(base_channels=4, levels=3), torch.randn(2, 1, 16, 16, 16)
    expected = network(image)
    logits = network.to(memory_format=torch.channels_last_3d)(image)
    assert logits.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize(("overrides", "fused"), [((), True), (("+optim.fused=false",), False)])
def test_on_a_gpu_the_optimiser_is_fused_unless_told_otherwise(monkeypatch, nnunet_root, tmp_path, overrides, fused):
    config = config_of(tmp_path, nnunet_root, *overrides)
    data = build_datamodule(config)
    data.setup()
    assert not build_module(config, data).configure_optimizers().defaults["fused"]
    monkeypatch.setattr(build_optim, "uses_gpu", lambda accelerator: True)
    assert build_module(config, data).configure_optimizers().defaults["fused"] is fused
