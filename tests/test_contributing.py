"""What CONTRIBUTING.md promises: a label set, a data set, a loss and a network are one YAML file each."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from lightning_dice.build import build_datamodule, describe_network, settle
from lightning_dice.build_data import build_label_choice
from lightning_dice.config import config_folder
from lightning_dice.losses import build_loss
from tests.conftest import tiny_case, write_nifti

ROOT = Path(__file__).parents[1]
FILES = {
    "labels": {"name": "mine", "labels": {"kidney_left": None}, "classes": None, "outputs": "present"},
    "data": {
        "defaults": ["files"],
        "name": "mine",
        "layout": {"images": "scans/*.nii", "labels": "truth/*.nii", "ids": {"liver": 3}, "highest": 7},
    },
    "loss": {"_target_": "monai.losses.DiceFocalLoss", "softmax": True, "to_onehot_y": True},
    "network": {"_target_": "monai.networks.nets.BasicUNet", "_classes_": "out_channels", "spatial_dims": 3},
}


@pytest.fixture
def config(tmp_path):
    """The shipped configuration with these files beside it, and the choice of them."""
    conf = shutil.copytree(config_folder(), tmp_path / "conf")
    for group, content in FILES.items():
        (conf / group / "mine.yaml").write_text(yaml.safe_dump(content))
    choices = [f"{group}=mine" for group in FILES]
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose("train", [*choices, f"data.root={tmp_path}", f"cache={tmp_path}/cache"])


def test_a_label_set_is_one_file(config):
    assert build_label_choice(config.labels).known.names == ("background", "kidney_left")


def test_a_data_set_is_one_file(config, tmp_path):
    for case, number in (("a", 0), ("b", 1)):
        hu, label = tiny_case(number)
        write_nifti(tmp_path / "scans" / f"{case}.nii", hu)
        write_nifti(tmp_path / "truth" / f"{case}.nii", label)
    config.labels = {"name": "dataset", "labels": None, "classes": None, "outputs": "present"}
    config.data.test = 1
    data = build_datamodule(config)
    data.setup()
    assert list(data.cases) == ["a", "b"]
    assert data.taught == ("background", "liver")


def test_a_loss_is_one_file(config):
    loss = build_loss(settle(config).loss)
    assert loss(torch.zeros(1, 3, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.uint8)).isfinite()


def test_a_network_is_one_file(config):
    from hydra.utils import instantiate

    network = instantiate(describe_network(config.network, 3))
    assert network(torch.zeros(1, 1, 32, 32, 32)).shape == (1, 3, 32, 32, 32)


def test_files_that_the_recipes_name_are_there():
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = [name for name in re.findall(r"`((?:conf|tests|lightning_dice)/[^`]+)`", text) if "NAME" not in name]
    assert len(named) >= 8
    assert all((ROOT / name).is_file() for name in named)
    rows = re.findall(r"^\| (an? [^|]+) \|", text, re.MULTILINE)
    assert [row.split(",")[0] for row in rows[:5]] == [
        "a label set", "a data set", "a layout of another kind", "a loss", "a network",
    ]  # fmt: skip
