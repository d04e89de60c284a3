import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lightning_dice.data import store
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.store import check_cases, fingerprint, prepare_cases
from lightning_dice.data.volumes import Preparation
from lightning_dice.prepare import prepare
from tests.conftest import PAPER, read_volume, tiny_case, write_nifti, write_nnunet
from tests.full_disk import room_for
from tests.test_train import composed

SETTINGS = Preparation(factor=2)


def test_the_store_holds_what_reading_gives(nnunet_root, tmp_path):
    cases = nnunet_cases(nnunet_root)
    for case, prepared in zip(cases, prepare_cases(cases, PAPER, SETTINGS, tmp_path, workers=1)[0], strict=True):
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
    one, two = (prepare_cases(cases, PAPER, SETTINGS, tmp_path / str(n), workers=n)[0] for n in (1, 2))
    assert [case.sha256 for case in one] == [case.sha256 for case in two]
    for a, b in zip(one, two, strict=True):
        assert a.image.read_bytes() == b.image.read_bytes()
        assert a.label.read_bytes() == b.label.read_bytes()


def written(folder) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_second_run_writes_nothing_and_a_change_only_what_changed(tmp_path):
    root, store = write_nnunet(tmp_path / "data", 3), tmp_path / "store"
    prepare_cases(nnunet_cases(root), PAPER, SETTINGS, store, workers=1)
    before = written(store)
    assert len(before) == 9
    prepare_cases(nnunet_cases(root), PAPER, SETTINGS, store, workers=1)
    assert written(store) == before

    write_nifti(root / "imagesTr" / "case_1_0000.nii.gz", tiny_case(99)[0])
    prepare_cases(nnunet_cases(root), PAPER, SETTINGS, store, workers=1)
    new = written(store).keys() - before.keys()
    assert len(new) == 3
    assert all(name.startswith("case_1-") for name in new)
    prepare_cases(nnunet_cases(root), PAPER, Preparation(factor=4), store, workers=1)
    assert len(written(store)) == 9 + 3 + 9


def test_a_store_of_another_version_is_prepared_anew(tmp_path, monkeypatch):
    """Once its records lack a field, they cannot be opened."""
    cases, folder = nnunet_cases(write_nnunet(tmp_path / "data", 2)), tmp_path / "store"
    monkeypatch.setattr(store, "FIELDS", store.FIELDS[:-1])
    old = prepare_cases(cases, PAPER, SETTINGS, folder, workers=1)[0]
    monkeypatch.undo()
    for path in folder.glob("*.json"):
        path.write_text("{}")
    new = prepare_cases(cases, PAPER, SETTINGS, folder, workers=1)[0]
    assert [case.sha256 for case in new] == [case.sha256 for case in old]
    assert not {case.image for case in new} & {case.image for case in old}


def test_an_interrupted_case_is_prepared_again(tmp_path):
    root, store = write_nnunet(tmp_path / "data", 1), tmp_path / "store"
    ((first,), _) = prepare_cases(nnunet_cases(root), PAPER, SETTINGS, store)
    first.image.with_name(first.image.name.replace("image.npy", "json")).unlink()  # what is written last
    first.image.write_bytes(b"half")
    ((second,), _) = prepare_cases(nnunet_cases(root), PAPER, SETTINGS, store)
    assert second == first
    assert np.load(second.image).shape == second.shape


def of_record(change):
    """A damage of a case's files: its record with some values changed."""

    def damage(image, label, record):
        content = json.loads(record.read_text())
        change(content)
        record.write_text(json.dumps(content))

    return damage


