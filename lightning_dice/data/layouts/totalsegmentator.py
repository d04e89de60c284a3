"""TotalSegmentator v2: `s0000/ct.nii.gz` with binary masks `s0000/segmentations/NAME.nii.gz`, and `meta.csv`.

Data set: https://doi.org/10.5281/zenodo.6802613. The masks of our classes are read, all others are background.
"""

from pathlib import Path

import pandas as pd

from lightning_dice.data.cases import Case, LabelFile
from lightning_dice.data.seven import NAMES
from lightning_dice.errors import InputError

MASKS = {
    "aorta": "artery",
    "portal_vein_and_splenic_vein": "vein",
    "liver": "liver",
    "spleen": "spleen",
    "stomach": "stomach",
    "gallbladder": "gallbladder",
    "pancreas": "pancreas",
}


def totalsegmentator_cases(root: Path | str, split: bool = False) -> list[Case]:
    """List the subjects below `root`, by name. One without a mask of our classes is listed too.

    Args:
        split: take each subject's part from the column `split` of `meta.csv`.

    Raises:
        InputError: no `*/ct.nii.gz` below `root`, or with `split` a `meta.csv` that cannot be read.
    """
    root = Path(root)
    parts = _parts(root / "meta.csv") if split else {}
    cases, images = [], sorted(root.glob("*/ct.nii.gz"))
    foreign = _other_masks(images[0].parent / "segmentations") if images else ()
    for image in images:
        subject, masks = image.parent.name, image.parent / "segmentations"
        files = [LabelFile(masks / f"{mask}.nii.gz", ((0, 0), (1, NAMES.index(name)))) for mask, name in MASKS.items()]
        part = parts.get(subject, "not in meta.csv") if split else None
        cases.append(Case(subject, image, tuple(files), part, foreign))
    if not cases:
        raise InputError(f"{root}: no */ct.nii.gz in it; data.root must hold TotalSegmentator's subject folders")
    return cases


def _other_masks(folder: Path) -> tuple[str, ...]:
    """Names of the masks of one subject, which stands for all, that are not read."""
    return tuple(sorted({path.name.removesuffix(".nii.gz") for path in folder.glob("[!.]*.nii.gz")} - MASKS.keys()))


def _parts(path: Path) -> dict[str, str]:
    try:
        return pd.read_csv(path, sep=";", dtype=str).set_index("image_id")["split"].to_dict()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected columns image_id and split, separated by semicolons"
        ) from None
