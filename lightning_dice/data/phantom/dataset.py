"""Phantoms as a data set in nnU-Net's raw layout: synthetic portal-venous abdominal CTs, drawn by seed and number."""

import gzip
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from filelock import FileLock
from tqdm import tqdm

from lightning_dice.data.cases import Case
from lightning_dice.data.labels import NAMES
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.phantom.anatomy import paint_anatomy
from lightning_dice.data.phantom.body import SPACING_MM, Body, draw_patient
from lightning_dice.errors import InputError
from lightning_dice.files import replacing

VERSION = 1  # raise it when the same seed and case give another phantom


@dataclass(frozen=True)
class Phantom:
    """A CT in HU, int16 (X, Y, Z) in RAS+, its class indices, uint8 of the same shape, and the affine (4, 4) in mm."""

    hu: np.ndarray
    labels: np.ndarray
    affine: np.ndarray


def make_phantom(seed: int, case: int) -> Phantom:
    """The phantom of this seed and case number; nothing else has an influence on it."""
    rng = np.random.default_rng((seed, case))
    body = Body(draw_patient(rng), rng)
    paint_anatomy(body)
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = [axis.flat[0] for axis in body.grid]
    return Phantom(body.scan(), body.labels, affine)


def write_phantoms(
    root: Path | str, cases: int, seed: int = 0, workers: int | None = None, progress: bool = True
) -> None:
    """Write `cases` phantoms in nnU-Net's raw layout, those that are not there yet.

    A case's label is written last, so a case with a label is complete, and an interrupted generation goes on where it
    stopped. The bytes depend on seed and case number alone.

    Raises:
        InputError: the folder holds another data set than the one asked for.
    """
    root = Path(root)
    if cases < 1:
        raise InputError(f"phantoms={cases}: expected at least one")
    description = {
        "name": "lightning_dice phantoms",
        "description": "synthetic portal-venous abdominal CTs",
        "channel_names": {"0": "CT"},
        "labels": {name: index for index, name in enumerate(NAMES)},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "generator": {"name": "lightning_dice.data.phantom", "version": VERSION, "seed": seed},
    }
    file = root / "dataset.json"
    if file.is_file():
        if json.loads(file.read_text()) != description:
            raise InputError(
                f"{file}: describes another data set than {cases} phantoms of version {VERSION} and seed {seed}; "
                "give data.root another folder, or remove this one"
            )
    else:
        with replacing(file) as path:
            path.write_text(json.dumps(description, indent=2))
    with FileLock(root.with_name(f".{root.name}.lock")):  # of several runs that start together one draws them
        _write_missing(root, cases, seed, workers, progress)


def _write_missing(root: Path, cases: int, seed: int, workers: int | None, progress: bool) -> None:
    missing = [case for case in range(cases) if not _label_path(root, case).is_file()]
    with tqdm(total=len(missing), desc="phantoms", unit="case", disable=not (progress and missing)) as bar:
        if len(missing) == 1 or workers == 1:
            for case in missing:
                _write(root, seed, case)
                bar.update()
        elif missing:
            with ProcessPoolExecutor(workers) as pool:
                for done in as_completed([pool.submit(_write, root, seed, case) for case in missing]):
                    done.result()
                    bar.update()


def phantom_cases(root: Path | str, cases: int, seed: int = 0) -> list[Case]:
    """A layout that makes its own data: write what is missing of the phantoms, and list them."""
    write_phantoms(root, cases, seed)
    return nnunet_cases(root)


def _write(root: Path, seed: int, case: int) -> None:
    phantom = make_phantom(seed, case)
    for array, path in (
        (phantom.hu, root / "imagesTr" / f"phantom_{case:04d}_0000.nii.gz"),
        (phantom.labels, _label_path(root, case)),
    ):
        image = nib.Nifti1Image(array, phantom.affine)
        image.header.set_xyzt_units("mm")
        with replacing(path) as temporary:  # gzip by hand: without the time of writing, and fast
            temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=2, mtime=0))


def _label_path(root: Path, case: int) -> Path:
    return root / "labelsTr" / f"phantom_{case:04d}.nii.gz"
