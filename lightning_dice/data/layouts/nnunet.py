"""nnU-Net's raw layout: `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz` and `dataset.json`.

Format: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md. Labels are matched by name, in
any case, with blanks, hyphens or underscores.
"""

import json
import re
from pathlib import Path

from lightning_dice.data.cases import Case, LabelFile
from lightning_dice.data.scans import ENDINGS
from lightning_dice.data.seven import BACKGROUND, NAMES
from lightning_dice.errors import InputError

CHANNEL = "_0000"
SYNONYMS = {  # normalised names of other data sets → ours
    "aorta": "artery",
    "portal_vein": "vein",
    "portal_vein_and_splenic_vein": "vein",
    "portal_and_splenic_vein": "vein",
    "gall_bladder": "gallbladder",
}
IGNORE = "ignore"  # nnU-Net's name of a label that is no truth at all


def nnunet_cases(root: Path | str) -> list[Case]:
    """List the training cases below `root`, by name. One whose image or label is missing is listed too.

    Raises:
        InputError: no readable `dataset.json`, none of its labels ours by name, an ignore label, an ending that cannot
            be read, or no image at all.
    """
    root = Path(root)
    ids, foreign, ending = _read_dataset_json(root / "dataset.json")
    images = _cases_of(root / "imagesTr", CHANNEL + ending)
    labels = _cases_of(root / "labelsTr", ending)
    if not images:
        raise InputError(f"{root / 'imagesTr'}: no file CASE{CHANNEL}{ending} in it; expected nnU-Net's raw layout")
    return [
        Case(
            case,
            root / "imagesTr" / f"{case}{CHANNEL}{ending}",
            (LabelFile(root / "labelsTr" / f"{case}{ending}", ids),),
            foreign=foreign,
        )
        for case in sorted(images | labels)
    ]


def _cases_of(folder: Path, ending: str) -> set[str]:
    """Their ids; hidden files, such as half-written ones, are none of the data set's."""
    return {path.name[: -len(ending)] for path in folder.glob(f"*{ending}") if not path.name.startswith(".")}


def _read_dataset_json(path: Path) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...], str]:
    """The label map as (value in the files, our class), the names that are background in it, and the file ending."""
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
    meaning: dict[int, int] = {}
    for name, values in declared.items():
        for value in values:  # one in several regions, such as a tumour in its organ, is the organ's
            meaning[value] = _class_index(name) or meaning.get(value, BACKGROUND)
    if not any(meaning.values()):
        raise InputError(
            f"{path}: none of its labels ({', '.join(declared)}) is ours; expected some of {', '.join(NAMES[1:])}"
        )
    unknown = (name for name, values in declared.items() if any(value and not meaning[value] for value in values))
    return tuple(meaning.items()), tuple(unknown), ending


def _class_index(name: str) -> int:
    """Our class of a name; background if it is none of ours."""
    normal = re.sub(r"[\s_-]+", "_", name.strip().lower())
    normal = SYNONYMS.get(normal, normal)
    return NAMES.index(normal) if normal in NAMES else BACKGROUND
