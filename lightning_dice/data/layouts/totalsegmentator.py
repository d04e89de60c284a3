"""TotalSegmentator v2: `s0000/ct.nii.gz` with binary masks `s0000/segmentations/NAME.nii.gz`.

Data set: https://doi.org/10.5281/zenodo.6802613. The masks of our classes are read, all others are background.
"""

from pathlib import Path

from lightning_dice.data.cases import Case, LabelFile
from lightning_dice.data.labels import NAMES
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


def totalsegmentator_cases(root: Path | str) -> list[Case]:
    """List the subjects below `root`, by name. One without a mask of our classes is listed too.

    Raises:
        InputError: no `*/ct.nii.gz` below `root`.
    """
    root = Path(root)
    cases = []
    for image in sorted(root.glob("*/ct.nii.gz")):
        masks = image.parent / "segmentations"
        files = [LabelFile(masks / f"{mask}.nii.gz", ((0, 0), (1, NAMES.index(name)))) for mask, name in MASKS.items()]
        cases.append(Case(image.parent.name, image, tuple(files)))
    if not cases:
        raise InputError(f"{root}: no */ct.nii.gz in it; data.root must hold TotalSegmentator's subject folders")
    return cases
