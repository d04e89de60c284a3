"""Phantoms' lesions: small, dark, in the liver of some, and nothing else changes."""

import json

import numpy as np
import pytest
from scipy.ndimage import label as components

from lightning_dice.config import shipped_labels
from lightning_dice.data.phantom.dataset import make_phantom, write_phantoms
from lightning_dice.data.phantom.tumours import LIVER_TUMOUR, MOST, SHARE
from lightning_dice.settings import PrepareSettings
from lightning_dice.validation import checked
from tests.conftest import PAPER
from tests.test_config import composed

ON = "data.layout.tumours=true"
LIVER = shipped_labels("phantom_all").names.index("liver")


@pytest.fixture(scope="module")
def pairs():
    """The same phantoms without and with tumours, and where these are."""
    phantoms = [(make_phantom(1, case), make_phantom(1, case, tumours=True)) for case in range(6)]
    return [(sound, ill, ill.labels == LIVER_TUMOUR) for sound, ill in phantoms]


def test_they_are_the_last_class():
    assert shipped_labels("phantom_all").names[LIVER_TUMOUR:] == ("liver_tumour",)


def test_part_of_the_patients_have_some(pairs):
    count, expected = sum(lesions.any() for *_, lesions in pairs), SHARE * len(pairs)
    assert abs(count - expected) <= 3 * np.sqrt(expected * (1 - SHARE))
    assert 0 < count < len(pairs)


def test_nothing_else_changes(pairs):
    for sound, ill, lesions in pairs:
        assert np.array_equal(sound.hu[~lesions], ill.hu[~lesions])
        assert np.array_equal(sound.labels[~lesions], ill.labels[~lesions])
        assert (sound.labels[lesions] == LIVER).all()
        assert np.array_equal(sound.affine, ill.affine)


def test_they_are_small_and_darker_than_the_liver(pairs):
    numbers = []
    for sound, ill, lesions in pairs:
        if lesions.any():
            assert 5 <= lesions.sum() <= 10_000 / 27  # 10 mL
            numbers.append(components(lesions)[1])
            liver = np.median(sound.hu[sound.labels == LIVER])
            assert np.median(ill.hu[lesions]) < liver - 12
            assert (ill.hu[lesions] < sound.hu[lesions]).mean() > 0.95
    assert 1 == min(numbers) < max(numbers) <= MOST


def test_they_have_a_folder_of_their_own(tmp_path):
    roots = [composed("train", f"cache={tmp_path}", "phantoms=2", *more).data.root for more in ([], [ON])]
    assert roots == [f"{tmp_path}/phantoms-2-seed0", f"{tmp_path}/phantoms-2-seed0-tumours"]
    checked(composed("prepare", ON), PrepareSettings)


def test_without_a_class_for_it_a_tumour_is_liver(tmp_path):
    write_phantoms(tmp_path, 1, workers=1, progress=False, tumours=True)
    declared = json.loads((tmp_path / "dataset.json").read_text())["labels"].items()
    structures = [name for name, values in declared if LIVER_TUMOUR in np.atleast_1d(values)]
    assert PAPER.index(structures) == LIVER
    assert shipped_labels("phantom_all").index(structures) == LIVER_TUMOUR