DAMAGES = {  # and what is said of them
    "short image": (
        lambda image, label, record: os.truncate(image, image.stat().st_size - 64),
        "image.npy: 3424 bytes",
    ),
    "short label": (lambda image, label, record: os.truncate(label, 1700), "label.npy: 1700 bytes instead of 1808"),
    "long label": (lambda image, label, record: os.truncate(label, 1809), "label.npy: 1809 bytes instead of 1808"),
    "no image": (lambda image, label, record: image.unlink(), "image.npy: No such file"),
    "no label": (lambda image, label, record: label.unlink(), "label.npy: No such file"),
    "empty": (lambda image, label, record: record.write_bytes(b""), "JSONDecodeError"),
    "truncated": (lambda image, label, record: os.truncate(record, 100), "JSONDecodeError"),
    "no text": (lambda image, label, record: record.write_bytes(b"\xff\xfe{}\x00"), "Decode"),
    "no object": (lambda image, label, record: record.write_text("[]"), "TypeError"),
    "nothing in it": (lambda image, label, record: record.write_text("{}"), "KeyError('crc32')"),
    "no hash": (of_record(lambda content: content.pop("sha256")), "checksum does not fit"),
    "hash of no text": (of_record(lambda content: content.update(sha256=None)), "checksum does not fit"),
    "shape of texts": (of_record(lambda content: content.update(shape=["12", "10", "14"])), "checksum does not fit"),
    "shape of two": (of_record(lambda content: content["shape"].pop()), "checksum does not fit"),
    "another shape": (of_record(lambda content: content.update(shape=[10, 12, 10])), "checksum does not fit"),
    "no count": (of_record(lambda content: content["voxels"].pop()), "checksum does not fit"),
    "fractional count": (of_record(lambda content: content["voxels"].__setitem__(0, 0.5)), "checksum does not fit"),
    "flat affine": (of_record(lambda content: content.update(affine=[1.0] * 16)), "checksum does not fit"),
    "affine of three rows": (of_record(lambda content: content["affine"].pop()), "checksum does not fit"),
    "no spacing": (of_record(lambda content: content.update(scan_spacing_mm=None)), "checksum does not fit"),
    "no check": (of_record(lambda content: content.update(check=7)), "checksum does not fit"),
    "no finding": (
        of_record(lambda content: content["check"].update(findings=[{"case": "a"}])),
        "checksum does not fit",
    ),
    "another digit": (of_record(lambda content: content["affine"][0].__setitem__(3, -1.0)), "checksum does not fit"),
    "another case's": (
        lambda image, label, record: record.write_bytes(next(record.parent.glob("case_2*.json")).read_bytes()),
        "is of case_2",
    ),
}


@pytest.fixture(scope="module")
def sound(nnunet_root, tmp_path_factory):
    """A store of three cases; only read it."""
    folder = tmp_path_factory.mktemp("sound")
    prepare_cases(nnunet_cases(nnunet_root)[:3], PAPER, SETTINGS, folder, workers=1)
    return folder


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_prepared_anew_and_told(nnunet_root, sound, tmp_path, name, capsys):
    damage, told = DAMAGES[name]
    folder = shutil.copytree(sound, tmp_path / "store")
    cases = nnunet_cases(nnunet_root)[:3]
    whole, checks = prepare_cases(cases, PAPER, SETTINGS, folder, workers=1)
    assert capsys.readouterr().out == ""
    contents, others = ({path: path.read_bytes() for path in folder.iterdir()}, written(folder))
    victim = whole[1]
    damage(victim.image, victim.label, victim.image.with_name(victim.image.name.replace("image.npy", "json")))

    assert check_cases(cases, PAPER, SETTINGS, folder, workers=1, progress=False) == checks
    said = f"{folder}: 1 of 3 prepared cases found damaged, such as case_1-"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(said)
    assert line.endswith("; reading anew")
    assert {path: path.read_bytes() for path in folder.iterdir()} != contents

    assert prepare_cases(cases, PAPER, SETTINGS, folder, workers=1, progress=False) == (whole, checks)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(said)
    assert told in line
    assert line.endswith("; preparing anew")
    assert {path: path.read_bytes() for path in folder.iterdir()} == contents
    now = written(folder)
    assert all(now[path] == time for path, time in others.items() if not path.startswith("case_1-"))
    prepare_cases(cases, PAPER, SETTINGS, folder, workers=1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("room", [1000, 3000])  # for no file of a case; for all but the image
def test_a_full_disk_is_told_and_leaves_nothing_of_the_case(nnunet_root, tmp_path, room, workers):
    folder = tmp_path / "store"
    with room_for(room), pytest.raises(OSError, match="File too large") as failure:
        prepare_cases(nnunet_cases(nnunet_root)[:4], PAPER, SETTINGS, folder, workers=workers, progress=False)
    assert failure.value.errno == errno.EFBIG
    assert failure.value.filename.startswith(f"{folder}/case_")
    assert not list(folder.iterdir())
    assert (
        len(prepare_cases(nnunet_cases(nnunet_root)[:4], PAPER, SETTINGS, folder, workers=workers, progress=False)[0])
        == 4
    )


def test_prepare_ends_with_a_line_when_the_disk_is_full(nnunet_root, tmp_path):
    overrides = ["data=nnunet", f"data.root={nnunet_root}", "data.preparation.factor=1", f"cache={tmp_path}"]
    words = [sys.executable, "-m", "lightning_dice.prepare", *overrides]
    with room_for(20_000):
        result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line and "case/s]" not in line]
    assert line.startswith(f"error: {tmp_path}/prepared/nnunet/case_")
    assert line.endswith("image.npy: File too large; allow writing there, make room, or give another folder")
    assert not list((tmp_path / "prepared" / "nnunet").iterdir())


