import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pydicom
import pytest
from hydra import compose, initialize_config_dir

from lightning_dice.config import config_folder
from lightning_dice.data import store, volumes
from lightning_dice.data.cases import Split
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.data.integrity import (
    CaseCheck,
    Finding,
    check_copies,
    check_grid,
    content_hash,
    findings_table,
)
from lightning_dice.data.labels import LabelChoice
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.layouts.paired import paired_cases
from lightning_dice.data.phantom.dataset import phantom_cases
from lightning_dice.data.volumes import Preparation, read_case
from lightning_dice.errors import InputError
from lightning_dice.prepare import prepare
from lightning_dice.train import train
from tests.conftest import NAMES, PAPER, write_nifti
from tests.ct_series import write_series
from tests.damaged import AFFINE, DAMAGES, body, copy_case, write_damaged, write_sound

# What each damage is to give: level, check, and a piece of the line.
EXPECTED = {
    "truncated": [("error", "file", r"truncated_0000.nii.gz: cannot be read \(.*replace the file")],
    "truncated_label": [("error", "file", r"truncated_label.nii.gz: cannot be read \(.*replace the file")],
    "wrong_magic": [("error", "file", r"wrong_magic_0000.nii.gz: cannot be read \(")],
    "zero_bytes": [("error", "file", r"zero_bytes.nii.gz: cannot be read \(")],
    "text": [("error", "file", r"text_0000.nii.gz: cannot be read \(")],
    "missing_label": [("error", "missing", r"missing_label.nii.gz: no such file; expected an image with its labels")],
    "missing_image": [("error", "missing", r"missing_image_0000.nii.gz: no such file; expected an image")],
    "dangling_link": [("error", "missing", r"dangling_link_0000.nii.gz: is a link to no file; expected")],
    "four_d": [("error", "file", r"four_d_0000.nii.gz: has the shape \(30, 24, 20, 2\); expected a 3D volume")],
    "two_d": [("error", "file", r"two_d_0000.nii.gz: has the shape \(30, 24\); expected a 3D volume")],
    "colour": [("error", "file", r"colour_0000.nii.gz: its voxels are .*; expected one number each")],
    "not_finite": [("error", "voxels", r"not_finite_0000.nii.gz: 2 voxels are NaN or infinite; expected HU")],
    "eight_bit": [("error", "range", r"holds values from 0 to \d+; expected HU.* a picture of 8 bits")],
    "magnetic_resonance": [("error", "range", r"holds values from \d+ to 5\d\d; expected HU.* such as MR")],
    "unscaled": [("error", "range", r"holds values from 0 to 11\d\d; expected HU.* rescale intercept, such as -1024")],
    "unscaled_and_padded": [
        ("warning", "organ HU", r"its labelled liver has a median of 11\d\d HU; expected -50 to 300"),
        ("warning", "organ HU", r"its labelled spleen has a median of 11\d\d HU; expected -50 to 300"),
    ],
    "normalised": [("error", "range", r"holds values from -2.\d+ to 0.\d+; expected HU over at least 100")],
    "without_air": [("warning", "range", r"holds values from -180 to 1\d\d; expected air below -200 HU, unless")],
    "far_out": [("warning", "range", r"holds values from -32768 to 1\d\d; expected HU within -4096 and 32767")],
    "anisotropic": [("warning", "anisotropy", r"has voxels of 3 × 3 × 40 mm; expected a ratio up to 10")],
    "fractional": [("error", "label values", r"holds the label values \[0.5\]; expected only \[0, 1")],
    "undeclared": [("error", "label values", r"holds the label values \[42\]; expected only \[0, 1")],
    "other_shape": [("error", "shape", r"has the shape \(30, 24, 22\); expected its image's \(30, 24, 20\), resave")],
    "shifted_origin": [
        ("error", "origin", r"has its origin at \(0, 0, 1.5\) mm; expected its image's \(0, 0, 0\) mm, resave")
    ],
    "other_spacing": [
        ("error", "spacing", r"has voxels of 10 × 10 × 9.5 mm; expected its image's 10 × 10 × 10 mm, resave")
    ],
    "turned": [("error", "direction", r"has axes LAS, one of them turned by 180°; expected its image's axes LPS")],
    "everything_about_the_grid": [
        ("error", "shape", r"has the shape \(29, 24, 20\)"),
        ("error", "spacing", r"has voxels of 9 × 10 × 10 mm"),
        ("error", "origin", r"has its origin at \(5, 0, 0\) mm"),
        ("error", "direction", r"has axes RPS, one of them turned by 180°"),
    ],
    "empty": [("warning", "empty", r"empty.nii.gz: holds only background; expected an organ")],
    "other_label": [("warning", "duplicate label", r"other_label_0000.nii.gz: has the label voxels of a_sound_0")],
    "copied": [("warning", "duplicate image", r"copied_0000.nii.gz: has the image voxels of a_sound_0; expected")],
    "mirrored": [("warning", "left-right", r"its labelled liver is \d\d\d mm to the left of its spleen")],
    "tiny_liver": [("warning", "volume", r"its labelled liver has 24 mL; expected 120 to 3000 mL")],
    "scattered_liver": [("warning", "pieces", r"its labelled liver is in pieces, .* largest has 50% of it; expected")],
    "thin": [("warning", "extent", r"is 30 mm tall and has 30 × 24 × 3 voxels; expected at least 80 mm and 10 slices")],
}  # fmt: skip


