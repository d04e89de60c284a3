"""From a scan's file to a label map on its own grid."""

import dataclasses
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from torch import nn

from lightning_dice import members
from lightning_dice.config import config_folder
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from lightning_dice.inference import plan_slabs
from lightning_dice.module import SegmentationModule
from lightning_dice.network import UNet3D
from lightning_dice.predict import predict
from lightning_dice.recipe import Recipe
from tests.conftest import NAMES, PAPER, tiny_case, write_nifti
from tests.ct_series import write_series
from tests.damaged import AFFINE as LARGE_VOXELS
from tests.damaged import body
from tests.test_module import save_module

SPACING = (6.0, 6.0, 6.0)
PATCH = (8, 8, 8)
NETWORK = {"num_classes": 8, "base_channels": 4, "levels": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run whose network is untrained, and paints all eight classes."""
    torch.manual_seed(3)
    network = UNet3D(**NETWORK)
    network.train()
    for seed in range(20):  # the batch norms' statistics
        network(torch.from_numpy(tiny_case(seed)[0][None, None, ::2, ::2, ::2].astype(np.float32) / 1000 + 0.5))
    with torch.no_grad():
        image = torch.from_numpy(tiny_case(0)[0][None, None, ::2, ::2, ::2].astype(np.float32) / 1000 + 0.5)
        logits = network.eval()(image)
        network.classes.bias -= logits.mean(dim=(0, 2, 3, 4))
    folder = tmp_path_factory.mktemp("run")
    described = {"_target_": "lightning_dice.network.UNet3D", **NETWORK}
    recipe = Recipe(PAPER, Preparation(factor=None, spacing_mm=SPACING), SPACING, PATCH, described)
    save_module(folder / "checkpoints" / "last.ckpt", SegmentationModule(network, recipe))
    return folder


def predicted(run, scan, output, *overrides) -> pd.DataFrame:
    plain = ["precision=32-true", "accelerator=cpu"]
    asked = [f"run='{run}'", f"input='{scan}'", f"output='{output}'", *plain, *overrides]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return predict(compose("predict", asked))


def labels_of(path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def findings_of(output) -> pd.DataFrame:
    table = pd.read_csv(output / "findings.csv", dtype=str, keep_default_na=False)
    assert list(table) == ["case", "file", "level", "check", "value", "expected"]
    return table


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "ARI"])
@pytest.mark.parametrize("is_oblique", [False, True])
def test_the_label_map_lies_on_the_scans_own_grid(run, tmp_path, codes, is_oblique):
    """The same patient, stored in another order of voxels: the same labels, in that order."""
    hu, _ = tiny_case(0)
    affine = nib.affines.from_matvec(np.diag([3.0, 3, 3]), [-40, -30, 20])
    if is_oblique:
        affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.08, 0.1, -0.07)) @ affine
    ras = nib.Nifti1Image(hu, affine)
    order = nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, ("RAS", codes)))
    turned = ras.as_reoriented(order)
    for name, image in (("ras", ras), ("turned", turned)):
        nib.save(image, tmp_path / f"{name}.nii.gz")
        predicted(run, tmp_path / f"{name}.nii.gz", tmp_path / "out")
    written = nib.load(tmp_path / "out" / "turned.nii.gz")
    assert "".join(nib.aff2axcodes(written.affine)) == codes
    assert written.shape == turned.shape
    assert np.allclose(written.affine, nib.load(tmp_path / "turned.nii.gz").affine, atol=1e-6)
    one, other = (sitk.ReadImage(tmp_path / folder / "turned.nii.gz") for folder in (".", "out"))
    for grid in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(one, grid)(), getattr(other, grid)(), atol=1e-6)
    expected = nib.load(tmp_path / "out" / "ras.nii.gz").as_reoriented(order)
    assert len(np.unique(expected.dataobj)) > 3
    assert np.array_equal(written.dataobj, expected.dataobj)


def test_prediction_agrees_with_evaluation_where_the_grids_agree(run, tmp_path):
    """At the network's own voxel size both see the same image; without overlap they cut the same windows."""
    hu, _ = tiny_case(1)
    write_nifti(tmp_path / "a.nii.gz", hu, np.diag([*SPACING, 1]))
    predicted(run, tmp_path / "a.nii.gz", tmp_path / "out", "overlap=0", "probabilities=true")
    softmax = nib.load(tmp_path / "out" / "a.probabilities.nii.gz")
    assert softmax.shape == (*hu.shape, 8)
    assert np.allclose(softmax.get_fdata().sum(axis=3), 1, atol=1e-5)
    assert np.array_equal(softmax.get_fdata().argmax(axis=3), labels_of(tmp_path / "out" / "a.nii.gz"))


def test_a_dicom_series_gives_the_labels_of_the_same_scan_as_nifti(run, tmp_path):
    hu, _ = tiny_case(2)
    write_series(tmp_path / "series", hu)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    sitk.WriteImage(reader.Execute(), tmp_path / "same.nii.gz")
    for scan in ("series", "same.nii.gz"):
        predicted(run, tmp_path / scan, tmp_path / "out", "dicom_seg=" + str(scan == "series").lower())
    assert np.array_equal(labels_of(tmp_path / "out" / "series.nii.gz"), labels_of(tmp_path / "out" / "same.nii.gz"))
    assert (tmp_path / "out" / "series.seg.dcm").is_file()
    with pytest.raises(InputError, match=r"dicom_seg=true: .*same\.nii\.gz is no DICOM series"):
        predicted(run, tmp_path / "same.nii.gz", tmp_path / "out", "dicom_seg=true")


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_little_memory_changes_nothing_but_the_slabs(run, tmp_path, overlap):
    hu = np.random.default_rng(0).normal(0, 200, (20, 18, 90)).astype(np.int16)
    write_nifti(tmp_path / "long.nii.gz", hu)
    rows, peak = plan_slabs(hu.shape, 2, (2, 2, 2), 8, PATCH, overlap, 8.0)
    low = round(peak - 2e-4, 6)
    fewer, lower = plan_slabs(hu.shape, 2, (2, 2, 2), 8, PATCH, overlap, low)
    assert lower <= low
    assert fewer < rows
    scan = tmp_path / "long.nii.gz"
    for limit in (8.0, low):
        predicted(run, scan, tmp_path / str(limit), f"memory_limit_gb={limit}", f"overlap={overlap}")
    assert np.array_equal(*(labels_of(tmp_path / str(limit) / "long.nii.gz") for limit in (8.0, low)))


def test_a_limit_that_cannot_be_kept_is_refused(run, tmp_path):
    write_nifti(tmp_path / "a.nii.gz", tiny_case(0)[0])
    with pytest.raises(InputError, match=r"memory_limit_gb=1: this scan of 24 × 20 × 28 voxels takes at least 1\.2 GB"):
        predicted(run, tmp_path / "a.nii.gz", tmp_path / "out", "memory_limit_gb=1")
    assert not (tmp_path / "out").exists()


def test_keeping_all_probabilities_is_counted(tmp_path):
    asked = (512, 512, 1000), 2, (1, 1, 1), 8, (64, 64, 64), 0.5
    rows, peak = plan_slabs(*asked, 16.0)
    everything, whole = plan_slabs(*asked, 99.0, whole=True)
    assert rows < everything
    logits = 8 * 4 * 512 * 512 * 1000 / 1e9
    assert peak <= 16 < 2 * logits < whole
    with pytest.raises(InputError, match=r"memory_limit_gb=16\.0: this scan .* at least"):
        plan_slabs(*asked, 16.0, whole=True)


def test_volumes_are_voxels_times_their_size(run, tmp_path):
    write_nifti(tmp_path / "scans" / "a.nii.gz", tiny_case(0)[0], np.diag([-2.0, -2, 5, 1]))
    write_nifti(tmp_path / "scans" / "b.nii.gz", tiny_case(1)[0])
    table = predicted(run, tmp_path / "scans", tmp_path / "out")
    assert table["scan"].tolist() == ["a", "b"]
    predicted(run, tmp_path / "scans" / "a.nii.gz", tmp_path / "out", "overlap=0")  # goes into the same table
    written = pd.read_csv(tmp_path / "out" / "volumes.csv")
    assert sorted(written["scan"]) == ["a", "b"]
    assert list(written) == ["scan", *(f"{name}_ml" for name in NAMES[1:])]
    for name, millilitres in (("a", 0.020), ("b", 0.027)):
        counts = np.bincount(labels_of(tmp_path / "out" / f"{name}.nii.gz").ravel(), minlength=8)
        row = written.set_index("scan").loc[name]
        assert row.to_numpy() == pytest.approx(counts[1:] * millilitres, abs=1e-3)
        assert row.max() > 0


def test_one_bad_scan_does_not_keep_the_others_from_their_label_maps(run, tmp_path):
    write_nifti(tmp_path / "scans" / "a.nii.gz", tiny_case(0)[0])
    (tmp_path / "scans" / "b.nii.gz").write_bytes(b"no scan")
    holes = tiny_case(0)[0].astype(np.float32)
    holes[3, 4, 5] = np.nan
    write_nifti(tmp_path / "scans" / "c.nii.gz", holes)
    write_nifti(tmp_path / "scans" / "d.nii.gz", tiny_case(1)[0])
    write_nifti(tmp_path / "scans" / "e.nii.gz", np.arange(8**3).reshape(8, 8, 8).astype(np.uint8))
    with pytest.raises(InputError) as refusal:
        predicted(run, tmp_path / "scans", tmp_path / "out")
    lines = str(refusal.value).splitlines()
    assert len(lines) == 3
    assert "b.nii.gz: cannot be read" in lines[0]
    assert "c.nii.gz: 1 voxels are NaN or infinite" in lines[1]
    assert "e.nii.gz: holds values from 0 to 255; expected HU" in lines[2]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "a.nii.gz",
        "d.nii.gz",
        "volumes.csv",
        "findings.csv",
    }
    assert pd.read_csv(tmp_path / "out" / "volumes.csv")["scan"].tolist() == ["a", "d"]
    told = findings_of(tmp_path / "out")
    errors = told[told["level"] == "error"]
    assert errors["case"].tolist() == ["b", "c", "e"]
    assert errors["file"].tolist() == [str(tmp_path / "scans" / f"{name}.nii.gz") for name in "bce"]
    assert set(errors["check"]) == {"not predicted"}
    for value, line in zip(errors["value"], lines, strict=True):
        assert line.endswith(f".nii.gz: {value}")


