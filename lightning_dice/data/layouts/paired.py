"""Data sets whose images and labels two patterns find; the label map of each is in its YAML, `conf/data/NAME.yaml`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_dice.data.cases import Case, LabelFile
from lightning_dice.data.labels import BACKGROUND, NAMES
from lightning_dice.errors import InputError

WILDCARD = re.compile(r"\*|\[[^\]]+\]")  # of a pattern: any text, or one character of several


def paired_cases(
    root: Path | str, images: str, labels: str, ids: Mapping[str, int | Sequence[int]], highest: int
) -> list[Case]:
    """List the cases below `root`, by name: what stands for the patterns' wildcards, which pairs image and label.

    Args:
        images: pattern such as `imagesTr/*_0000.nii.gz`, with wildcards `*` and `[...]`, which do not cross folders.
        labels: the same for the label maps.
        ids: our organs' values in the label maps, one or several each, for those that are annotated. Background is 0,
            and the other values up to `highest` are organs that count as background.
        highest: value that a label map may hold.

    Raises:
        InputError: a pattern without a wildcard, `ids` that are not of our organs, no case at all, or images and labels
            that do not pair up; all unpaired ones are named at once.
    """
    root = Path(root)
    if not ids or not set(ids) <= set(NAMES[1:]):
        raise InputError(f"ids of {', '.join(ids) or 'nothing'}: expected values of some of {', '.join(NAMES[1:])}")
    found_images, found_labels = _by_case(root, images), _by_case(root, labels)
    unpaired = [f"{path}: no label" for case, path in found_images.items() if case not in found_labels]
    unpaired += [f"{path}: no image" for case, path in found_labels.items() if case not in found_images]
    if unpaired:
        raise InputError(
            "\n".join([f"{root}: {len(unpaired)} files lack their partner, add or remove them:", *unpaired])
        )
    if not found_images:
        raise InputError(f"{root / images}: no such file; data.root must hold the data set's own folders")
    meaning = dict.fromkeys(range(highest + 1), BACKGROUND)
    for name, values in ids.items():
        meaning |= dict.fromkeys([values] if isinstance(values, int) else values, NAMES.index(name))
    label_map = tuple(meaning.items())
    return [Case(case, path, (LabelFile(found_labels[case], label_map),)) for case, path in found_images.items()]


def _by_case(root: Path, pattern: str) -> dict[str, Path]:
    """Files by what stands for the wildcards; hidden ones, such as half-written files, are none of the data set's."""
    wildcards = WILDCARD.findall(pattern)
    if not wildcards:
        raise InputError(f"{pattern}: expected a pattern with a *, which stands for the case")
    fixed = map(re.escape, WILDCARD.split(pattern))
    groups = [*("([^/]*)" if wildcard == "*" else f"({wildcard})" for wildcard in wildcards), ""]
    name = re.compile("".join(part + group for part, group in zip(fixed, groups, strict=True)))
    found = {}
    for path in sorted(root.glob(pattern)):
        place = path.relative_to(root)
        match = name.fullmatch(place.as_posix())
        if match and not any(part.startswith(".") for part in place.parts):
            found["".join(match.groups())] = path
    return found
