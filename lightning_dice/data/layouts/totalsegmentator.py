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
    """List the subjects below `root`, by name.

    Raises:
        InputError: no `*/ct.nii.gz` below `root`, or a subject without one of the masks; all that miss are named.
    """
    root = Path(root)
    cases, missing = [], []
    for image in sorted(root.glob("*/ct.nii.gz")):
        files = []
        for mask, name in MASKS.items():
            path = image.parent / "segmentations" / f"{mask}.nii.gz"
            files.append(LabelFile(path, ((0, 0), (1, NAMES.index(name)))))
            if not path.is_file():
                missing.append(str(path))
        cases.append(Case(image.parent.name, image, tuple(files)))
    if not cases:
        raise InputError(f"{root}: no */ct.nii.gz in it; data.root must hold TotalSegmentator's subject folders")
    if missing:
        raise InputError(
            "\n".join([f"{root}: {len(missing)} masks are missing, add them or remove the subjects:", *missing])
        )
    return cases