@pytest.fixture
def painter(run, monkeypatch):
    """The run's network gives way to one that reads the classes from the HU that `painted` writes."""

    class Painter(nn.Module):
        def __init__(self):
            super().__init__()
            self.levels = nn.Parameter((10 + 20 * torch.arange(8.0) + 500) / 1000)

        def forward(self, image):
            logits = -((image - self.levels.view(1, -1, 1, 1, 1)) ** 2) * 1e6
            logits[:, 0] = torch.where(image[:, 0] < 0.5, 1.0, -1e6)
            return logits

    recipe = Recipe(PAPER, Preparation(factor=None, spacing_mm=10.0), (10.0,) * 3, PATCH, {})
    monkeypatch.setattr(members, "load_network", lambda checkpoint, trust: (Painter(), recipe))
    return run


def painted(label: np.ndarray) -> np.ndarray:
    """A body of air and fat, and organs of 30 to 150 HU, which tells its labels."""
    hu = np.where(label, 10 + 20 * label.astype(np.int16), -100).astype(np.int16)
    hu[:2] = -1000
    return hu


def test_a_prediction_that_is_not_as_organs_are_is_told(painter, tmp_path, capsys):
    """Mirrored, without an organ, in pieces; the label maps are written as ever, and of a sound one nothing is told."""
    label = body(0)[1]
    liver, gallbladder = NAMES.index("liver"), NAMES.index("gallbladder")
    scattered = label.copy()
    scattered[7:10][scattered[7:10] == liver] = 0
    labels = {
        "mirrored": label[::-1],
        "pieces": scattered,
        "sound": label,
        "without": np.where(label == gallbladder, 0, label).astype(np.uint8),
    }
    for name, one in labels.items():
        write_nifti(tmp_path / "scans" / f"{name}.nii.gz", painted(one), LARGE_VOXELS)
    predicted(painter, tmp_path / "scans", tmp_path / "out")
    for name, one in labels.items():
        assert np.array_equal(labels_of(tmp_path / "out" / f"{name}.nii.gz"), one)
    told = findings_of(tmp_path / "out")
    assert told[["case", "check"]].to_numpy().tolist() == [
        ["mirrored", "left-right"],
        ["pieces", "pieces"],
        ["without", "missing organ"],
    ]
    assert set(told["level"]) == {"warning"}
    assert told["file"].tolist() == [str(tmp_path / "out" / f"{name}.nii.gz") for name in told["case"]]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    rows = told.itertuples()
    assert said == [f"warning: {row.case}: {row.file}: {row.value}; expected {row.expected}" for row in rows]
    assert "its predicted liver is 1" in said[0]
    assert "see whether the scan is mirrored" in said[0]
    assert "has no predicted gallbladder" in said[2]


