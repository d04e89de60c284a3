"""Fine-tuning: a network starts from another's weights, as far as they fit, and says what it took."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml

from lightning_dice.checkpoints import read_checkpoint
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from lightning_dice.module import SegmentationModule
from lightning_dice.naming import flat
from lightning_dice.recipe import CHECKPOINT_KEY, Recipe, built
from lightning_dice.train import train
from lightning_dice.transfer import start_from
from tests.conftest import NAMES, PAPER
from tests.test_resume import BreaksOff, assert_same, broken_off, settings, weights_of  # noqa: F401 (a fixture)
from tests.test_train import config_of, finished  # noqa: F401 (a fixture)

UNET = {"_target_": "lightning_dice.network.UNet3D", "base_channels": 4, "levels": 3}
MONAI = {
    "_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1, "channels": [4, 8], "strides": [2],
    "num_res_units": 2,
}  # fmt: skip
SEGRESNET = {"_target_": "monai.networks.nets.SegResNet", "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}


def module(labels, network=None, argument="num_classes"):
    description = (network or UNET) | {argument: len(labels)}
    recipe = Recipe(labels, Preparation(), (3.0, 3.0, 3.0), (16, 16, 16), description)
    made = SegmentationModule(built(description), recipe)
    for tensor in made.network.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape) if tensor.is_floating_point() else torch.tensor(7))
    return made


def saved(path, made):
    checkpoint = {"state_dict": made.state_dict()}
    checkpoint[CHECKPOINT_KEY] = made.recipe.entry()
    torch.save(checkpoint, path)
    return path


def copied(made):
    return {name: tensor.clone() for name, tensor in made.network.state_dict().items()}


def test_all_of_the_same_network_is_taken(tmp_path):
    theirs, ours = module(PAPER), module(PAPER)
    path = saved(tmp_path / "a.ckpt", theirs)
    assert start_from(path, ours, "num_classes") == f"init_from: took 66 of 66 tensors of {path}"
    assert all(torch.equal(tensor, theirs.network.state_dict()[name]) for name, tensor in copied(ours).items())


@pytest.mark.parametrize("wanted", [["spleen", "kidney", "liver"], [*NAMES[2:], "kidney"]])
def test_other_classes_get_a_new_head_with_the_rows_of_those_that_both_know(tmp_path, wanted):
    """By name, not by place; with as many classes too."""
    known = PAPER.select([name for name in wanted if name != "kidney"]).to_plain()
    known["labels"].insert(2, known["labels"][1] | {"name": "kidney", "parts": [["kidney"]]})
    labels = type(PAPER).from_plain(known)
    theirs, ours = module(PAPER), module(labels)
    before = copied(ours)
    path = saved(tmp_path / "a.ckpt", theirs)
    both = [name for name in labels.names if name in NAMES]
    assert start_from(path, ours, "num_classes") == (
        f"init_from: took 64 of 66 tensors of {path}, and the rows of {', '.join(both)} of classes.weight, "
        "classes.bias; new rows: kidney"
    )
    after, source = copied(ours), theirs.network.state_dict()
    for name in after.keys() - {"classes.weight", "classes.bias"}:
        assert torch.equal(after[name], source[name])
    for part in ("classes.weight", "classes.bias"):
        for index, name in enumerate(labels.names):
            expected = source[part][NAMES.index(name)] if name in NAMES else before[part][index]
            assert torch.equal(after[part][index], expected)


@pytest.mark.parametrize("count", [2, 7])  # fewer, and as many of which one is another
def test_a_network_with_classes_in_several_layers_gets_these_anew(tmp_path, count):
    names = NAMES[1 : count + 1]
    labels = PAPER.select([*names[:-1], {"bowel": [names[-1]]}])
    theirs, ours = module(PAPER, MONAI, "out_channels"), module(labels, MONAI, "out_channels")
    before = copied(ours)
    path = saved(tmp_path / "a.ckpt", theirs)
    told = start_from(path, ours, "out_channels")
    new = {name for name in before if name.startswith("model.2.") and ".conv." in name}  # upwards, to the classes
    assert 0 < len(new) < len(before)
    assert f"took {len(before) - len(new)} of {len(before)} tensors" in told
    for name, tensor in copied(ours).items():
        assert torch.equal(tensor, before[name] if name in new else theirs.network.state_dict()[name])
        assert (name in told) == (name in new)


def test_the_head_of_a_network_of_monai_is_found_too(tmp_path):
    labels = PAPER.select(["pancreas", "vein"])
    theirs, ours = module(PAPER, SEGRESNET, "out_channels"), module(labels, SEGRESNET, "out_channels")
    told = start_from(saved(tmp_path / "a.ckpt", theirs), ours, "out_channels")
    assert "the rows of background, pancreas, vein of conv_final.2.conv.weight" in told
    (rows,) = (tensor for name, tensor in copied(ours).items() if name == "conv_final.2.conv.weight")
    assert torch.equal(rows, theirs.network.state_dict()["conv_final.2.conv.weight"][[0, 7, 2]])


def test_layers_are_taken_whole(tmp_path):
    """Half the levels: what is there with the same shape is taken, and of a layer that does not fit no part."""
    theirs, ours = module(PAPER), module(PAPER, UNET | {"levels": 2})
    before = copied(ours)
    start_from(saved(tmp_path / "a.ckpt", theirs), ours, "num_classes")
    after, source = copied(ours), theirs.network.state_dict()
    fits = {name for name in after if name.startswith(("down.", "classes."))}
    for name in fits:
        assert torch.equal(after[name], source[name])
    for name in after.keys() - fits:
        assert torch.equal(after[name], before[name])


def test_nothing_that_fits_is_refused(tmp_path):
    theirs, ours = module(PAPER), module(PAPER, UNET | {"base_channels": 2})
    before = copied(ours)
    path = saved(tmp_path / "a.ckpt", theirs)
    with pytest.raises(InputError, match=r"^init_from=.*a\.ckpt: none of its 66 tensors.*; expected .*$") as refusal:
        start_from(path, ours, "num_classes")
    assert "\n" not in str(refusal.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in copied(ours).items())


def test_the_network_that_the_file_names_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "strangers.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = saved(tmp_path / "a.ckpt", module(PAPER))
    checkpoint = torch.load(path, weights_only=True)
    checkpoint[CHECKPOINT_KEY]["recipe"]["network"] = {"_target_": "strangers.Net"}
    torch.save(checkpoint, path)
    assert "took 66 of 66" in start_from(path, module(PAPER), "num_classes")
    assert "strangers" not in sys.modules


@pytest.mark.parametrize("content", [None, b"no checkpoint", {"state_dict": {}}, {"state_dict": {"network.a": 3}}])
def test_what_is_no_checkpoint_is_refused_and_nothing_written(nnunet_root, tmp_path, content):
    path = tmp_path / "a.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content | {CHECKPOINT_KEY: module(PAPER).recipe.entry()}, path)
    with pytest.raises(InputError, match=r"a\.ckpt: ") as refusal:
        train(config_of(tmp_path, nnunet_root, f"init_from={path}"))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "runs").exists()


def test_a_run_starts_from_the_weights_and_says_so(finished, nnunet_root, tmp_path, capsys):  # noqa: F811
    start = shutil.copy(finished.last, tmp_path / "start.ckpt")
    config = config_of(tmp_path, nnunet_root, f"init_from={start}", "optim.lr=1e-12", "trainer.max_steps=2")
    run = train(config)
    assert f"init_from: took 66 of 66 tensors of {start}\n" in capsys.readouterr().out
    ours, theirs = weights_of(run.last), weights_of(finished.last)
    for name in theirs:
        if "running" not in name and "batches" not in name:  # the batch norms' statistics move
            assert torch.allclose(ours[name], theirs[name], atol=1e-6), name
    assert yaml.safe_load(run.config.read_text())["init_from"] == str(start)
    told = str(start).replace("/", "_")
    assert f"init_from={told}" in run.folder.name or ",settings=" in run.folder.name
    assert read_checkpoint(run.last)["global_step"] == 2


def test_a_resumed_run_does_not_need_the_file_again(finished, nnunet_root, tmp_path, broken_off, capsys):  # noqa: F811
    class_of = "network._target_=lightning_dice.network.UNet3D"
    start = shutil.copy(finished.last, tmp_path / "start.ckpt")
    whole = train(settings(tmp_path / "whole", nnunet_root, class_of, f"init_from={start}"))
    config = settings(tmp_path / "parts", nnunet_root, class_of, f"init_from={start}")
    BreaksOff.place = "training 3"
    with pytest.raises(RuntimeError, match="pulled the plug"):
        train(config)
    (tmp_path / "start.ckpt").unlink()
    capsys.readouterr()
    run = train(config)
    assert "init_from: " not in capsys.readouterr().out
    assert_same(run, whole)


def test_no_start_is_what_runs_had_before_there_was_the_setting():
    assert flat({"init_from": None, "a": {"init_from": None}}) == {"a.init_from": None}
    assert flat({"init_from": "x"}) == {"init_from": "x"}


def test_a_file_in_a_runs_folder_can_be_typed_as_it_is(tmp_path):
    path = "runs/phantom/demo/loss=simple,lr=0.01,seed=0/checkpoints/last.ckpt"
    command = [sys.executable, "-m", "lightning_dice.train", f"init_from={path}", "--cfg", "job"]
    said = subprocess.run(
        command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=True, timeout=100
    )
    assert yaml.safe_load(said.stdout)["init_from"] == path
