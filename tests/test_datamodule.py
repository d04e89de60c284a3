import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.data.labels import LabelChoice
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from tests.conftest import PAPER
from tests.test_loaders import VOLUME_BYTES, with_shared_memory


def module(nnunet_root, folder, **settings):
    settings = {"test": 0, "validation": 0.25, "num_workers": 2, **settings}
    data = CTDataModule(
        "some", nnunet_cases, nnunet_root, folder, Preparation(factor=1), LabelChoice(PAPER), **settings
    )
    data.setup()
    return data


def test_channels_that_are_not_read_are_named(nnunet_root, tmp_path, capsys):
    shutil.copytree(nnunet_root, tmp_path / "set")
    nnunet_cases(tmp_path / "set")
    assert capsys.readouterr().out == ""
    images = tmp_path / "set" / "imagesTr"
    for name in ("case_0_0001.nii.gz", "case_0_0003.nii.gz", "case_1_0001.nii.gz", "notes.nii.gz"):
        (images / name).touch()
    assert len(nnunet_cases(tmp_path / "set")) == len(nnunet_cases(nnunet_root))
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"{images}: files CASE_0001, CASE_0003 are not read: networks take one channel, _0000"


@pytest.mark.parametrize(("size", "filled"), [(64, "5.13"), ((30, 25, 36), "49.8"), (1000, "0.00134")])
def test_patches_that_are_mostly_padding_are_refused(nnunet_root, tmp_path, size, filled):
    """Volumes are 24 × 20 × 28."""
    line = rf"data.patch_size=\[.*\]: CT would be {filled} % of a patch .* in case_\d, .* 24 × 20 × 28 voxels; expected"
    with pytest.raises(InputError, match=line) as refusal:
        module(nnunet_root, tmp_path, patch_size=size).check_patches()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("size", "told"), [(16, None), ((24, 26, 28), None), ((24, 27, 28), 26), ((24, 40, 28), 50)])
def test_much_padding_is_told(nnunet_root, tmp_path, size, told, capsys):
    data = module(nnunet_root, tmp_path, patch_size=size)
    capsys.readouterr()
    data.check_patches()
    line = (
        f"data.patch_size={list(data.patch_size)}: {told}% of a patch is padding, on average over the training cases\n"
    )
    assert capsys.readouterr().out == ("" if told is None else line)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"patch_size": 0}, r"data.patch_size=\[0, 0, 0\]: expected one or three whole numbers of voxels from 1"),
        ({"patch_size": (16, -8, 16)}, r"data.patch_size=\[16, -8, 16\]: expected one or three"),
        ({"patch_size": (16, 16)}, r"data.patch_size=\[16, 16\]: expected one or three"),
        ({"patch_size": (16, 16, 16.5)}, r"data.patch_size=\[16, 16, 16.5\]: expected one or three"),
        ({"batch_size": 7}, "6 training patients for data.batch_size=7"),
    ],
)
def test_patches_that_cannot_be_drawn_are_refused(nnunet_root, tmp_path, setting, message):
    with pytest.raises(InputError, match=message):
        module(nnunet_root, tmp_path, **setting).check_patches()


def test_training_patches_and_validation_volumes_share_the_memory(nnunet_root, tmp_path, monkeypatch):
    data = module(nnunet_root, tmp_path, patch_size=16)
    needed = 6 * 3 * 16**3 * 5 + 2 * VOLUME_BYTES  # two validation cases
    with_shared_memory(monkeypatch, needed)
    data.check_patches()
    with_shared_memory(monkeypatch, needed - 1)
    data.trainer = SimpleNamespace(
        global_step=0, max_steps=1, accumulate_grad_batches=1, world_size=1, global_rank=0,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )  # fmt: skip
    for check in (data.check_patches, data.train_dataloader):
        with pytest.raises(InputError, match=r"data\.num_workers=0"):
            check()
    data.val_dataloader()


def test_a_data_set_may_be_called_by_a_number(nnunet_root, tmp_path):
    preparation, labels = Preparation(factor=1), LabelChoice(PAPER)
    data = CTDataModule(2018, nnunet_cases, nnunet_root, tmp_path, preparation, labels, test=0, validation=0.25)
    data.setup()
    assert data.integrity == tmp_path / "2018" / "integrity.csv"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": 0}, "data.fold=0: expected both or none"),
        ({"folds": 3}, "data.folds=3: expected both or none"),
        ({"folds": 3, "fold": 0, "validation": 0.25}, "data.validation=0.25: with data.folds=3 it is a fold"),
        ({"folds": 9, "fold": 0, "validation": 0.1}, "data.folds=9: expected 2 to 8"),
    ],
)
def test_folds_that_cannot_be_are_refused(nnunet_root, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        module(nnunet_root, tmp_path, **settings)


def test_folds_of_a_data_sets_own_split_leave_its_test_cases_alone(nnunet_root, tmp_path):
    parts = ["test", "train", "val", "train", "train", "train", "val", "test"]

    def layout(root):
        return [replace(case, part=part) for case, part in zip(nnunet_cases(root), parts, strict=True)]

    def splits(**settings):
        data = CTDataModule(
            "some", layout, nnunet_root, tmp_path, Preparation(factor=1), LabelChoice(PAPER), **settings
        )
        data.setup()
        return data.split

    cut = [splits(folds=3, fold=fold) for fold in range(3)]
    assert {split.test for split in cut} == {("case_0", "case_7")}
    assert sorted(i for split in cut for i in split.validation) == [f"case_{number}" for number in range(1, 7)]
    left_out = splits(folds=3, fold=0, exclude=[cut[1].validation[0]])
    assert left_out.validation == cut[0].validation  # none moved from fold to fold
