import dataclasses
import os
import shutil

import numpy as np
import pytest

from lightning_dice.data import store
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.store import fingerprint, prepare_cases
from lightning_dice.data.volumes import Preparation, read_volume
from tests.conftest import tiny_case, write_nifti, write_nnunet

SETTINGS = Preparation(factor=2)


def test_the_store_holds_what_reading_gives(nnunet_root, tmp_path):
    cases = nnunet_cases(nnunet_root)
    for case, prepared in zip(cases, prepare_cases(cases, SETTINGS, tmp_path, workers=1)[0], strict=True):
        volume = read_volume(case, SETTINGS)
        assert prepared.id == case.id
        assert np.array_equal(np.load(prepared.image), volume.image)
        assert np.array_equal(np.load(prepared.label), volume.label)
        assert prepared.shape == volume.image.shape
        assert np.array_equal(prepared.affine, volume.affine)
        assert prepared.spacing_mm == (6.0, 6.0, 6.0)
        assert prepared.voxels == tuple((volume.label == index).sum() for index in range(8))


def test_workers_do_not_matter(nnunet_root, tmp_path):
    cases = nnunet_cases(nnunet_root)[:3]
    one, two = (prepare_cases(cases, SETTINGS, tmp_path / str(n), workers=n)[0] for n in (1, 2))
    assert [case.sha256 for case in one] == [case.sha256 for case in two]
    for a, b in zip(one, two, strict=True):
        assert a.image.read_bytes() == b.image.read_bytes()
        assert a.label.read_bytes() == b.label.read_bytes()


def written(folder) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_second_run_writes_nothing_and_a_change_only_what_changed(tmp_path):
    root, store = write_nnunet(tmp_path / "data", 3), tmp_path / "store"
    prepare_cases(nnunet_cases(root), SETTINGS, store, workers=1)
    before = written(store)
    assert len(before) == 9
    prepare_cases(nnunet_cases(root), SETTINGS, store, workers=1)
    assert written(store) == before

    write_nifti(root / "imagesTr" / "case_1_0000.nii.gz", tiny_case(99)[0])
    prepare_cases(nnunet_cases(root), SETTINGS, store, workers=1)
    new = written(store).keys() - before.keys()
    assert len(new) == 3
    assert all(name.startswith("case_1-") for name in new)
    prepare_cases(nnunet_cases(root), Preparation(factor=4), store, workers=1)
    assert len(written(store)) == 9 + 3 + 9


def test_a_store_of_another_version_is_prepared_anew(tmp_path, monkeypatch):
    """Once its records lack a field, they cannot be opened."""
    cases, folder = nnunet_cases(write_nnunet(tmp_path / "data", 2)), tmp_path / "store"
    monkeypatch.setattr(store, "FIELDS", store.FIELDS[:-1])
    old = prepare_cases(cases, SETTINGS, folder, workers=1)[0]
    monkeypatch.undo()
    for path in folder.glob("*.json"):
        path.write_text("{}")
    new = prepare_cases(cases, SETTINGS, folder, workers=1)[0]
    assert [case.sha256 for case in new] == [case.sha256 for case in old]
    assert not {case.image for case in new} & {case.image for case in old}


def test_an_interrupted_case_is_prepared_again(tmp_path):
    root, store = write_nnunet(tmp_path / "data", 1), tmp_path / "store"
    ((first,), _) = prepare_cases(nnunet_cases(root), SETTINGS, store)
    first.image.with_name(first.image.name.replace("image.npy", "json")).unlink()  # what is written last
    first.image.write_bytes(b"half")
    ((second,), _) = prepare_cases(nnunet_cases(root), SETTINGS, store)
    assert second == first
    assert np.load(second.image).shape == second.shape


@pytest.mark.parametrize("workers", [1, 2])
def test_all_bad_cases_are_told_at_once_and_the_good_ones_kept(tmp_path, workers):
    root, store = write_nnunet(tmp_path / "data", 4), tmp_path / "store"
    (root / "imagesTr" / "case_0_0000.nii.gz").write_bytes(b"")
    write_nifti(root / "labelsTr" / "case_2.nii.gz", np.full((24, 20, 28), 77, np.uint8))
    prepared, examinations = prepare_cases(nnunet_cases(root), SETTINGS, store, workers=workers)
    assert [case.id for case in prepared] == ["case_1", "case_3"]
    errors = [finding for one in examinations for finding in one.findings if finding.level == "error"]
    assert [(error.case, error.check) for error in errors] == [("case_0", "file"), ("case_2", "label values")]
    assert sorted(name.partition("-")[0] for name in written(store)) == ["case_1"] * 3 + ["case_3"] * 3


def test_the_fingerprint_is_the_datas_own(nnunet_root, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(nnunet_root, moved)
    for path in moved.rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    here, _ = prepare_cases(nnunet_cases(nnunet_root), SETTINGS, tmp_path / "a", workers=1)
    there, _ = prepare_cases(nnunet_cases(moved), SETTINGS, tmp_path / "b", workers=1)
    assert fingerprint(here) == fingerprint(there) == fingerprint(here[::-1])
    assert fingerprint(here) != fingerprint(here[1:])
    assert fingerprint(here) != fingerprint([dataclasses.replace(here[0], sha256="0"), *here[1:]])
