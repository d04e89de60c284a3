"""Phantoms on disk: the bytes, what is there already, and what damage or a full disk does."""

import errno
import json
import os

import nibabel as nib
import numpy as np
import pytest

from lightning_dice.config import shipped_labels
from lightning_dice.data.labels import LabelChoice
from lightning_dice.data.phantom.dataset import make_phantom, phantom_cases, write_phantoms
from lightning_dice.errors import InputError
from tests.full_disk import room_for

ALL = shipped_labels("phantom_all").names  # with tumours


def files(root) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_bytes_depend_on_seed_and_number_alone(tmp_path):
    for name, cases, seed, workers in (("a", 2, 3, 1), ("b", 3, 3, 2), ("c", 1, 4, 1)):
        write_phantoms(tmp_path / name, cases, seed, workers, progress=False)
    a, b, c = (files(tmp_path / name) for name in "abc")
    images = [name for name in a if name.endswith(".nii.gz")]
    assert len(images) == 4
    assert all(a[name] == b[name] for name in images)
    assert len(b) == 7
    assert c["imagesTr/phantom_0000_0000.nii.gz"] != a["imagesTr/phantom_0000_0000.nii.gz"]
    assert a["imagesTr/phantom_0001_0000.nii.gz"] != a["imagesTr/phantom_0000_0000.nii.gz"]

    made, image = make_phantom(3, 1), nib.load(tmp_path / "a" / "imagesTr" / "phantom_0001_0000.nii.gz")
    assert np.array_equal(np.asanyarray(image.dataobj), made.hu)
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(image.affine, made.affine)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


def test_the_description_declares_all_labels(tmp_path):
    for tumours in (False, True):
        root = tmp_path / str(tumours)
        write_phantoms(root, 1, workers=1, progress=False, tumours=tumours)
        declared = json.loads((root / "dataset.json").read_text())["labels"]
        names = ALL if tumours else ALL[:-1]
        assert declared == {name: index for index, name in enumerate(names)} | (
            {"liver": [ALL.index("liver"), len(ALL) - 1]} if tumours else {}
        )
        assert LabelChoice(shipped_labels("phantom_all")).of([tuple(declared)], root).names == names


def test_an_interrupted_generation_goes_on_where_it_stopped(tmp_path):
    write_phantoms(tmp_path, 2, workers=1, progress=False)
    whole = files(tmp_path)
    label = tmp_path / "labelsTr" / "phantom_0001.nii.gz"
    label.unlink()
    (tmp_path / "labelsTr" / ".123-phantom_0001.nii.gz").write_bytes(b"half")  # of a killed process
    kept = tmp_path / "imagesTr" / "phantom_0000_0000.nii.gz"
    os.utime(kept, (1, 1))
    cases = phantom_cases(tmp_path, 2)
    assert [case.id for case in cases] == ["phantom_0000", "phantom_0001"]
    assert kept.stat().st_mtime == 1
    assert label.read_bytes() == whole["labelsTr/phantom_0001.nii.gz"]


def test_a_folder_of_other_phantoms_is_refused_and_left_alone(tmp_path):
    write_phantoms(tmp_path, 1, workers=1, progress=False)
    before = files(tmp_path)
    for cases, seed, tumours in ((2, 0, False), (1, 5, False), (1, 0, True)):
        with pytest.raises(InputError, match=r"dataset.json: describes another data set") as refusal:
            write_phantoms(tmp_path, cases, seed, tumours=tumours)
        assert "\n" not in str(refusal.value)
    assert files(tmp_path) == before
    with pytest.raises(InputError, match="phantoms=0"):
        write_phantoms(tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()


def test_phantoms_of_an_earlier_version_are_refused_and_left_alone(tmp_path):
    """The same seed gave other images then, on which runs may have been trained."""
    write_phantoms(tmp_path, 1, workers=1, progress=False)
    description = json.loads((tmp_path / "dataset.json").read_text())
    description["generator"]["version"] -= 1
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"of version 3 and seed 0; give data.root another folder, or remove this one"):
        write_phantoms(tmp_path, 1, workers=1, progress=False)
    assert files(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null"])
def test_a_damaged_description_is_refused_in_a_line(tmp_path, content):
    write_phantoms(tmp_path, 1, workers=1, progress=False)
    (tmp_path / "dataset.json").write_bytes(content)
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"dataset.json: (cannot be read|describes another).* data.root ") as refusal:
        phantom_cases(tmp_path, 1)
    assert "\n" not in str(refusal.value)
    assert files(tmp_path) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_told_and_leaves_no_half_of_a_phantom(tmp_path, workers):
    for room, name in ((100, "dataset.json"), (300_000, "imagesTr/phantom_000")):
        with room_for(room), pytest.raises(OSError, match="File too large") as failure:
            write_phantoms(tmp_path / "phantoms", 2, workers=workers, progress=False)
        assert failure.value.errno == errno.EFBIG
        assert failure.value.filename.startswith(str(tmp_path / "phantoms" / name))
        assert list(files(tmp_path / "phantoms")) == (["dataset.json"] if room > 100 else [])


def test_half_a_phantom_is_drawn_again_and_what_a_kill_left_is_removed(tmp_path):
    write_phantoms(tmp_path, 1, workers=1, progress=False)
    whole = files(tmp_path)
    (tmp_path / "imagesTr" / "phantom_0000_0000.nii.gz").unlink()
    (tmp_path / "labelsTr" / ".123-phantom_0000.nii.gz").write_bytes(b"half")
    write_phantoms(tmp_path, 1, workers=1, progress=False)
    assert files(tmp_path) == whole
