import json

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from lightning_dice.cli import config_folder
from lightning_dice.data.labels import NAMES
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.layouts.paired import paired_cases
from lightning_dice.data.layouts.totalsegmentator import MASKS, totalsegmentator_cases
from lightning_dice.errors import InputError
from lightning_dice.prepare import prepare
from tests.conftest import tiny_case, write_nifti, write_nnunet


def test_nnunet_pairs_images_and_labels(nnunet_root):
    cases = nnunet_cases(nnunet_root)
    assert [case.id for case in cases] == [f"case_{number}" for number in range(8)]
    assert cases[3].image == nnunet_root / "imagesTr" / "case_3_0000.nii.gz"
    assert cases[3].labels[0].path == nnunet_root / "labelsTr" / "case_3.nii.gz"


def test_nnunet_labels_are_matched_by_name_and_foreign_ones_are_background(tmp_path):
    write_nnunet(tmp_path, 1)
    labels = {"background": 0, "spleen": 1, "kidney": 2, "liver": 9}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    (case,) = nnunet_cases(tmp_path)
    assert dict(case.labels[0].ids) == {0: 0, 1: NAMES.index("spleen"), 2: 0, 9: NAMES.index("liver")}


def test_nnunet_lists_cases_without_a_partner_too(tmp_path):
    write_nnunet(tmp_path, 3)
    (tmp_path / "labelsTr" / "case_0.nii.gz").unlink()
    (tmp_path / "imagesTr" / "case_2_0000.nii.gz").unlink()
    cases = nnunet_cases(tmp_path)
    assert [case.id for case in cases] == ["case_0", "case_1", "case_2"]
    assert [case.image.is_file() for case in cases] == [True, True, False]
    assert [case.labels[0].path.is_file() for case in cases] == [False, True, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "dataset.json: no such file"),
        ("not json", "not nnU-Net's dataset.json"),
        ("{}", "not nnU-Net's dataset.json"),
        ('{"labels": {"background": 0, "kidney": 1}}', "none of its labels"),
        ('{"labels": {"background": 0, "liver": [1, 2]}}', "not nnU-Net's dataset.json"),
        ('{"labels": {"liver": 1}, "file_ending": ".png"}', "file_ending '.png' is not supported"),
        ('{"labels": {"liver": 1}}', "no file CASE_0000.nii.gz"),
    ],
)
def test_nnunet_refuses_what_is_not_its_layout(tmp_path, content, message):
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=message) as refusal:
        nnunet_cases(tmp_path)
    assert "\n" not in str(refusal.value)


def test_totalsegmentator_reads_the_masks_of_our_classes(tmp_path):
    for subject in ("s0001", "s0000"):
        write_nifti(tmp_path / subject / "ct.nii.gz", np.zeros((4, 4, 4), np.int16))
        for mask in (*MASKS, "heart"):
            write_nifti(tmp_path / subject / "segmentations" / f"{mask}.nii.gz", np.zeros((4, 4, 4), np.uint8))
    cases = totalsegmentator_cases(tmp_path)
    assert [case.id for case in cases] == ["s0000", "s0001"]
    painted = {file.path.name.removesuffix(".nii.gz"): NAMES[dict(file.ids)[1]] for file in cases[0].labels}
    assert painted == MASKS
    assert set(MASKS.values()) == set(NAMES[1:])

    (tmp_path / "s0000" / "segmentations" / "liver.nii.gz").unlink()
    assert totalsegmentator_cases(tmp_path) == cases


def test_totalsegmentator_refuses_a_folder_without_subjects(tmp_path):
    with pytest.raises(InputError, match=r"no \*/ct.nii.gz"):
        totalsegmentator_cases(tmp_path)


PAIRED = {"images": "img/img*.nii", "labels": "label/label*.nii", "highest": 13}
IDS = {name: 10 + index for index, name in enumerate(NAMES[1:], start=1)}


def test_pairs_are_found_by_what_stands_for_the_star(tmp_path):
    for name in ("img/img0002.nii", "label/label0002.nii", "img/img0001.nii", "label/label0001.nii", "img/.img3.nii"):
        write_nifti(tmp_path / name, np.zeros((4, 4, 4), np.uint8))
    cases = paired_cases(tmp_path, ids=IDS, **{**PAIRED, "highest": 17})
    assert [case.id for case in cases] == ["0001", "0002"]
    assert cases[0].image == tmp_path / "img/img0001.nii"
    (label,) = cases[0].labels
    assert label.path == tmp_path / "label/label0001.nii"
    assert dict(label.ids) == {value: max(0, value - 10) for value in range(18)}

    (tmp_path / "img/img0001.nii").unlink()
    (tmp_path / "label/label0002.nii").unlink()
    cases = paired_cases(tmp_path, ids=IDS, **PAIRED)
    assert [(case.id, case.image.is_file(), case.labels[0].path.is_file()) for case in cases] == [
        ("0001", False, True),
        ("0002", True, False),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "img/img1.nii"}, r"img/img1.nii: expected a pattern with one \*"),
        ({"images": "*/img*.nii"}, r"\*/img\*.nii: expected a pattern with one \*"),
        ({"ids": {"liver": 1}}, "ids of liver: expected a value for each of artery, vein"),
        ({}, r"img/img\*.nii: no such file"),
    ],
)
def test_patterns_and_ids_that_cannot_work_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        paired_cases(tmp_path, **(PAIRED | {"ids": IDS} | change))


@pytest.mark.parametrize(
    ("name", "image", "label", "ids"),
    [
        (
            "btcv",
            "RawData/Training/img/img{}.nii.gz",
            "RawData/Training/label/label{}.nii.gz",
            (0, 8, 10, 6, 1, 7, 4, 11),
        ),
        ("abdomenatlas", "BDMAP_{}/ct.nii.gz", "BDMAP_{}/combined_labels.nii.gz", (0, 1, 23, 5, 8, 9, 2, 6)),
    ],
)
def test_public_data_sets_are_prepared_with_the_known_counts(tmp_path, name, image, label, ids):
    """A tiny tree of each, with organs of other classes in it."""
    expected = np.zeros(len(NAMES), int)
    for number in range(3):
        hu, ours = tiny_case(number)
        values = np.array(ids, np.uint8)[ours]
        values[(ours == 0) & (hu > 0)] = 13  # some other organ
        write_nifti(tmp_path / image.format(f"000{number}"), hu)
        write_nifti(tmp_path / label.format(f"000{number}"), values)
        expected += np.bincount(ours.ravel(), minlength=len(NAMES))
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("prepare", [f"data={name}", f"data.root={tmp_path}", f"cache={tmp_path}/cache"])
    data = prepare(config)
    assert data.class_voxels == tuple(expected)
    assert len(data.cases) == 3
