"""A trained network in the formats of other programs: they compute the same, and carry the recipe."""

# ruff: noqa: F811 (a fixture of another file is an argument's name here)

import dataclasses
import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from torch import nn

from lightning_dice.checkpoints import read_checkpoint
from lightning_dice.errors import InputError
from lightning_dice.export import export
from lightning_dice.exports.onnx import write_onnx
from lightning_dice.exports.torch_export import RECIPE_FILE, write_torch_export
from lightning_dice.recipe import CHECKPOINT_KEY, Recipe, built, load_network
from lightning_dice.runs import Run
from lightning_dice.transfer import start_from
from tests.test_config import composed
from tests.test_init_from import module
from tests.test_predict import run  # noqa: F401 (a fixture)
from tests.test_recipe import OWN, RECIPE

NETWORKS = {
    "monai_unet": {
        "_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 4,
        "channels": [4, 8], "strides": [2], "num_res_units": 2,
    },
    "segresnet": {
        "_target_": "monai.networks.nets.SegResNet", "out_channels": 4, "init_filters": 8, "blocks_down": [1, 1],
        "blocks_up": [1],
    },
    "dynunet": {
        "_target_": "monai.networks.nets.DynUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 4,
        "kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8],
    },
}  # fmt: skip


def exported(run, kind, output, *overrides):
    return export(composed("export", f"run='{run}'", f"format={kind}", f"output='{output}'", *overrides))


def logits_of(run, image):
    network, _ = load_network(Run(run).last)
    with torch.inference_mode():
        return network(image).numpy()


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 8, 12)])
def test_onnxruntime_gives_the_logits_of_torch(run, tmp_path, shape, capsys):
    path = exported(run, "onnx", tmp_path / "net.onnx")
    assert "ONNX of opset 18 for patches of any size, logits in onnxruntime at most" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]  # no weights beside it
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import if not opset.domain] == [18]
    (stored,) = [entry.value for entry in model.metadata_props if entry.key == CHECKPOINT_KEY]
    assert Recipe.from_entry(json.loads(stored)) == load_network(Run(run).last)[1]
    image = torch.randn(5, 1, *shape)
    (logits,) = onnxruntime.InferenceSession(path).run(["logits"], {"image": image.numpy()})
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, logits_of(run, image), atol=1e-4)


