"""The prepared copy of a data set: memory-mapped arrays, and what was counted and found while making them.

A case is three files, `ID-KEY.image.npy`, `ID-KEY.label.npy` and, written last, `ID-KEY.json`. The key is a hash of the
source files' paths, sizes and times, of the classes and of the settings: what changed is prepared anew, the rest is
found again, unless its files are not what they were written as.
"""

import dataclasses
import hashlib
import io
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lightning_dice.data.cases import Case
from lightning_dice.data.integrity import CaseCheck, Finding
from lightning_dice.data.labels import LabelSet
from lightning_dice.data.volumes import LabelledScan, Preparation, Volume, prepare_volume, read_case, spacing_mm, to_ras
from lightning_dice.files import atomic_write, locked, remove_leftovers
from lightning_dice.parallel import run_all

FORMAT = 4  # raise it when arrays or findings of the same files and settings change
IMAGE, LABEL = np.dtype(np.float16), np.dtype(np.uint8)


@dataclass(frozen=True)
class PreparedCase:
    """A case in the store.

    Attributes:
        image: `.npy` file, float16 (X, Y, Z) in [0, 1], RAS+.
        label: `.npy` file, uint8 (X, Y, Z), class indices.
        affine: rows of the (4, 4) matrix from voxels to mm.
        voxels: count of each class, background first.
        scan_shape: of the scan before it was prepared, along RAS axes.
        scan_spacing_mm: the same, of its voxels.
        sha256: of both arrays and the affine.
    """

    id: str
    image: Path
    label: Path
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    voxels: tuple[int, ...]
    scan_shape: tuple[int, int, int]
    scan_spacing_mm: tuple[float, float, float]
    sha256: str

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return spacing_mm(np.array(self.affine))


Outcome = tuple[CaseCheck, PreparedCase | None]  # what was found in a case, and what was made of it if it is sound
FIELDS = [field.name for kind in (PreparedCase, CaseCheck, Finding) for field in dataclasses.fields(kind)]


