"""Data sets whose images and labels two patterns find; the label map of each is in its YAML, `conf/data/NAME.yaml`."""

from collections.abc import Mapping
from pathlib import Path

from lightning_dice.data.cases import Case, LabelFile
from lightning_dice.data.labels import BACKGROUND, NAMES
from lightning_dice.errors import InputError


def paired_cases(root: Path | str, images: str, labels: str, ids: Mapping[str, int], highest: int) -> list[Case]:
    """List the cases below `root`, by name: what stands for the pattern's star, which pairs image and label.

    A case whose image or label is missing is listed too.

    Args:
        images: pattern with one `*`, such as `imagesTr/*_0000.nii.gz`.
        labels: the same for the label maps.
        ids: our organs' values in the label maps, all seven; background is 0, the other values up to `highest` are
            organs that count as background.
        highest: value that a label map may hold.

    Raises:
        InputError: a pattern without exactly one star, `ids` that are not our seven organs, or no image at all.
    """
    root = Path(root)
    if sorted(ids) != sorted(NAMES[1:]):
        raise InputError(f"ids of {', '.join(ids)}: expected a value for each of {', '.join(NAMES[1:])}")
    found_images, found_labels = _stars_of(root, images), _stars_of(root, labels)
    if not found_images:
        raise InputError(f"{root / images}: no such file; data.root must hold the data set's own folders")
    ours = {value: NAMES.index(name) for name, value in ids.items()}
    meaning = tuple((value, ours.get(value, BACKGROUND)) for value in range(highest + 1))
    return [
        Case(case, root / images.replace("*", case), (LabelFile(root / labels.replace("*", case), meaning),))
        for case in sorted(found_images | found_labels)
    ]


def _stars_of(root: Path, pattern: str) -> set[str]:
    before, star, after = pattern.partition("*")
    if not star or "*" in after:
        raise InputError(f"{pattern}: expected a pattern with one *, which stands for the case")
    names = (path.relative_to(root).as_posix() for path in root.glob(pattern))
    cases = {name[len(before) : len(name) - len(after)] for name in names}
    return {case for case in cases if not case.startswith(".")}  # a half-written file