@pytest.mark.parametrize(("name", "room"), [("integrity.csv", 10), ("card.png", 10_000), ("card.html", 30_000)])
def test_what_stands_beside_the_cases_needs_room_too(nnunet_root, tmp_path, name, room, capsys):
    config = composed("prepare", tmp_path, "data=nnunet", f"data.root={nnunet_root}")
    prepare(config)
    folder = tmp_path / "cache" / "prepared" / "nnunet"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with room_for(room), pytest.raises(OSError, match="File too large") as failure:
        prepare(config)
    assert (failure.value.errno, failure.value.filename) == (errno.EFBIG, str(folder / name))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_tables_and_pages_of_the_store_are_written_anew_whatever_stands_there(nnunet_root, tmp_path):
    config = composed("prepare", tmp_path, "data=nnunet", f"data.root={nnunet_root}")
    prepare(config)
    folder = tmp_path / "cache" / "prepared" / "nnunet"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for number, name in enumerate(("integrity.csv", "card.md", "card.html")):
        (folder / name).write_bytes(b"\xff\x00"[:number])
    prepare(config)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_what_a_killed_preparation_left_is_removed(nnunet_root, tmp_path):
    leftovers = [tmp_path / f".12-case_0-abc.{ending}" for ending in ("image.npy", "label.npy", "json")]
    for path in leftovers:
        path.write_bytes(b"half")
    prepare_cases(nnunet_cases(nnunet_root)[:1], PAPER, SETTINGS, tmp_path, progress=False)
    assert not any(path.exists() for path in leftovers)
    assert len(written(tmp_path)) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_all_bad_cases_are_told_at_once_and_the_good_ones_kept(tmp_path, workers):
    root, store = write_nnunet(tmp_path / "data", 4), tmp_path / "store"
    (root / "imagesTr" / "case_0_0000.nii.gz").write_bytes(b"")
    write_nifti(root / "labelsTr" / "case_2.nii.gz", np.full((24, 20, 28), 77, np.uint8))
    prepared, checks = prepare_cases(nnunet_cases(root), PAPER, SETTINGS, store, workers=workers)
    assert [case.id for case in prepared] == ["case_1", "case_3"]
    errors = [finding for one in checks for finding in one.findings if finding.level == "error"]
    assert [(error.case, error.check) for error in errors] == [("case_0", "file"), ("case_2", "label values")]
    assert sorted(name.partition("-")[0] for name in written(store)) == ["case_1"] * 3 + ["case_3"] * 3


def test_the_fingerprint_is_the_datas_own(nnunet_root, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(nnunet_root, moved)
    for path in moved.rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    here, _ = prepare_cases(nnunet_cases(nnunet_root), PAPER, SETTINGS, tmp_path / "a", workers=1)
    there, _ = prepare_cases(nnunet_cases(moved), PAPER, SETTINGS, tmp_path / "b", workers=1)
    assert fingerprint(here) == fingerprint(there) == fingerprint(here[::-1])
    assert fingerprint(here) != fingerprint(here[1:])
    assert fingerprint(here) != fingerprint([dataclasses.replace(here[0], sha256="0"), *here[1:]])
