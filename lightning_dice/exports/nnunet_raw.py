"""A data set in nnU-Net's raw layout, which `data=nnunet` reads as well.

Format: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md.
"""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from lightning_dice.data.cases import Case
from lightning_dice.data.dataset import CTDataset
from lightning_dice.data.integrity import CaseCheck
from lightning_dice.data.labels import LabelSet
from lightning_dice.data.layouts.nnunet import CHANNEL, IGNORE
from lightning_dice.data.volumes import read_case
from lightning_dice.errors import InputError
from lightning_dice.files import atomic_folder
from lightning_dice.parallel import run_all

ENDING = ".nii.gz"


def write_nnunet_raw(data: CTDataset, folder: Path) -> str:
    """Write CTs and label maps on the scans' own grids: those for training and validation to `imagesTr` and
    `labelsTr`, those for testing to `imagesTs` and `labelsTs`, and `dataset.json`.

    Label values are the classes' places, without those that the data set does not annotate: nnU-Net would take them
    for background.

    Args:
        data: need not be set up; nothing is prepared.
        folder: absent or empty.

    Returns:
        A line that tells what was written.

    Raises:
        InputError: cases with errors, unless they are to be skipped, no case left to train on, or a class that nnU-Net
            would ignore.
    """
    cases = data.choose()
    labels = data.labels.select(data.taught[1:])
    if IGNORE in labels.names:
        raise InputError(f"{folder}: nnU-Net leaves out what is called {IGNORE}; name the class otherwise")
    tests = set(data.split.test)
    with atomic_folder(folder) as made:
        parts = {case.id: "Ts" if case.id in tests else "Tr" for case in cases}
        for part in sorted(set(parts.values()) | {"Tr"}):
            (made / f"images{part}").mkdir()
            (made / f"labels{part}").mkdir()
        checks = run_all(_write, [(case, labels, made, parts[case.id]) for case in cases], "writing")
        data.record(checks)
        for left_out in set(data.excluded) & set(parts):
            for file in _files(made, parts.pop(left_out), left_out):
                file.unlink(missing_ok=True)
        count = list(parts.values()).count("Tr")
        if not count:
            raise InputError(f"{data.root}: has no case to train on beside {len(parts)} for testing; lower data.test")
        description = {
            "name": data.name,
            "channel_names": {"0": "CT"},
            "labels": {name: index for index, name in enumerate(labels.names)},
            "numTraining": count,
            "file_ending": ENDING,
        }
        (made / "dataset.json").write_text(json.dumps(description, indent=4), encoding="utf-8")
    return f"nnU-Net's raw layout, {count} cases to train on, {len(parts) - count} for testing"


def _write(case: Case, labels: LabelSet, folder: Path, part: str) -> CaseCheck:
    """Read one case, and write it if it is sound."""
    scan, check = read_case(case, labels)
    if scan:
        for array, file in zip((scan.hu, scan.label), _files(folder, part, case.id), strict=True):
            nib.save(_on_grid(array, scan.affine), file)
    return check


def _files(folder: Path, part: str, case: str) -> tuple[Path, Path]:
    """Image and label map."""
    return folder / f"images{part}" / f"{case}{CHANNEL}{ENDING}", folder / f"labels{part}" / f"{case}{ENDING}"


def _on_grid(array: np.ndarray, affine: np.ndarray) -> Any:
    """With sform and qform, since readers differ in which they take."""
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, "scanner")
    image.set_qform(affine, "scanner")
    image.header.set_xyzt_units("mm")
    return image
