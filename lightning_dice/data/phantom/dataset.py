"""Phantoms as a data set in nnU-Net's raw layout: synthetic portal-venous abdominal CTs, drawn by seed and number."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from lightning_dice.data.cases import Case
from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.data.phantom.anatomy import paint_anatomy
from lightning_dice.data.phantom.body import SPACING_MM, Body, draw_patient
from lightning_dice.data.phantom.structures import LIVER, STRUCTURES
from lightning_dice.data.phantom.tumours import LIVER_TUMOUR, paint_tumours
from lightning_dice.errors import InputError
from lightning_dice.files import atomic_write, locked, remove_leftovers
from lightning_dice.parallel import run_all

VERSION = 3  # raise it when the same seed and case give another phantom
TUMOURS = 1  # what the seed of their random stream ends in


@dataclass(frozen=True)
class Phantom:
    """A CT in HU, int16 (X, Y, Z) in RAS+, its label values, uint8 of the same shape, and the affine (4, 4) in mm."""

    hu: np.ndarray
    labels: np.ndarray
    affine: np.ndarray


def make_phantom(seed: int, case: int, tumours: bool = False) -> Phantom:
    """The phantom of this seed and case number; nothing else has an influence on it, and with tumours it differs in
    their voxels alone."""
    rng = np.random.default_rng((seed, case))
    body = Body(draw_patient(rng), rng)
    paint_anatomy(body)
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = [axis.flat[0] for axis in body.grid]
    hu = body.scan()
    if tumours:
        paint_tumours(body, hu, np.random.default_rng((seed, case, TUMOURS)))
    return Phantom(hu, body.labels, affine)


def write_phantoms(
    root: Path | str,
    cases: int,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    tumours: bool = False,
) -> None:
    """Write `cases` phantoms in nnU-Net's raw layout, those that are not there yet.

    An interrupted generation goes on where it stopped. The bytes depend on seed, case number and `tumours` alone.

    Raises:
        InputError: the folder holds another data set than the one asked for, such as an earlier version's, or a damaged
            `dataset.json`.
    """
    root = Path(root)
    if cases < 1:
        raise InputError(f"phantoms={cases}: expected at least one")
    with locked(root):  # of several runs that start together one draws them
        _describe(root, cases, seed, tumours)
        cases_left = [case for case in range(cases) if not all(path.is_file() for path in _paths(root, case))]
        missing = [(root, seed, case, tumours) for case in cases_left]
        try:
            run_all(_write, missing, "phantoms", workers, progress)
        finally:
            for folder in ("imagesTr", "labelsTr"):
                remove_leftovers(root / folder, (".nii.gz",))


def _describe(root: Path, cases: int, seed: int, tumours: bool) -> None:
    """Write the description of a new data set, or see that it is the one which is there."""
    file = root / "dataset.json"
    labels: dict[str, int | list[int]] = {name: value for value, name in enumerate(STRUCTURES)}
    if tumours:  # nnU-Net's regions: a tumour is liver, too, for a network that has no class for it
        labels |= {"liver": [LIVER, LIVER_TUMOUR], "liver_tumour": LIVER_TUMOUR}
    description = {
        "name": "lightning_dice phantoms",
        "description": "synthetic portal-venous abdominal CTs",
        "channel_names": {"0": "CT"},
        "labels": labels,
        **({"regions_class_order": list(range(1, len(labels)))} if tumours else {}),
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "generator": {"name": "lightning_dice.data.phantom", "version": VERSION, "seed": seed},
    }
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        _save(file, description)
        return
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file}: cannot be read ({error}); remove its folder, and the phantoms are drawn anew, or give data.root "
            "another one"
        ) from None
    if found != description:
        kind = "with" if tumours else "without"
        raise InputError(
            f"{file}: describes another data set than {cases} phantoms {kind} tumours, of version {VERSION} and seed "
            f"{seed}; give data.root another folder, or remove this one"
        )


def _save(file: Path, description: dict[str, Any]) -> None:
    with atomic_write(file) as path:
        path.write_text(json.dumps(description, indent=2))


def phantom_cases(root: Path | str, cases: int, seed: int = 0, tumours: bool = False) -> list[Case]:
    """A layout that makes its own data: write what is missing of the phantoms, and list them."""
    write_phantoms(root, cases, seed, tumours=tumours)
    return nnunet_cases(root)


def _write(root: Path, seed: int, case: int, tumours: bool) -> None:
    """Both files before one gets its name."""
    phantom, (image, label) = make_phantom(seed, case, tumours), _paths(root, case)
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