def test_findings_are_those_of_a_scans_last_prediction(painter, tmp_path):
    label = body(0)[1]
    write_nifti(tmp_path / "1.nii.gz", painted(label[::-1]), LARGE_VOXELS)  # a name that pandas would take for a number
    write_nifti(tmp_path / "2.nii.gz", painted(label[::-1]), LARGE_VOXELS)
    for name in "12":
        predicted(painter, tmp_path / f"{name}.nii.gz", tmp_path / "out")
    assert findings_of(tmp_path / "out")["case"].tolist() == ["1", "2"]
    write_nifti(tmp_path / "1.nii.gz", painted(label), LARGE_VOXELS)
    predicted(painter, tmp_path / "1.nii.gz", tmp_path / "out")
    assert findings_of(tmp_path / "out")["case"].tolist() == ["2"]
    write_nifti(tmp_path / "2.nii.gz", painted(label), LARGE_VOXELS)
    predicted(painter, tmp_path / "2.nii.gz", tmp_path / "out")
    assert findings_of(tmp_path / "out").empty
    assert pd.read_csv(tmp_path / "out" / "volumes.csv")["scan"].tolist() == [1, 2]


def test_a_network_of_few_organs_misses_no_others(painter, tmp_path, monkeypatch):
    network, recipe = members.load_network("last.ckpt", False)
    recipe = dataclasses.replace(recipe, labels=PAPER.select(["liver"]))
    network.levels = nn.Parameter(network.levels[[0, NAMES.index("liver")]].detach())
    monkeypatch.setattr(members, "load_network", lambda checkpoint, trust: (network, recipe))
    label = body(0)[1]
    write_nifti(tmp_path / "a.nii.gz", painted(np.where(label == 3, label, 0)), LARGE_VOXELS)
    predicted(painter, tmp_path / "a.nii.gz", tmp_path / "out")
    assert findings_of(tmp_path / "out").empty


