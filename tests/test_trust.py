"""A stranger's run executes nothing."""

import importlib
import shutil
import sys
from pathlib import Path

import monai.networks.nets
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from lightning_dice import data
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.errors import InputError
from lightning_dice.evaluate import evaluate
from lightning_dice.network import UNet3D
from lightning_dice.recipe import CHECKPOINT_KEY
from lightning_dice.runs import Run, read_config
from lightning_dice.trust import TRUSTED, check_trust, trusted_class
from tests.test_train import composed, config_of, finished  # noqa: F401 (a fixture)

called = []


def spy(root, **_):
    """What a run's configuration may name as its layout."""
    called.append(root)
    return nnunet_cases(root)


class StrangeNet(UNet3D):
    """What a run's checkpoint may name as its network."""

    def __init__(self, num_classes, **arguments):
        super().__init__(num_classes=num_classes, **arguments)
        called.append(num_classes)


@pytest.fixture
def strange(finished, tmp_path):  # noqa: F811
    """A copy of a finished run, and how to change its configuration."""
    run = Run(tmp_path / "run")
    shutil.copytree(finished.folder, run.folder)

    def change(**settings):
        config = OmegaConf.create(read_config(run))
        for key, value in settings.items():
            OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
        OmegaConf.save(config, run.config)
        return run

    called.clear()
    return change


def evaluated(run, tmp_path, *overrides):
    return evaluate(composed("evaluate", tmp_path, f"run='{run.folder}'", "trainer.precision=32-true", *overrides))


def test_code_that_a_configuration_names_is_run_only_when_the_user_trusts_it(strange, tmp_path):
    run = strange(data__layout={"_target_": "tests.test_trust.spy", "_partial_": True})
    with pytest.raises(InputError, match=r"wants to run tests\.test_trust\.spy.*trust=true"):
        evaluated(run, tmp_path)
    assert not called
    assert not (run.folder / "evaluate").exists()
    evaluated(run, tmp_path, "trust=true")
    assert len(called) == 1


def test_a_network_that_a_checkpoint_names_is_built_only_when_the_user_trusts_it(strange, tmp_path):
    run = strange()
    checkpoint = torch.load(run.last, weights_only=True)
    checkpoint[CHECKPOINT_KEY]["recipe"]["network"]["_target_"] = "tests.test_trust.StrangeNet"
    torch.save(checkpoint, run.last)
    with pytest.raises(InputError, match=r"last\.ckpt: wants to use tests\.test_trust\.StrangeNet; .*trust=true"):
        evaluated(run, tmp_path)
    assert not called
    evaluated(run, tmp_path, "trust=true")
    assert called == [8]


def test_a_module_of_ours_is_no_way_to_others_code(strange, tmp_path):
    run = strange(data__layout={"_target_": "lightning_dice.sessions.subprocess.run", "_partial_": True})
    with pytest.raises(InputError, match=r"wants to run lightning_dice\.sessions\.subprocess\.run"):
        evaluated(run, tmp_path)