def test_a_torch_export_program_gives_the_logits_of_torch(run, tmp_path):
    path = exported(run, "torch_export", tmp_path / "net.pt2")
    files = {RECIPE_FILE: ""}
    program = torch.export.load(path, extra_files=files).module()
    assert Recipe.from_entry(json.loads(files[RECIPE_FILE])) == load_network(Run(run).last)[1]
    image = torch.randn(3, 1, 16, 8, 8)
    np.testing.assert_allclose(program(image).detach().numpy(), logits_of(run, image), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_any_shipped_network_is_exported(name, tmp_path):
    recipe = dataclasses.replace(RECIPE, network=NETWORKS[name], patch_size=(16, 16, 8))
    network = built(recipe.network).eval()
    told = write_onnx(network, recipe, tmp_path / "net.onnx")
    assert "any size" in told
    assert "any size" in write_torch_export(network, recipe, tmp_path / "net.pt2")
    image = torch.rand(1, 1, 16, 16, 8)
    (logits,) = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, {"image": image.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(logits, network(image).numpy(), atol=1e-4)


class Constant(nn.Module):
    """Its graph holds the size that it was traced with."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 16, 16, 8))

    def forward(self, image):
        return image * self.weight


def test_a_network_of_one_size_is_exported_for_that_size(tmp_path):
    recipe = dataclasses.replace(RECIPE, patch_size=(16, 16, 8))
    assert "for patches of [16, 16, 8]" in write_torch_export(Constant().eval(), recipe, tmp_path / "net.pt2")


class Wavering(nn.Module):
    """Another function in each call."""

    def forward(self, image):
        return (image + torch.rand_like(image)).expand(-1, 4, -1, -1, -1)


class Branching(nn.Module):
    def forward(self, image):
        return image if image.sum() > 0 else -image


@pytest.mark.parametrize(("write", "name"), [(write_onnx, "net.onnx"), (write_torch_export, "net.pt2")])
@pytest.mark.parametrize(
    ("network", "reason"), [(Wavering(), "logits are up to .* off those of torch"), (Branching(), "cannot trace this")]
)
def test_what_another_program_would_compute_otherwise_is_not_written(tmp_path, write, name, network, reason):
    recipe = dataclasses.replace(RECIPE, patch_size=(8, 8, 8))
    with pytest.raises(InputError, match=reason) as refusal:
        write(network.eval(), recipe, tmp_path / name)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_safetensors_hold_the_weights_bit_by_bit_and_rebuild_the_network(run, tmp_path):
    path = exported(run, "safetensors", tmp_path / "net.safetensors")
    network, recipe = load_network(Run(run).last)
    again, read = load_network(path)
    assert read == recipe
    assert not again.training
    weights = read_checkpoint(Run(run).last)["state_dict"]
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == {name.removeprefix("network.") for name in weights}
        for name in file.keys():  # noqa: SIM118 (no dictionary)
            assert torch.equal(file.get_tensor(name), weights[f"network.{name}"])
    image = torch.randn(1, 1, 8, 8, 8)
    assert torch.equal(again(image), network(image))


def test_a_training_starts_from_safetensors(run, tmp_path):
    path = exported(run, "safetensors", tmp_path / "net.safetensors")
    network, recipe = load_network(path)
    made = module(recipe.labels, {key: value for key, value in recipe.network.items() if key != "num_classes"})
    count = len(network.state_dict())
    assert start_from(path, made, "num_classes") == f"init_from: took {count} of {count} tensors of {path}"


@pytest.mark.parametrize("content", [None, b"", b"no tensors", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_are_no_safetensors_of_ours_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "net.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"net\.safetensors: ") as refusal:
        load_network(path)
    assert "\n" not in str(refusal.value)


def test_a_network_of_others_wants_trust_on_both_ways(run, tmp_path, monkeypatch):
    (tmp_path / "strangers_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    described = {"_target_": "strangers_net.Net", "classes": 8}
    checkpoint = torch.load(Run(run).last, weights_only=True)
    checkpoint[CHECKPOINT_KEY]["recipe"]["network"] = described
    weights = built(described).state_dict()
    checkpoint["state_dict"] = {f"network.{name}": value for name, value in weights.items()}
    Run(tmp_path).checkpoints.mkdir()
    torch.save(checkpoint, Run(tmp_path).last)
    path = tmp_path / "net.safetensors"
    with pytest.raises(InputError, match=r"wants to use strangers_net\.Net; .*add trust=true"):
        exported(tmp_path, "safetensors", path)
    exported(tmp_path, "safetensors", path, "trust=true")
    with pytest.raises(InputError, match=r"net\.safetensors: wants to use strangers_net\.Net"):
        load_network(path)
    assert torch.equal(load_network(path, trust=True)[0].scale, weights["scale"])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["run=RUN", "format=onnx", "output=a.onnx.gz"], "a.onnx.gz: expected a file .onnx for format=onnx"),
        (["run=RUN", "format=safetensors", "output=a.pt2"], "expected a file .safetensors"),
        (["run=RUN", "format=onnx", "output=there.onnx"], "there.onnx: exists already"),
        (["run=RUN", "format=monai_bundle", "output=full"], "full: exists already"),
        (["format=onnx", "output=a.onnx"], "format=onnx: is of a trained run; add run="),
        (["format=nnunet_raw", "output=a"], "format=nnunet_raw: is of a data set; add data="),
        (["run=RUN", "format=nnunet_raw", "data=phantom", "output=a"], "is of a data set; leave out run"),
        (["format=nnunet_raw", "data=phantom", "output=a", "trust=true"], "is of a data set; leave out trust"),
        (["run=RUN", "format=onnx", "data=phantom", "labels=paper", "output=a.onnx"], "leave out data, labels"),
        (["run=RUN", "format=onnxx", "output=a.onnx"], "format=onnxx: expected onnx, safetensors, torch_export"),
    ],
)
def test_what_does_not_belong_together_is_refused_before_anything_is_written(
    run, tmp_path, monkeypatch, asked, expected
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").touch()
    (tmp_path / "full" / "x").mkdir(parents=True)
    with pytest.raises(InputError) as refusal:
        export(composed("export", *(word.replace("RUN", f"'{run}'") for word in asked)))
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert {path.name for path in tmp_path.iterdir()} == {"there.onnx", "full"}


@pytest.mark.parametrize(("kind", "package"), [("onnx", "onnxscript"), ("safetensors", "safetensors.torch")])
def test_an_extra_that_is_not_installed_is_named(run, tmp_path, monkeypatch, kind, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"pip install 'lightning-dice\[{kind}\]'"):
        exported(run, kind, tmp_path / f"net.{kind}")
    assert not list(tmp_path.iterdir())