@pytest.mark.parametrize("is_dicom", [False, True])
def test_a_few_slices_are_predicted_with_a_warning(run, tmp_path, capsys, is_dicom):
    hu = np.random.default_rng(0).normal(-300, 300, (24, 20, 3)).astype(np.int16).clip(-1024, 1000)
    scan = tmp_path / ("thin" if is_dicom else "thin.nii.gz")
    write_series(scan, hu) if is_dicom else write_nifti(scan, hu)
    predicted(run, scan, tmp_path / "out")
    height = "7.5" if is_dicom else "9"
    told = f"{scan}: is {height} mm tall and has 24 × 20 × 3 voxels; expected at least 80 mm and 10 slices"
    assert f"warning: thin: {told}" in capsys.readouterr().out
    assert (tmp_path / "out" / "thin.nii.gz").is_file()
    (one,) = findings_of(tmp_path / "out").query("check == 'extent'").itertuples()
    assert (one.case, one.file, one.level) == ("thin", str(scan), "warning")


def test_label_maps_never_replace_one_another_nor_a_scan(run, tmp_path):
    scans = tmp_path / "scans"
    write_nifti(scans / "a.nii.gz", tiny_case(0)[0])
    write_nifti(scans / "a.nii", tiny_case(1)[0])
    before = (scans / "a.nii.gz").read_bytes()
    with pytest.raises(InputError, match=r"a\.nii\.gz: has the name of .*a\.nii, .* rename one of them"):
        predicted(run, scans, tmp_path / "out")
    with pytest.raises(InputError, match=r"the label map would replace the scan .*a\.nii\.gz; give another folder"):
        predicted(run, scans / "a.nii.gz", scans)
    assert (scans / "a.nii.gz").read_bytes() == before


def test_an_output_that_is_a_file_is_refused_in_one_line(run, tmp_path):
    write_nifti(tmp_path / "a.nii.gz", tiny_case(0)[0])
    (tmp_path / "out").write_text("a file")
    arguments = [f"run={run}", f"input={tmp_path}/a.nii.gz", f"output={tmp_path}/out", "accelerator=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "lightning_dice.predict", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/out: File exists; ")
    assert "Traceback" not in done.stderr


