"""Data sets whose images and labels two patterns find; the label map of each is in its YAML, `conf/data/NAME.yaml`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_dice.data.cases import Case, LabelFile
from lightning_dice.data.labels import BACKGROUND, BACKGROUND_NAME, normalized
from lightning_dice.errors import InputError

WILDCARD = re.compile(r"\*|\[[^\]]+\]")  # of a pattern: any text, or one character of several


def paired_cases(
    root: Path | str, images: str, labels: str, ids: Mapping[str, int | Sequence[int]], highest: int = 0
) -> list[Case]:
    """List the cases below `root`, by name: what stands for the patterns' wildcards, which pairs image and label.

    A case whose image or label is missing is listed too.

    Args:
        images: pattern such as `imagesTr/*_0000.nii.gz`, with wildcards `*` and `[...]`, which do not cross folders.
        labels: the same for the label maps.
        ids: the structures' values in the label maps, one or several each; a value may be in several structures, such
            as a tumour in its organ. Background is 0.
        highest: value that a label map may hold; those up to it that `ids` does not name are background too.

    Raises:
        InputError: patterns without a wildcard or with different numbers of them, no `ids`, or no image at all.
    """
    root = Path(root)
    if not ids:
        raise InputError(
            "ids of nothing: expected the structures' values in the label maps, such as {liver: 3, spleen: 7}"
        )
    if not len(WILDCARD.findall(images)) == len(WILDCARD.findall(labels)) > 0:
        raise InputError(f"{images}, {labels}: expected a * for the case, and as many wildcards in both patterns")
    found_images, found_labels = _cases_of(root, images), _cases_of(root, labels)
    if not found_images:
        raise InputError(f"{root / images}: no such file; data.root must hold the data set's own folders")
    meaning: dict[int, tuple[str, ...]] = dict.fromkeys((BACKGROUND, *range(highest + 1)), ())
    for name, values in ids.items():
        for value in [values] if isinstance(values, int) else values:
            if normalized(name) != BACKGROUND_NAME:
                meaning[value] = (*meaning.get(value, ()), normalized(name))
    sizes = {normalized(name): 1 if isinstance(values, int) else len(values) for name, values in ids.items()}
    # In whatever order they are given, a tumour comes after the organ that it is in.
    structures = tuple((value, tuple(sorted(names, key=lambda name: -sizes[name]))) for value, names in meaning.items())
    return [
        Case("".join(case), _path(root, images, case), (LabelFile(_path(root, labels, case), structures),))
        for case in sorted(found_images | found_labels)
    ]


def _cases_of(root: Path, pattern: str) -> set[tuple[str, ...]]:
    """What stands for the wildcards; hidden files, such as half-written ones, are none of the data set's."""
    fixed = map(re.escape, WILDCARD.split(pattern))
    groups = [*("([^/]*)" if wildcard == "*" else f"({wildcard})" for wildcard in WILDCARD.findall(pattern)), ""]
    name = re.compile("".join(part + group for part, group in zip(fixed, groups, strict=True)))
    places = [path.relative_to(root) for path in root.glob(pattern)]
    seen = [place.as_posix() for place in places if not any(part.startswith(".") for part in place.parts)]
    return {match.groups() for match in map(name.fullmatch, seen) if match}


def _path(root: Path, pattern: str, case: Sequence[str]) -> Path:
    """The file that a case has, or should have."""
    texts = iter(case)
    return root / WILDCARD.sub(lambda _: next(texts), pattern)
