"""A data set of any layout in nnU-Net's raw one: nnU-Net accepts it, and our own reader finds the same labels."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lightning_dice.build import build_datamodule
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.volumes import read_case
from lightning_dice.errors import InputError
from lightning_dice.export import export
from tests.conftest import AFFINE, tiny_case, write_nifti
from tests.test_config import composed

PAIRED = [
    "data=files", "data.name=mine", "data.layout.images='scans/*.mha'", "data.layout.labels='truth/*.mha'",
    "data.layout.ids={kidney_left:3,liver:[7,9],kidney_right:5}", "data.layout.highest=12", "labels=dataset",
    "'labels.classes=[liver,{kidney:[kidney_left,kidney_right]}]'".strip("'"),
]  # fmt: skip


@pytest.fixture
def mine(tmp_path):
    """Six oblique CTs of MetaImage with labels of other values."""
    root = tmp_path / "mine"
    for number in range(6):
        hu, label = tiny_case(number, (17, 20, 23))
        values = np.array([0, 3, 7, 5, 9, 12, 1, 2], np.uint8)[label]
        for folder, array in (("scans", hu), ("truth", values)):
            image = sitk.GetImageFromArray(array.T)
            image.SetSpacing((0.8, 0.9, 2.5))
            image.SetOrigin((-11.5, 40, 3))
            image.SetDirection(nib.eulerangles.euler2mat(0.1, 0.2, -0.3).ravel().tolist())
            (root / folder).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, root / folder / f"patient{number}.mha")
    return root


def raw_of(root, output, *overrides):
    words = ["format=nnunet_raw", f"data.root='{root}'", f"output='{output}'", f"cache='{root}/cache'", *overrides]
    return export(composed("export", *words))


def files_of(folder):
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.fixture
def raw(mine, tmp_path):
    return raw_of(mine, tmp_path / "raw" / "Dataset042_mine", *PAIRED)


def test_files_and_description_are_as_nnunet_demands(raw, mine):
    """What `verify_dataset_integrity` of nnU-Net 2.8 looks at, by SimpleITK, which it reads with."""
    description = json.loads((raw / "dataset.json").read_text())
    assert description == {
        "name": "mine", "channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "kidney": 2},
        "numTraining": 5, "file_ending": ".nii.gz",
    }  # fmt: skip
    data = build_datamodule(composed("prepare", f"data.root='{mine}'", f"cache='{mine}/cache'", *PAIRED,
                                     "data.test=0.1", "data.validation=0.1"))  # fmt: skip
    data.setup()
    training = {*data.split.train, *data.split.validation}
    assert files_of(raw / "imagesTr") == {f"{case}_0000.nii.gz" for case in training}
    assert files_of(raw / "labelsTr") == {f"{case}.nii.gz" for case in training}
    assert files_of(raw / "imagesTs") == {f"{case}_0000.nii.gz" for case in data.split.test}
    assert files_of(raw / "labelsTs") == {f"{case}.nii.gz" for case in data.split.test}
    for part in ("Tr", "Ts"):
        for file in (raw / f"labels{part}").iterdir():
            case = file.name.removesuffix(".nii.gz")
            label, image = sitk.ReadImage(file), sitk.ReadImage(raw / f"images{part}" / f"{case}_0000.nii.gz")
            scan, truth = (sitk.ReadImage(mine / folder / f"{case}.mha") for folder in ("scans", "truth"))
            for one in (label, image):
                for grid in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
                    assert np.allclose(getattr(one, grid)(), getattr(scan, grid)(), atol=1e-5)
            assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(scan))
            classes = np.array([0, 0, 0, 2, 0, 2, 0, 1, 0, 1, 0, 0, 0])[sitk.GetArrayFromImage(truth)]
            assert np.array_equal(sitk.GetArrayFromImage(label), classes)


def test_our_own_reader_finds_the_same_labels(raw, mine):
    again = build_datamodule(composed("prepare", "data=nnunet", "labels=dataset", f"data.root='{raw}'"))
    cases = again.choose()
    assert again.labels.names == ("background", "liver", "kidney")
    assert len(cases) == 5
    before = build_datamodule(composed("prepare", f"data.root='{mine}'", *PAIRED))
    originals = {case.id: case for case in before.choose()}
    for case in cases:
        one, _ = read_case(case, again.labels)
        other, _ = read_case(originals[case.id], before.labels)
        assert one.label.any()
        assert np.array_equal(one.label, other.label)
        assert np.array_equal(one.hu, other.hu)
        assert np.allclose(one.affine, other.affine, atol=1e-5)


def test_nnunet_verifies_it(raw):
    """No extra installs nnU-Net: it brings torchvision, which is broken beside a torch from another index."""
    module = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity")
    module.verify_dataset_integrity(str(raw), num_processes=1)


def test_a_class_that_is_not_annotated_is_no_background_of_nnunets(nnunet_root, tmp_path):
    description = json.loads((nnunet_root / "dataset.json").read_text())
    output = raw_of(nnunet_root, tmp_path / "raw", "data=nnunet", f"cache={tmp_path}", "labels=phantom_all",
                    "labels.outputs=all")  # fmt: skip
    written = json.loads((output / "dataset.json").read_text())["labels"]
    assert list(written.values()) == list(range(len(written)))
    assert 2 < len(written) <= len(description["labels"])


def test_a_damaged_case_stops_or_is_left_out(tmp_path):
    root = tmp_path / "set"
    for number in range(4):
        hu, label = tiny_case(number)
        write_nifti(root / "imagesTr" / f"c{number}_0000.nii.gz", hu)
        write_nifti(
            root / "labelsTr" / f"c{number}.nii.gz", label, AFFINE if number else AFFINE @ np.diag([2, 2, 2, 1])
        )
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": list(range(1, 8))}}))
    words = ["data=nnunet", "labels=dataset", "data.test=0"]
    with pytest.raises(InputError, match="c0"):
        raw_of(root, tmp_path / "raw", *words)
    assert {path.name for path in tmp_path.iterdir()} == {"set"}
    output = raw_of(root, tmp_path / "raw", *words, "data.on_error=skip")
    assert json.loads((output / "dataset.json").read_text())["numTraining"] == 3
    assert files_of(output / "imagesTr") == {f"c{number}_0000.nii.gz" for number in (1, 2, 3)}
    assert len(nnunet_cases(output)) == 3


def test_a_class_that_nnunet_would_leave_out_is_refused(mine, tmp_path):
    words = [*PAIRED[:4], "data.layout.ids={ignore:3,liver:7}", "data.layout.highest=12", "labels=dataset"]
    with pytest.raises(InputError, match="leaves out what is called ignore"):
        raw_of(mine, tmp_path / "raw", *words)
    assert not (tmp_path / "raw").exists()