def test_one_scans_label_map_may_have_a_name_of_its_own(run, tmp_path):
    write_nifti(tmp_path / "scans" / "a.nii.gz", tiny_case(0)[0])
    predicted(run, tmp_path / "scans" / "a.nii.gz", tmp_path / "out", "ending=.mha")
    for name in ("b.nii.gz", "b.mha"):
        predicted(run, tmp_path / "scans" / "a.nii.gz", tmp_path / "own" / name, "overlay=true")
    assert {path.name for path in (tmp_path / "own").iterdir()} == {"b.nii.gz", "b.mha", "b.png"}
    expected = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out" / "a.mha"))
    for name in ("b.nii.gz", "b.mha"):
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "own" / name)), expected)
    (tmp_path / "folder.nii.gz").mkdir()  # as they were made before
    predicted(run, tmp_path / "scans" / "a.nii.gz", tmp_path / "folder.nii.gz")
    assert (tmp_path / "folder.nii.gz" / "a.nii.gz").is_file()

    with pytest.raises(InputError, match=r"^ending=\.mha: output=.*b\.nii has another; leave one of both out$"):
        predicted(run, tmp_path / "scans", tmp_path / "new" / "b.nii", "ending=.mha")
    with pytest.raises(InputError, match=r"^output=.*: the label map would replace the scan"):
        predicted(run, tmp_path / "scans" / "a.nii.gz", tmp_path / "scans" / "a.nii.gz")
    write_nifti(tmp_path / "scans" / "c.nii.gz", tiny_case(1)[0])
    with pytest.raises(InputError, match=r"^output=.*b\.nii: is one label map, and input=.*scans holds 2 scans; "):
        predicted(run, tmp_path / "scans", tmp_path / "new" / "b.nii")
    assert not (tmp_path / "new").exists()


def test_a_checkpoints_file_stands_for_its_run(run, tmp_path):
    write_nifti(tmp_path / "a.nii.gz", tiny_case(0)[0])
    moved = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "mine.ckpt")
    for place, folder in ((run, "a"), (run / "checkpoints" / "last.ckpt", "b"), (moved, "c")):
        predicted(place, tmp_path / "a.nii.gz", tmp_path / folder)
    one, *others = (labels_of(tmp_path / folder / "a.nii.gz") for folder in "abc")
    assert all(np.array_equal(one, other) for other in others)
    with pytest.raises(InputError, match=r"^checkpoint=best: chooses in runs' folders, and run=.*mine\.ckpt is a "):
        predicted(moved, tmp_path / "a.nii.gz", tmp_path / "d", "checkpoint=best")
    with pytest.raises(InputError, match=r"nowhere\.ckpt: no such file; expected a checkpoint"):
        predicted(tmp_path / "nowhere.ckpt", tmp_path / "a.nii.gz", tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("ending", [".seg.nrrd", ".mha", ".nii"])
def test_other_formats_hold_the_same_labels(run, tmp_path, ending):
    write_nifti(tmp_path / "a.nii.gz", tiny_case(0)[0])
    for each in (ending, ".nii.gz"):
        predicted(run, tmp_path / "a.nii.gz", tmp_path / "out", f"ending={each}")
    arrays = [sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out" / f"a{each}")) for each in (ending, ".nii.gz")]
    assert np.array_equal(*arrays)


def test_a_picture_shows_the_organs(run, tmp_path):
    write_nifti(tmp_path / "a.nii.gz", tiny_case(0)[0])
    predicted(run, tmp_path / "a.nii.gz", tmp_path / "out", "overlay=true", "mirror=true")
    pixels = np.asarray(Image.open(tmp_path / "out" / "a.png").convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ending=.png", r"ending=\.png: expected one of \.nii\.gz"),
        ("checkpoint=first", "checkpoint=first: expected last or best"),
        ("devices=2", r"devices=2: expected 1, or a GPU by its index such as \[0\]"),
        ("devices=[7]", r"devices=\[7\]: chooses a GPU by its index, and accelerator=cpu has none; leave it out"),
        ("overlap=1", r"overlap=1: expected a share"),
        ("series=1.2.3", r"series=1\.2\.3: chooses in a folder of DICOM"),
    ],
)
def test_settings_that_cannot_work_are_refused(run, tmp_path, override, message):
    write_nifti(tmp_path / "a.nii.gz", tiny_case(0)[0])
    with pytest.raises(InputError, match=message):
        predicted(run, tmp_path / "a.nii.gz", tmp_path / "out", override)
    assert not (tmp_path / "out").exists()
