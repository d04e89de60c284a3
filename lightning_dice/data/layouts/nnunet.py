"""nnU-Net's raw layout: `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz` and `dataset.json`.

Format: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md.
"""

import json
import re
from pathlib import Path

from lightning_dice.data.cases import Case, LabelFile
from lightning_dice.data.labels import BACKGROUND_NAME, normalized
from lightning_dice.data.scans import ENDINGS
from lightning_dice.errors import InputError

CHANNEL = "_0000"
ANY_CHANNEL = re.compile(r"_\d{4}$")
IGNORE = "ignore"  # nnU-Net's name of a label that is no truth at all


def nnunet_cases(root: Path | str) -> list[Case]:
    """List the training cases below `root`, by name. One whose image or label is missing is listed too.

    Other channels than the first are not read, and named in a line.

    Raises:
        InputError: no readable `dataset.json`, an ignore label, an ending that cannot be read, or no image at all.
    """
    root = Path(root)
    ids, ending = _read_dataset_json(root / "dataset.json")
    images = _cases_of(root / "imagesTr", CHANNEL + ending)
    labels = _cases_of(root / "labelsTr", ending)
    if not images:
        raise InputError(f"{root / 'imagesTr'}: no file CASE{CHANNEL}{ending} in it; expected nnU-Net's raw layout")
    channels = {found[0] for name in _cases_of(root / "imagesTr", ending) if (found := ANY_CHANNEL.search(name))}
    if others := sorted(channels - {CHANNEL}):
        print(
            f"{root / 'imagesTr'}: files CASE{', CASE'.join(others)} are not read: networks take one channel, {CHANNEL}"
        )
    return [
        Case(
            case,
            root / "imagesTr" / f"{case}{CHANNEL}{ending}",
            (LabelFile(root / "labelsTr" / f"{case}{ending}", ids),),
        )
        for case in sorted(images | labels)
    ]


def _cases_of(folder: Path, ending: str) -> set[str]:
    """Their ids; hidden files, such as half-written ones, are none of the data set's."""
    return {path.name[: -len(ending)] for path in folder.glob(f"*{ending}") if not path.name.startswith(".")}


def _read_dataset_json(path: Path) -> tuple[tuple[tuple[int, tuple[str, ...]], ...], str]:
    """The label map as for `LabelFile`, and the file ending."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        declared = {
            str(name): [int(value) for value in (values if isinstance(values, list) else [values])]
            for name, values in description["labels"].items()
        }
        ending = str(description.get("file_ending", ".nii.gz"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; data.root must hold nnU-Net's raw layout") from None
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{path}: not nnU-Net's dataset.json ({error!r}); expected labels as name: integer") from None
    if ending not in ENDINGS:
        raise InputError(f"{path}: file_ending {ending!r} is not supported; expected one of {', '.join(ENDINGS)}")
    if IGNORE in declared:
        raise InputError(f"{path}: has an ignore label, which is not supported; give these voxels a class")
    meaning: dict[int, tuple[str, ...]] = {}
    for name, values in declared.items():
        for value in values:
            own = normalized(name)
            meaning[value] = (*meaning.get(value, ()), *([own] if own != BACKGROUND_NAME else []))
    return tuple(meaning.items()), ending