def prepare_cases(
    cases: Sequence[Case],
    labels: LabelSet,
    preparation: Preparation,
    folder: Path | str,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[list[PreparedCase], list[CaseCheck]]:
    """Bring the cases into the store, as far as they are not there yet, or not whole.

    Args:
        folder: of the store; made when missing.
        workers: processes; by default one per usable core.

    Returns:
        Those that are sound, in their order; and what was found in each of all, when it was prepared or now.
    """
    folder = Path(folder)
    with locked(folder):  # of several runs that start together one prepares, and the others find it all
        try:
            outcomes = _check_all(cases, labels, preparation, folder, workers, progress, prepare=True)
        finally:
            remove_leftovers(folder, (".npy", ".json"))
    return [prepared for _, prepared in outcomes if prepared], [check for check, _ in outcomes]


def check_cases(
    cases: Sequence[Case],
    labels: LabelSet,
    preparation: Preparation,
    folder: Path | str,
    workers: int | None = None,
    progress: bool = True,
) -> list[CaseCheck]:
    """What `prepare_cases` would find, without preparing anything; what is in the store is not read again."""
    outcomes = _check_all(cases, labels, preparation, Path(folder), workers, progress, prepare=False)
    return [check for check, _ in outcomes]


def fingerprint(cases: Sequence[PreparedCase]) -> str:
    """A hash of the prepared arrays of these cases: the same data give the same one on any machine, in any order."""
    return hashlib.sha256("".join(sorted(case.id + case.sha256 for case in cases)).encode()).hexdigest()[:16]


def _check_all(
    cases: Sequence[Case],
    labels: LabelSet,
    preparation: Preparation,
    folder: Path,
    workers: int | None,
    progress: bool,
    prepare: bool,
) -> list[Outcome]:
    settings = dataclasses.astuple(preparation), dataclasses.astuple(labels)
    stems = {case.id: folder / f"{case.id}-{_key(case, settings)}" for case in cases}
    known: dict[str, Outcome] = {}
    damages: list[str] = []
    for case, stem in stems.items():
        try:
            known[case] = _recorded(case, stem)
        except FileNotFoundError:
            continue
        except _Damage as damage:
            damages.append(str(damage))
    if damages:
        count = f"{len(damages)} of {len(known) + len(damages)} prepared cases found damaged"
        print(f"{folder}: {count}, such as {damages[0]}; {'preparing' if prepare else 'reading'} anew")
    tasks = [(case, labels, stems[case.id], preparation if prepare else None) for case in cases if case.id not in known]
    outcomes = run_all(_check, tasks, "preparing" if prepare else "checking", workers, progress)
    known |= {case.id: outcome for (case, *_), outcome in zip(tasks, outcomes, strict=True)}
    return [known[case.id] for case in cases]


def _check(case: Case, labels: LabelSet, stem: Path, preparation: Preparation | None) -> Outcome:
    """Read one case, and write it to the store if it is sound and to be prepared."""
    scan, check = read_case(case, labels)
    if scan is None or preparation is None:
        return check, None
    _write(scan, prepare_volume(scan, preparation), len(labels), check, stem)
    return _recorded(case.id, stem)


def _write(scan: LabelledScan, volume: Volume, classes: int, check: CaseCheck, stem: Path) -> None:
    digest = hashlib.sha256()
    for array in (volume.image, volume.label, volume.affine):
        digest.update(array.tobytes())
    turned, affine = to_ras(scan.label, scan.affine)
    record = {
        "shape": volume.label.shape,
        "affine": volume.affine.tolist(),
        "voxels": np.bincount(volume.label.ravel(), minlength=classes).tolist(),
        "scan_shape": turned.shape,
        "scan_spacing_mm": spacing_mm(affine),
        "sha256": digest.hexdigest(),
        "check": dataclasses.asdict(check),
    }
    with atomic_write(_path(stem, "json")) as path:
        path.write_text(json.dumps(record | {"crc32": _crc32(record)}))
        with atomic_write(_path(stem, "image.npy")) as path:
            _write_array(path, volume.image)
            with atomic_write(_path(stem, "label.npy")) as path:
                _write_array(path, volume.label)
        # All are written before the first gets its name, and the record gets it last.


def _write_array(path: Path, array: np.ndarray) -> None:
    """As `np.save`, whose error does not tell that the disk is full."""
    with open(path, "wb") as file:
        file.write(npy_header(array.shape, array.dtype))
        file.write(array.data)


@cache
def npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """What stands before the voxels in a `.npy` file of the store."""
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


class _Damage(Exception):
    """A file of the store that is not what was written, and why."""


def _recorded(case_id: str, stem: Path) -> tuple[CaseCheck, PreparedCase]:
    """What the store holds of a case.

    Raises:
        FileNotFoundError: nothing.
        _Damage: not what was written.
    """
    path = _path(stem, "json")
    try:
        check, prepared = _parsed(json.loads(path.read_bytes()), case_id, stem)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise _Damage(f"{path.name}: {error!r:.100}") from None
    for path, dtype in ((prepared.image, IMAGE), (prepared.label, LABEL)):
        size = len(npy_header(prepared.shape, dtype)) + math.prod(prepared.shape) * dtype.itemsize
        try:
            found = path.stat().st_size
        except OSError as error:
            raise _Damage(f"{path.name}: {error.strerror}") from None
        if found != size:
            raise _Damage(f"{path.name}: {found} bytes instead of {size}")
    return check, prepared


def _parsed(record: Any, case_id: str, stem: Path) -> tuple[CaseCheck, PreparedCase]:
    """A record as objects.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: it is not what was written.
    """
    if record.pop("crc32") != _crc32(record):
        raise ValueError("its checksum does not fit")
    found = record["check"]
    if found["case"] != case_id:
        raise ValueError(f"is of {found['case']}")
    check = CaseCheck(**found | {"findings": tuple(Finding(**finding) for finding in found["findings"])})
    prepared = PreparedCase(
        id=case_id,
        image=_path(stem, "image.npy"),
        label=_path(stem, "label.npy"),
        shape=tuple(record["shape"]),
        affine=tuple(map(tuple, record["affine"])),
        voxels=tuple(record["voxels"]),
        scan_shape=tuple(record["scan_shape"]),
        scan_spacing_mm=tuple(record["scan_spacing_mm"]),
        sha256=record["sha256"],
    )
    return check, prepared


def _crc32(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record).encode())


def _path(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}")


def _key(case: Case, settings: tuple[Any, ...]) -> str:
    """What the prepared arrays depend on, hashed."""
    files = [(case.image, ()), *((file.path, file.ids) for file in case.labels)]
    try:
        stats = [(path, path.stat(), ids) for path, ids in files]
        sources = [(str(path.absolute()), stat.st_size, stat.st_mtime_ns, ids) for path, stat, ids in stats]
    except OSError:
        sources = []  # an unreadable file: reading the case will tell
    return hashlib.sha256(repr((FORMAT, FIELDS, settings, sources)).encode()).hexdigest()[:12]