def composed(command: str, *overrides: str):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose(command, list(overrides))


def module(root, folder, **settings) -> CTDataModule:
    settings = {"test": 0, "validation": 0, **settings}
    return CTDataModule("some", nnunet_cases, root, folder, Preparation(factor=1), LabelChoice(PAPER), **settings)


def findings_of(root, folder) -> list[Finding]:
    data = module(root, folder, on_error="skip")
    data.check()
    return data.findings


def matches(finding: Finding, case: str, expected: tuple[str, str, str]) -> bool:
    level, check, line = expected
    assert "\n" not in str(finding)
    assert str(finding).startswith(f"{case}: {finding.file}: ")
    return (finding.case, finding.level, finding.check) == (case, level, check) and bool(re.search(line, str(finding)))


def test_every_damage_is_expected():
    assert sorted(DAMAGES) == sorted(EXPECTED)


@pytest.fixture(scope="module")
def ruin(tmp_path_factory):
    """All damages in one data set."""
    return write_damaged(tmp_path_factory.mktemp("ruin"), list(DAMAGES))


@pytest.fixture(scope="module")
def found(ruin, tmp_path_factory) -> list[Finding]:
    return findings_of(ruin, tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_gives_its_own_lines_beside_all_others(found, name):
    own = [finding for finding in found if finding.case == name]
    assert len(own) == len(EXPECTED[name]), [str(finding) for finding in own]
    for finding, expected in zip(own, EXPECTED[name], strict=True):
        assert matches(finding, name, expected), str(finding)


def test_what_is_sound_beside_them_is_not_told(found):
    assert {finding.case for finding in found} == set(DAMAGES)


def test_sound_data_give_no_finding(tmp_path):
    assert findings_of(write_sound(tmp_path / "data", ["a", "żołądek 7", "b"]), tmp_path / "store") == []
    phantoms = store.check_cases(
        phantom_cases(tmp_path / "phantoms", 1), PAPER, Preparation(factor=1), tmp_path / "store"
    )
    assert [one.findings for one in phantoms] == [()]


def test_the_errors_end_the_command_and_nothing_is_prepared(ruin, tmp_path):
    environment = os.environ | {"LIGHTNING_DICE_CACHE": str(tmp_path / "cache")}
    words = [sys.executable, "-m", "lightning_dice.prepare", "data=nnunet", f"data.root={ruin}", "check=true"]
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    errors = [(name, line) for name, lines in EXPECTED.items() for line in lines if line[0] == "error"]
    cases = {name for name, _ in errors}
    assert f"error: {len(errors)} errors in {len(cases)} of {len(DAMAGES) + 2} cases" in result.stderr
    for _, (_, _, line) in errors:
        assert re.search(line, result.stderr)
    folder = tmp_path / "cache" / "prepared" / "nnunet"
    assert [path.name for path in folder.iterdir()] == ["integrity.csv"]
    table = pd.read_csv(folder / "integrity.csv", keep_default_na=False)
    assert list(table.columns) == ["case", "file", "level", "check", "value", "expected"]
    assert len(table) == sum(map(len, EXPECTED.values()))
    assert table["level"].is_monotonic_increasing  # errors first
    told = result.stdout.splitlines()
    for row in table.itertuples():  # the table on the terminal has them all
        assert any(line.split()[:2] == [row.level, row.case] and row.value in line for line in told), row


def test_the_command_goes_on_without_the_bad_cases_when_it_is_told_to(ruin, tmp_path):
    overrides = ("data=nnunet", f"data.root={ruin}", f"cache={tmp_path}")
    with pytest.raises(InputError, match=r"errors in \d+ of \d+ cases"):
        prepare(composed("prepare", *overrides))
    data = prepare(composed("prepare", *overrides, "data.on_error=skip"))
    bad = {name for name, lines in EXPECTED.items() if any(line[0] == "error" for line in lines)}
    assert set(data.excluded) == bad
    assert set(data.cases) == {"a_sound_0", "a_sound_1", *EXPECTED} - bad
    assert re.search(EXPECTED["four_d"][0][2], data.excluded["four_d"])
    stored = {path.name.rpartition("-")[0] for path in (tmp_path / "prepared" / "nnunet").glob("*-*")}
    assert stored == set(data.cases)
    assert not list((tmp_path / "prepared" / "nnunet").glob(".*"))  # no half of a file

    excluded = f"data.exclude=[{','.join(bad)}]"
    assert prepare(composed("prepare", *overrides, excluded)).excluded == dict.fromkeys(bad, "data.exclude")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"exclude": ["a", "q"]}, r"data.exclude=\['q'\]: no such case in .*; expected ids such as a"),
        ({"exclude": ["a", "b", "c"]}, "3 cases left out, such as a, leave none to train or test on"),
    ],
)
def test_what_cannot_be_excluded_is_told_in_one_line(tmp_path, setting, message):
    root = write_sound(tmp_path / "data", ["a", "b", "c"])
    with pytest.raises(InputError, match=message) as refusal:
        module(root, tmp_path / "store", **setting).setup()
    assert "\n" not in str(refusal.value)


