"""README's commands run, word by word but for the scale and the folders that the reader is to fill in."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightning_dice.config import plain
from lightning_dice.naming import run_folder
from tests.conftest import NAMES, tiny_case, write_nifti, write_nnunet
from tests.ct_series import write_series
from tests.test_config import composed

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
JOINED = README.replace("\\\n", " ")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", JOINED, re.DOTALL) for line in block.splitlines()]
# The scale of the tests, for what would take minutes or hours.
SMALL = ["experiment=smoke", "data.preparation.factor=null", "data.preparation.spacing_mm=3", "data.patch_size=16"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder to work in, with the reader's data sets."""
    folder = tmp_path_factory.mktemp("desk")
    write_nnunet(folder / "DATASET", 6)
    description = json.loads((folder / "DATASET" / "dataset.json").read_text())
    description["labels"] |= {"kidney_left": 6, "kidney_right": 7}  # in place of gallbladder and pancreas
    del description["labels"]["gallbladder"], description["labels"]["pancreas"]
    (folder / "DATASET" / "dataset.json").write_text(json.dumps(description))
    hu, label = tiny_case(0)
    write_nifti(folder / "SCAN.nii.gz", hu)
    write_series(folder / "DICOM", hu)
    write_nifti(folder / "DATASET" / "scans" / "a.nii.gz", hu)
    write_nifti(folder / "DATASET" / "truth" / "a.nii.gz", np.where(np.isin(label, (3, 7)), label, 0).astype(np.uint8))
    write_nifti(folder / "TOTALSEGMENTATOR" / "s0000" / "ct.nii.gz", hu)
    for index, mask in enumerate(("aorta", "portal_vein_and_splenic_vein", *NAMES[3:]), start=1):
        path = folder / "TOTALSEGMENTATOR" / "s0000" / "segmentations" / f"{mask}.nii.gz"
        write_nifti(path, (label == index).astype(np.uint8))
    return folder


def scaled(command: str) -> list[str]:
    """The command at the tests' scale: the smoke experiment in place of any other."""
    words = [re.sub("/(demo|paper)\\b", "/smoke", word) for word in shlex.split(command)]
    words = [re.sub(r"^(data\.fold=0,1),.*", r"\1", word) for word in words]  # two folds tell
    if words[2] not in ("lightning_dice.train", "lightning_dice.benchmark"):
        return words
    words = [word for word in words if not word.startswith("experiment=")]
    return [*words, *(SMALL if "data=nnunet" in words else SMALL[:1])]


