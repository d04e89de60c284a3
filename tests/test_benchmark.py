"""The benchmark's works do what they say. How long they take is not tested."""

import json
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from omegaconf import OmegaConf
from torch import nn

from lightning_dice import workloads
from lightning_dice.benchmark import benchmark
from lightning_dice.build import build_datamodule, build_module
from tests.test_config import composed

PATCH = (16, 16, 16)
SMALL = ("data=nnunet", "experiment=smoke", "data.preparation.spacing_mm=3", "data.patch_size=16",
         "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.enable_progress_bar=false",
         "steps=1", "rounds=2")  # fmt: skip


@pytest.fixture(scope="module")
def config(nnunet_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    return composed("benchmark", *SMALL, f"data.root={nnunet_root}", f"cache={folder}", f"output={folder}/figures.json")


@pytest.fixture(scope="module")
def parts(config):
    data = build_datamodule(config)
    data.setup()
    return build_module(config, data), data, Fabric(accelerator="cpu", devices=1, precision="32-true")


def test_it_tells_all_figures_and_writes_them(config, capsys):
    result = benchmark(OmegaConf.merge(config, {"compare": True}))
    assert json.loads(Path(config.output).read_text()) == result
    assert {name for name in result["seconds"] if "MONAI" in name or "tio.Queue" in name} == {
        "iteration, MONAI", "batch, MONAI", "batch, tio.Queue on files", "volume, MONAI",
    }  # fmt: skip
    for row in result["seconds"].values():
        assert 0 < row["min"] <= row["median"] <= row["max"]
    iteration = result["seconds"]["iteration from the store"]["median"]
    assert result["hours_of_the_papers_grid"] == pytest.approx(60_000 * iteration / 3600)
    assert result["iteration_over_monai"] == pytest.approx(iteration / result["seconds"]["iteration, MONAI"]["median"])
    assert 0 <= result["share_waiting_for_data"] < 1
    assert "voxels_per_second_of_inference" in capsys.readouterr().out


def test_it_tells_how_the_training_scales(config):
    """On two processors that share what there is, so that only the table's own arithmetic can be held to anything."""
    one, two = benchmark(OmegaConf.merge(config, {"devices": [1, 2], "rounds": 1, "steps": 2}))["scaling"]
    assert (one["devices"], one["patches"], one["efficiency"]) == (1, 3, 1)
    assert (two["devices"], two["patches"]) == (2, 6)
    assert two["efficiency"] == pytest.approx(6 / two["seconds"] / 2 / (3 / one["seconds"]))


def test_both_sliding_windows_give_the_same_logits(parts):
    module, data, fabric = parts
    ours = workloads.our_inference(module, data, fabric, 0.0)()
    monai = workloads.monai_inference(module, data, fabric, 0.0)()
    assert monai.shape == (1, *ours.shape)
    # Tiles that jut out are moved inwards by both; where they overlap the two average differently.
    assert (monai[0] - ours).abs().median() < 1e-5


def test_all_pipelines_give_batches_of_the_same_shape(parts):
    _, data, _ = parts
    ours = workloads.store_patches(data)()
    assert ours.image.shape == (3, 1, *PATCH)
    for batch in (workloads.monai_patches(data)(), workloads.stock_queue_patches(data)()):
        images = batch["image"]["data"] if isinstance(batch["image"], dict) else batch["image"]
        assert images.shape == ours.image.shape
    assert 0 <= workloads.monai_patches(data)()["image"].min() <= workloads.monai_patches(data)()["image"].max() <= 1


@pytest.mark.parametrize("name", ["training_in_memory", "monai_training"])
def test_the_loops_train(parts, name, monkeypatch):
    """They work on copies, whose parameters change, and leave the given network alone."""
    module, data, fabric = parts
    trained = []
    original = Fabric.setup
    monkeypatch.setattr(Fabric, "setup", lambda self, *a: trained.append(original(self, *a)) or trained[-1])
    before = [p.clone() for p in module.network.parameters()]
    work = getattr(workloads, name)(module, data, fabric)
    work()
    work()
    assert all(map(torch.equal, before, module.network.parameters()))
    assert not all(map(torch.equal, before, trained[0][0].parameters()))


def test_flop_are_counted_by_hand(parts):
    _, data, _ = parts
    convolution = nn.Conv3d(1, 5, 3, padding=1, bias=False)
    forward = 2 * 3 * 16**3 * 5 * 27  # two for multiplying and adding; a batch of three
    assert (
        workloads.flop_per_iteration(convolution, data) == 2 * forward
    )  # and the weights' gradient; the input has none
