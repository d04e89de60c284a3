"""Tiny data sets on disk, written by seeded code, for all tests."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lightning_dice.config import shipped_labels
from lightning_dice.data.cases import Case
from lightning_dice.data.integrity import ERROR
from lightning_dice.data.labels import LabelSet
from lightning_dice.data.volumes import Preparation, Volume, prepare_volume, read_case
from lightning_dice.errors import InputError

PAPER = shipped_labels("paper")
NAMES = PAPER.names

SLOWEST = ("test_readme.py", "test_config.py")  # files that are best begun first, each on a worker of its own
SHAPE = (24, 20, 28)
AFFINE = np.diag([-3.0, -3.0, 3.0, 1.0])  # LPS, as most CTs come


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in SLOWEST)


def tiny_case(seed: int, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """An int16 CT of noise with a bright box per organ, and its uint8 label map."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    for index in range(1, len(NAMES)):
        corner = rng.integers(0, np.array(shape) - 5)
        label[tuple(slice(c, c + 5) for c in corner)] = index
    hu = rng.normal(-50, 20, shape) + 40 * label
    return hu.astype(np.int16), label


def read_volume(case: Case, preparation: Preparation, labels: LabelSet = PAPER) -> Volume:
    """A case's files, read and prepared; an InputError with what was found if they are not sound."""
    scan, check = read_case(case, labels)
    if scan is None:
        raise InputError("\n".join(str(finding) for finding in check.findings if finding.level == ERROR))
    return prepare_volume(scan, preparation)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def write_nnunet(root: Path, cases: int, shape: tuple[int, int, int] = SHAPE) -> Path:
    """A data set in nnU-Net's raw layout."""
    for number in range(cases):
        hu, label = tiny_case(number, shape)
        write_nifti(root / "imagesTr" / f"case_{number}_0000.nii.gz", hu)
        write_nifti(root / "labelsTr" / f"case_{number}.nii.gz", label)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {name: index for index, name in enumerate(NAMES)},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


@pytest.fixture(scope="session")
def nnunet_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight tiny cases; only read it."""
    return write_nnunet(tmp_path_factory.mktemp("nnunet"), 8)


# These reports are looked at by more than one file, whose helpers make them; they import from this one.


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.test_report import small_report

    return small_report(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.test_escaping import hostile_report

    return hostile_report(tmp_path_factory.mktemp("hostile"))