def test_the_commands_of_readme_run_one_after_the_other(desk):
    python = [shlex.join(shlex.split(command)) for command in COMMANDS if command.startswith("python -m ")]
    assert len(python) == 22
    # What the evaluation needs is the demo's run, which README gets from `make demo`.
    demo = "python -m lightning_dice.train experiment=demo loss=simple optim.lr=0.01"
    environment = os.environ | {"LIGHTNING_DICE_CACHE": str(desk / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    for command in (demo, *python):
        words = scaled(command)
        asked = {"cwd": desk, "env": environment, "capture_output": True, "text": True, "timeout": 200}
        result = subprocess.run([sys.executable, *words[1:]], **asked)
        assert result.returncode == 0, f"{command}\n{result.stderr[-3000:]}"
    runs = {str(path.parent.relative_to(desk / "runs")) for path in (desk / "runs").rglob("DONE")}
    grid = {f"phantom/smoke/loss={w},lr={lr},seed=0" for w in ("uniform", "simple", "square") for lr in (0.001, 0.01)}
    assert runs == grid | {
        "phantom/smoke/loss=square,lr=0.001,seed=2",
        *(f"phantom/smoke/loss=simple,lr=0.01,seed=0,data.fold={fold},data.folds=5" for fold in range(2)),
        "nnunet/smoke/loss=simple,lr=0.01,seed=0,data.patch_size=16,data.preparation.spacing_mm=3,labels=dataset",
        "nnunet/smoke/loss=uniform,lr=0.001,seed=0,data.patch_size=16,data.preparation.spacing_mm=3,labels=dataset,"
        "labels.classes=[liver,kidney(kidney_left+kidney_right)]",
    }
    evaluated = desk / "runs/phantom/smoke/loss=simple,lr=0.01,seed=0/evaluate"
    assert sorted(path.name for path in evaluated.iterdir()) == ["phantom,last", "totalsegmentator,last"]
    (together,) = (desk / "runs/phantom/smoke/evaluate").iterdir()
    assert together.name.startswith("phantom,last,combine=organs,runs=")
    assert (desk / "labels.nii.gz").is_file()  # of the first screen
    assert {path.name for path in (desk / "LABELS").iterdir()} == {
        "SCAN.nii.gz", "SCAN.png", "DICOM.nii.gz", "DICOM.seg.dcm", "volumes.csv", "findings.csv",
    }  # fmt: skip


def test_readme_names_the_targets_of_the_makefile():
    targets = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    listed = subprocess.run(["make", "help"], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert targets == {"demo", "test", "grid", "bench", "scale", "kill", "fuzz", "simulate", "study", "answer", "gpu"}
    assert targets <= {line.split()[0] for line in listed.stdout.splitlines()}


def test_readmes_python_runs(desk):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = (
        code.replace("/demo/", "/smoke/")
        + "assert recipe.labels.names[3] == 'liver'; assert label.shape == image.shape\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=desk, check=True, timeout=100)


def test_pictures_and_files_that_readme_shows_are_there():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)|src=\"([^\"]+)\"", README)
    assert len(links) >= 3
    assert all((Path(__file__).parents[1] / "".join(link)).is_file() for link in links)


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them: lower case, without punctuation, dashes for spaces."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


def test_links_into_pages_end_at_headings():
    github = Path(__file__).parents[1] / ".github"
    pages = {"README.md": README, "MEASURED.md": (github / "MEASURED.md").read_text(encoding="utf-8")}
    for name, text in pages.items():
        for page, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
            assert anchor in anchors(pages[Path(page or name).name])
    (contents,) = re.findall(r"^## Contents\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)
    listed = set(re.findall(r"\(#([^)]+)\)", contents))
    assert anchors("\n".join(re.findall(r"^## .*$", README, re.MULTILINE))) - {"contents"} <= listed


def test_the_table_of_swaps_names_all_that_is_shipped():
    (table,) = re.findall(r"### Swap\n\n(.*?)\n\n", README, re.DOTALL)
    rows = dict(re.findall(r"^\| `([\w.]+)=` \| (.*)$", table, re.MULTILINE))
    swaps = ["loss", "loss.weighting", "optim", "schedule", "network", "transform", "callbacks", "logger"]
    assert list(rows) == [*swaps, "init_from", "data.folds"]
    papers = {"uniform", "simple", "square", "adam", "constant", "unet3d", "unet3d_narrow", "unet3d_tiny", "none"}
    conf = Path(__file__).parents[1] / "conf"
    for group in ("loss", "optim", "schedule", "network", "transform", "callbacks", "logger"):
        shipped = {path.stem for path in (conf / group).glob("*.yaml")} - papers
        assert set(re.findall(r"`(\w+)`", rows[group].split(" | ")[0])) == shipped
    (typed, folder) = re.findall(r"`(loss=dice_ce[^`]+)`", README)
    assert run_folder(plain(composed("train", *typed.split()))).name == folder


def test_every_file_of_the_package_is_on_the_map_of_contributing():
    contributing = (Path(__file__).parents[1] / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"## Where things are.*?```\n(.*?)```", contributing, re.DOTALL)
    words = set(re.findall(r"\w+", text))
    package = Path(__file__).parents[1] / "lightning_dice"
    folders = {"layouts", "phantom", "pictures", "paper", "callbacks", "exports"}  # each named as a whole
    files = {path for path in package.rglob("*.py") if path.parent.name not in folders and path.name != "__init__.py"}
    assert {path.stem for path in files} | folders <= words
    conf = {path.name for path in (package.parent / "conf").iterdir() if path.is_dir()} - {"hydra", "report", "sweep"}
    assert conf <= words
