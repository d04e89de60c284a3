"""What the page's viewer shows: CT, truth and predictions of some cases, packed small, one case in memory at a time."""

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lightning_dice.paper.grid import Cell, first_few
from lightning_dice.paper.segmentations import picture, typical_case, worst_cases
from lightning_dice.pictures.slices import Pictured

MOST_PACKED = 8_000_000  # characters of packed volumes, after which no case is added
GREYS = 255


@dataclass
class Viewed:
    """What could be read of the cases that figures and page show.

    Attributes:
        cases: `case_data` of a typical case, the first, and of each cell's worst.
        typical: the typical case with each cell's prediction, by the cell's name.
        remarks: what is missing, a sentence each.
    """

    cases: dict[str, dict[str, Any]] = field(default_factory=dict)
    typical: dict[str, Pictured] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def read_viewed(cells: Sequence[Cell]) -> Viewed:
    """Typical and worst cases, each with the predictions of all cells that scored it."""
    typical = typical_case(cells)
    wanted = [*([typical] if typical else []), *(case for own in worst_cases(cells).values() for case in own)]
    scored = {cell.name: set(cell.scores["case"]) for cell in cells if cell.finished}
    viewed = Viewed()
    missing: dict[tuple[str, str], list[str]] = {}  # cases by cell and reason
    packed_size, asked, left_out = 0, 0, 0
    for case in dict.fromkeys(wanted):
        own = [cell for cell in cells if case in scored.get(cell.name, ())]
        asked += len(own)
        if packed_size > MOST_PACKED:
            left_out += len(own)
            continue
        pictures, reasons = _read_case(own, case)
        for name, reason in reasons.items():
            missing.setdefault((name, reason), []).append(case)
        if not pictures:
            continue
        viewed.cases[case] = case_data(pictures)
        packed_size += len(str(viewed.cases[case]))
        if case == typical:
            viewed.typical = pictures
    viewed.remarks += [f"{left_out} of {asked} predictions are not pictured, to keep the page small."] * (left_out > 0)
    viewed.remarks += [f"{name}: no picture of {first_few(own, ', ')} ({why})" for (name, why), own in missing.items()]
    return viewed


def case_data(by_cell: Mapping[str, Pictured]) -> dict[str, Any]:
    """A case for the page, with predictions by cell, all on one grid.

    Returns:
        `shape` (X, Y, Z); `spacing` in mm; `hu`, what the CT's lowest and highest value stand for; and packed volumes
        of bytes, slices from the feet, rows from the front, columns from the patient's right: `ct`, `truth` and
        `predictions`.
    """
    first = next(iter(by_cell.values()))
    assert first.truth is not None  # it is a test case's
    low, high = float(first.hu.min()), float(first.hu.max())
    ct = np.round((first.hu - low) * (GREYS / max(high - low, 1)))
    return {
        "shape": first.hu.shape,
        "spacing": first.spacing_mm,
        "hu": (low, max(high, low + 1)),
        "ct": _packed_volume(ct),
        "truth": _packed_volume(first.truth),
        "predictions": {name: _packed_volume(row.prediction) for name, row in by_cell.items()},
    }


def packed(content: bytes) -> str:
    """gzip in base64, which the page unpacks when it needs the content."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _packed_volume(volume: np.ndarray) -> str:
    """(X, Y, Z) in RAS+, as slices from the feet, rows from the front, columns from the patient's right."""
    slices = volume[::-1, ::-1].astype(np.uint8).transpose(2, 1, 0)  # (Z, Y, X)
    return packed(slices.tobytes())


def _read_case(cells: Sequence[Cell], case: str) -> tuple[dict[str, Pictured], dict[str, str]]:
    """Its predictions by cell, which share CT and truth, and why a cell has none."""
    pictures: dict[str, Pictured] = {}
    missing: dict[str, str] = {}
    for cell in cells:
        found = picture(cell, case)
        if isinstance(found, str):
            missing[cell.name] = found
            continue
        name, first = next(iter(pictures.items()), (cell.name, found))
        if (found.hu.shape, found.spacing_mm) != (first.hu.shape, first.spacing_mm):
            missing[cell.name] = f"on another grid than that of {name}"
        else:
            pictures[cell.name] = replace(found, hu=first.hu, truth=first.truth)
    return pictures, missing
