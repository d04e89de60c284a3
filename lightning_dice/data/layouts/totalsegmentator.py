"""TotalSegmentator v2: `s0000/ct.nii.gz` with binary masks `s0000/segmentations/NAME.nii.gz`, and `meta.csv`.

Data set: https://doi.org/10.5281/zenodo.6802613. Of the masks those are read that the classes of the run are made of.
"""

from pathlib import Path

import pandas as pd

from lightning_dice.data.cases import Case, LabelFile
from lightning_dice.data.labels import normalized
from lightning_dice.errors import InputError

FOLDER, MASK = "segmentations", ".nii.gz"


def totalsegmentator_cases(root: Path | str, split: bool = False) -> list[Case]:
    """List the subjects below `root`, by name, each with all masks that any of them has: one that lacks some is listed
    too, and its missing masks are errors if they are wanted.

    Args:
        split: take each subject's part from the column `split` of `meta.csv`.

    Raises:
        InputError: no `*/ct.nii.gz` below `root`, or with `split` a `meta.csv` that cannot be read.
    """
    root = Path(root)
    parts = _parts(root / "meta.csv") if split else {}
    images = sorted(root.glob("*/ct.nii.gz"))
    masks = sorted({path.name for image in images for path in (image.parent / FOLDER).glob(f"[!.]*{MASK}")})
    cases = []
    for image in images:
        subject = image.parent
        files = [
            LabelFile(subject / FOLDER / mask, ((0, ()), (1, (normalized(mask.removesuffix(MASK)),)))) for mask in masks
        ]
        part = parts.get(subject.name, "not in meta.csv") if split else None
        cases.append(Case(subject.name, image, tuple(files), part))
    if not cases:
        raise InputError(f"{root}: no */ct.nii.gz in it; data.root must hold TotalSegmentator's subject folders")
    return cases


def _parts(path: Path) -> dict[str, str]:
    try:
        return pd.read_csv(path, sep=";", dtype=str).set_index("image_id")["split"].to_dict()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected columns image_id and split, separated by semicolons"
        ) from None
