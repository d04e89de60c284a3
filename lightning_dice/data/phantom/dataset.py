"""Phantoms as a data set in nnU-Net's raw layout: synthetic portal-venous abdominal CTs, drawn by seed and number."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from lightning_dice.data.cases import Case
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.phantom.anatomy import paint_anatomy
from lightning_dice.data.phantom.body import SPACING_MM, Body, draw_patient
from lightning_dice.data.seven import NAMES
from lightning_dice.errors import InputError
from lightning_dice.files import atomic_write, locked, remove_leftovers
from lightning_dice.parallel import run_all

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

    An interrupted generation goes on where it stopped. The bytes depend on seed and case number alone.

    Raises:
        InputError: the folder holds another data set than the one asked for, or a damaged `dataset.json`.
    """
    root = Path(root)
    if cases < 1:
        raise InputError(f"phantoms={cases}: expected at least one")
    with locked(root):  # of several runs that start together one draws them
        _describe(root / "dataset.json", cases, seed)
        missing = [(root, seed, case) for case in range(cases) if not all(p.is_file() for p in _paths(root, case))]
        try:
            run_all(_write, missing, "phantoms", workers, progress)
        finally:
            for folder in ("imagesTr", "labelsTr"):
                remove_leftovers(root / folder, (".nii.gz",))


def _describe(file: Path, cases: int, seed: int) -> None:
    """Write the description of a new data set, or see that it is the one which is there."""
    description = {
        "name": "lightning_dice phantoms",
        "description": "synthetic portal-venous abdominal CTs",
        "channel_names": {"0": "CT"},
        "labels": {name: index for index, name in enumerate(NAMES)},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "generator": {"name": "lightning_dice.data.phantom", "version": VERSION, "seed": seed},
    }
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        with atomic_write(file) as path:
            path.write_text(json.dumps(description, indent=2))
        return
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file}: cannot be read ({error}); remove its folder, and the phantoms are drawn anew, or give data.root "
            "another one"
        ) from None
    if found != description:
        raise InputError(
            f"{file}: describes another data set than {cases} phantoms of version {VERSION} and seed {seed}; "
            "give data.root another folder, or remove this one"
        )


def phantom_cases(root: Path | str, cases: int, seed: int = 0) -> list[Case]:
    """A layout that makes its own data: write what is missing of the phantoms, and list them."""
    write_phantoms(root, cases, seed)
    return nnunet_cases(root)


def _write(root: Path, seed: int, case: int) -> None:
    """Both files before one gets its name."""
    phantom, (image, label) = make_phantom(seed, case), _paths(root, case)
    with atomic_write(label) as path:
        _write_nifti(path, phantom.labels, phantom.affine)
        with atomic_write(image) as path:
            _write_nifti(path, phantom.hu, phantom.affine)


def _write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    # gzip by hand: without the time of writing, and fast
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=2, mtime=0))


def _paths(root: Path, case: int) -> tuple[Path, Path]:
    """Of image and label."""
    return root / "imagesTr" / f"phantom_{case:04d}_0000.nii.gz", root / "labelsTr" / f"phantom_{case:04d}.nii.gz"