def test_only_stop_and_skip_are_known(tmp_path):
    with pytest.raises(InputError, match="on_error=ignore: no such choice; expected one of stop, skip"):
        module(tmp_path, tmp_path, on_error="ignore")


def test_the_store_tells_again_what_it_found_and_reads_each_file_once(tmp_path, monkeypatch):
    root = write_damaged(tmp_path / "data", ["empty", "mirrored", "copied"])
    read = []
    original = volumes.read_scan
    monkeypatch.setattr(volumes, "read_scan", lambda path: read.append(path) or original(path))
    cases = nnunet_cases(root)
    _, first = store.prepare_cases(cases, PAPER, Preparation(factor=2), tmp_path / "store", workers=1)
    assert sorted(read) == sorted(path for case in cases for path in (case.image, case.labels[0].path))
    _, second = store.prepare_cases(cases, PAPER, Preparation(factor=2), tmp_path / "store", workers=1)
    third = store.check_cases(cases, PAPER, Preparation(factor=2), tmp_path / "store", workers=1)
    assert first == second == third
    assert [len(one.findings) for one in first] == [0, 0, 0, 1, 1]
    assert len(read) == 2 * len(cases)
    assert store.check_cases(cases, PAPER, Preparation(factor=1), tmp_path / "store", workers=2) == first


def test_a_patient_in_two_parts_of_the_split_is_an_error_and_stays_where_it_is_tested(tmp_path):
    ids = [f"p{number}" for number in range(10)]
    root = write_sound(tmp_path / "data", ids)
    shares = {"test": 0.2, "validation": 0.2}
    sound = module(root, tmp_path / "store", **shares)
    sound.setup()
    assert not sound.findings
    tested, trained = sound.split.test[0], sound.split.train[0]
    copy_case(root, tested, trained)
    with pytest.raises(InputError, match=f"{trained}: .* has the image voxels of {tested}, which is in test while"):
        module(root, tmp_path / "store", **shares).setup()
    data = module(root, tmp_path / "store", **shares, on_error="skip")
    data.setup()
    assert data.excluded.keys() == {trained}
    assert data.split == Split(sound.split.train[1:], sound.split.validation, sound.split.test)
    assert trained not in data.cases
    alone = module(root, tmp_path / "store", **shares, exclude=[tested])
    alone.setup()
    assert alone.split == Split(sound.split.train, sound.split.validation, sound.split.test[1:])


def test_a_run_records_what_was_left_out(tmp_path):
    root = write_sound(tmp_path / "data", [f"p{number}" for number in range(6)])
    (root / "labelsTr" / "p2.nii.gz").unlink()
    overrides = ["experiment=smoke", "data=nnunet", f"data.root={root}", f"cache={tmp_path}", "data.patch_size=16"]
    overrides += ["data.preparation.spacing_mm=10", f"output_dir={tmp_path}/runs", "trainer.max_steps=1"]
    overrides += ["trainer.accelerator=cpu", "data.num_workers=0", "data.exclude=[p1]", "data.on_error=skip"]
    run = train(composed("train", *overrides))
    excluded = json.loads(run.environment.read_text())["excluded"]
    assert excluded.keys() == {"p1", "p2"}
    assert excluded["p1"] == "data.exclude"
    assert "labelsTr/p2.nii.gz: no such file" in excluded["p2"]


