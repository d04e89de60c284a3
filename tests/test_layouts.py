import json

import numpy as np
import pytest

from lightning_dice.data.labels import NAMES
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.layouts.totalsegmentator import MASKS, totalsegmentator_cases
from lightning_dice.errors import InputError
from tests.conftest import write_nifti, write_nnunet


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


def test_nnunet_names_all_files_without_a_partner(tmp_path):
    write_nnunet(tmp_path, 3)
    (tmp_path / "labelsTr" / "case_0.nii.gz").unlink()
    (tmp_path / "imagesTr" / "case_2_0000.nii.gz").unlink()
    with pytest.raises(InputError) as refusal:
        nnunet_cases(tmp_path)
    assert "2 files lack their partner" in str(refusal.value)
    assert "case_0_0000.nii.gz: no label" in str(refusal.value)
    assert "case_2.nii.gz: no image" in str(refusal.value)


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

    for subject in ("s0000", "s0001"):
        (tmp_path / subject / "segmentations" / "liver.nii.gz").unlink()
    with pytest.raises(InputError, match="2 masks are missing") as refusal:
        totalsegmentator_cases(tmp_path)
    assert str(tmp_path / "s0001" / "segmentations" / "liver.nii.gz") in str(refusal.value)


def test_totalsegmentator_refuses_a_folder_without_subjects(tmp_path):
    with pytest.raises(InputError, match=r"no \*/ct.nii.gz"):
        totalsegmentator_cases(tmp_path)