def test_a_transform_of_the_training_is_not_wanted_for_an_evaluation(strange, tmp_path):
    run = strange(
        data__transform={"_target_": "monai.utils.run_cmd", "cmd_list": ["touch", str(tmp_path / "executed")]}
    )
    evaluated(run, tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data__name": "../../elsewhere"}, r"config\.yaml: data\.name=\.\./\.\./elsewhere: expected a folder's name"),
        ({"data__more": 1}, r"config\.yaml: data\.more: no such setting"),
        ({"data__preparation__more": {"_target_": "os.system"}}, "no such setting"),
        ({"data__layout__deep": [{"_target_": "os.system"}]}, r"wants to run os\.system"),
    ],
)
def test_a_configuration_is_checked_like_a_users(strange, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        evaluated(strange(**settings), tmp_path)


def test_what_is_trusted_is_there_and_this_packages():
    for name in TRUSTED:
        module, _, attribute = name.rpartition(".")
        found = getattr(__import__(module, fromlist=[attribute]), attribute)
        assert found.__module__ == module
    check_trust({"a": [{"_target_": TRUSTED[0]}]}, Run(None), trust=False)


def test_each_layout_is_trusted_by_its_name_and_nothing_through_it():
    for file in (Path(data.__file__).parent / "layouts").glob("[!_]*.py"):
        name = f"lightning_dice.data.layouts.{file.stem}"
        module = importlib.import_module(name)
        assert getattr(module, f"{file.stem}_cases").__module__ == name
        check_trust({"_target_": f"{name}.{file.stem}_cases"}, Run(None), trust=False)
        for other in ("json.load", "Path", f"sub.{file.stem}_cases", f"{file.stem}_cases.__call__"):
            with pytest.raises(InputError, match="wants to run"):
                check_trust({"_target_": f"{name}.{other}"}, Run(Path("r")), trust=False)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("lightning_dice.network.UNet3D", UNet3D),
        ("torch.nn.Conv3d", nn.Conv3d),
        ("torch.nn.modules.conv.Conv3d", nn.Conv3d),
        ("monai.networks.nets.UNet", monai.networks.nets.UNet),
        ("monai.networks.nets.dynunet.DynUNet", monai.networks.nets.DynUNet),
    ],
)
def test_networks_of_known_packages_may_be_rebuilt(target, kind):
    assert trusted_class({"_target_": target, "sizes": [1, {"a": 2}]}, nn.Module, "x") is kind


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "monai.utils.run_cmd",
        "monai.networks.nets.os.system",
        "monai.networks.nets.hovernet.os.system",
        "monai.networks.nets.hovernet.download_url",
        "monai.networks.nets.swin_unetr.nn.Conv3d.__init__",
        "monai.networks.nets.densenet.load_state_dict_from_url",
        "monai.networks.nets.densenet121.__init__.__globals__",
        "monai.networks.nets.efficientnet.BlockArgs",  # a class, and no network
        "monai.networks.nets.diffusion_model_unet.Rearrange.x",  # MONAI's stand-in where einops is missing
        "monai.networks.nets.unet",
        "monai.networks.nets",
        "monai.networks.nets.",
        "monai.networks.netsx.UNet",
        "monai.bundle.ConfigWorkflow",
        "torch.hub.load",
        "torch.nn.modules.module.torch.hub.load",
        "torch.nn.init.kaiming_normal_",
        "torch.nn.Module.load_state_dict",
        "torch.jit.ScriptModule",
        "lightning_dice.cli.command",
        "lightning_dice.network.torch.hub.load",
        "lightning_dice.network.torch.jit.ScriptModule",  # a network, defined elsewhere
        "lightning_dice.network.compiled",
        "lightning_dice.module.SegmentationModule",
        "lightning_dice.networks.Net",
        "",
        "UNet3D",
        None,
        ["torch.nn.Conv3d"],
    ],
)
def test_nothing_else_may_and_no_way_leads_through_them(target):
    with pytest.raises(InputError, match=r"^x: wants to use .*; add trust=true if you know who made it$") as refusal:
        trusted_class({"_target_": target}, nn.Module, "x")
    assert str(target) in str(refusal.value)


def test_a_network_without_a_class_is_refused():
    with pytest.raises(InputError, match=r"^x: wants to use None;"):
        trusted_class({}, nn.Module, "x")


@pytest.mark.parametrize("inner", ["os.system", "torch.nn.Conv3d"])
@pytest.mark.parametrize("argument", [lambda inner: inner, lambda inner: [{"a": (inner,)}]])
def test_a_known_network_is_no_way_to_others_code(inner, argument):
    argument = argument({"_target_": inner})
    with pytest.raises(InputError, match=rf"^x: wants to use {inner};"):
        trusted_class({"_target_": "torch.nn.Conv3d", "a": argument}, nn.Module, "x")


def test_a_known_network_is_no_way_to_load_weights_from_elsewhere():
    network = {"_target_": "monai.networks.nets.HoVerNet", "pretrained_url": "https://example.org/x.pth"}
    with pytest.raises(InputError, match=r"^x: wants to use https://example\.org/x\.pth;"):
        trusted_class(network, nn.Module, "x")


def test_what_is_not_trusted_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "strangers.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for target in ("strangers.Net", "torch.strangers.Net", "monai.networks.nets.strangers.Net"):
        with pytest.raises(InputError, match=rf"wants to use {target};"):
            trusted_class({"_target_": target}, nn.Module, "x")
    assert "strangers" not in sys.modules