def test_a_dicom_slice_that_is_cut_is_listed_with_all_else_before_training(tmp_path):
    """Scans as folders of DICOM: GDCM would fill the slice with voxels of the one before."""

    def on_the_labels_grid(z, one):
        one.PixelSpacing, one.ImagePositionPatient = [10, 10], [0, 0, 10 * z]

    for number, case in enumerate(("cut", "empty", "sound")):
        hu, label = body(number)
        files = write_series(tmp_path / "data" / "scans" / case, hu, change=on_the_labels_grid, intercept=-2000)
        if case == "cut":
            victim, one = files[7].name, pydicom.dcmread(files[7])
            one.PixelData = one.PixelData[:1000]
            one.save_as(files[7])
        write_nifti(tmp_path / "data" / "labels" / f"{case}.nii.gz", label * (case != "empty"), AFFINE)
    ids = {name: NAMES.index(name) for name in NAMES[1:]}
    cases = paired_cases(tmp_path / "data", "scans/*", "labels/*.nii.gz", ids, 7)
    outcome = {
        one.case: one for one in store.check_cases(cases, PAPER, Preparation(factor=1), tmp_path / "store", workers=1)
    }
    assert [finding.check for finding in outcome["empty"].findings] == ["empty"]
    assert not outcome["sound"].findings
    (cut,) = outcome["cut"].findings
    assert (cut.level, cut.check, cut.file) == ("error", "file", str(tmp_path / "data" / "scans" / "cut"))
    assert cut.value.startswith(f"{victim}: declares 30 × 24 pixels of 16 bits, 1440 bytes, and holds 1000; ")


def test_rounding_of_headers_is_no_difference_and_a_tilt_is_one(tmp_path):
    rounded = AFFINE + np.random.default_rng(0).uniform(-9e-4, 9e-4, (4, 4)) * np.array([1, 1, 1, 10])
    assert not list(check_grid("a", tmp_path, (3, 3, 3), rounded, (3, 3, 3), AFFINE))
    angle = np.deg2rad(0.5)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    (finding,) = check_grid("a", tmp_path, (3, 3, 3), tilt @ AFFINE, (3, 3, 3), AFFINE)
    assert (finding.check, finding.value) == ("direction", "has axes LPS, one of them turned by 0.5°")


def test_one_volume_has_one_hash_however_it_is_stored():
    hu = body(0)[0]
    same = {content_hash(array) for array in (hu, hu.astype(np.float64), np.asfortranarray(hu))}
    assert len(same) == 1
    changed = hu.copy()
    changed[0, 0, 0] += 1
    assert same.isdisjoint({content_hash(changed), content_hash(hu.reshape(24, 30, 20))})


def test_copies_are_told_once_and_nothing_is_compared_with_what_could_not_be_read():
    def one(case: str, image: str, label: str) -> CaseCheck:
        return CaseCheck(case, f"{case}.nii.gz", (), image, label)

    cases = [one("a", "1", "x"), one("b", "1", "x"), one("c", "2", "x"), one("d", "", ""), one("e", "", "")]
    together = check_copies(cases, Split(("a", "b", "c", "d", "e"), (), ()))
    assert [(f.case, f.level, f.check) for f in together] == [
        ("b", "warning", "duplicate image"),
        ("c", "warning", "duplicate label"),
    ]
    apart = check_copies(cases, Split(("a", "d"), ("b",), ("c", "e")))
    assert {f.case: (f.level, f.value) for f in apart} == {
        "a": ("error", "has the image voxels of b, which is in validation while this is in train"),
        "b": ("error", "has the label voxels of c, which is in test while this is in validation"),
    }


def test_reading_gives_the_case_on_its_own_grid(tmp_path):
    (case,) = nnunet_cases(write_sound(tmp_path, ["a"]))
    scan, check = read_case(case, PAPER)
    hu, label = body(0)
    assert np.array_equal(scan.hu, hu)
    assert np.array_equal(scan.label, label)
    assert np.array_equal(scan.affine, AFFINE)
    assert check == CaseCheck("a", str(case.image), (), content_hash(hu), content_hash(label))


def test_the_table_names_files_without_their_folders():
    table = findings_table([Finding("a", "far/away/a.nii.gz", "warning", "range", "holds values", "HU")])
    assert table.splitlines()[1].split() == ["warning", "a", "range", "a.nii.gz", "holds", "values"]
