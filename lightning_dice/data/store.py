"""The prepared copy of a data set: memory-mapped arrays, and what was counted while making them.

A case is three files, `ID-KEY.image.npy`, `ID-KEY.label.npy` and, written last, `ID-KEY.json`. The key is a hash of the
source files' paths, sizes and times and of the settings: what changed is prepared anew, the rest is found again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from lightning_dice.data.cases import Case
from lightning_dice.data.labels import NUM_CLASSES
from lightning_dice.data.volumes import Preparation, read_volume, spacing_mm
from lightning_dice.errors import InputError
from lightning_dice.files import replacing

FORMAT = 1  # raise it when the arrays of the same files and settings change


@dataclass(frozen=True)
class PreparedCase:
    """A case in the store.

    Attributes:
        image: `.npy` file, float16 (X, Y, Z) in [0, 1], RAS+.
        label: `.npy` file, uint8 (X, Y, Z), class indices.
        affine: rows of the (4, 4) matrix from voxels to mm.
        voxels: count of each class, background first.
        sha256: of both arrays and the affine.
    """

    id: str
    image: Path
    label: Path
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    voxels: tuple[int, ...]
    sha256: str

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return spacing_mm(np.array(self.affine))


def prepare_cases(
    cases: Sequence[Case],
    preparation: Preparation,
    folder: Path | str,
    workers: int | None = None,
    progress: bool = True,
) -> list[PreparedCase]:
    """Bring the cases into the store, as far as they are not there yet, and return them in their order.

    Args:
        folder: of the store; made when missing.
        workers: processes; by default one per usable core.

    Raises:
        InputError: cases that cannot be prepared, all of them in one message, a line each. The others are in the store
            then, and are not prepared again.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stems = [folder / f"{case.id}-{_key(case, preparation)}" for case in cases]
    # Of several runs that start together one prepares, and the others find it all.
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        missing = [(case, stem) for case, stem in zip(cases, stems, strict=True) if not _path(stem, "json").is_file()]
        problems = []
        with tqdm(total=len(missing), desc="preparing", unit="case", disable=not (progress and missing)) as bar:
            for problem in _prepare_all(missing, preparation, workers):
                bar.update()
                if problem:
                    problems.append(problem)
    if problems:
        raise InputError("\n".join([f"{len(problems)} of {len(cases)} cases cannot be prepared:", *sorted(problems)]))
    return [_open(case.id, stem) for case, stem in zip(cases, stems, strict=True)]


def fingerprint(cases: Sequence[PreparedCase]) -> str:
    """A hash of the prepared arrays of these cases: the same data give the same one on any machine, in any order."""
    return hashlib.sha256("".join(sorted(case.id + case.sha256 for case in cases)).encode()).hexdigest()[:16]


def _prepare_all(
    missing: list[tuple[Case, Path]], preparation: Preparation, workers: int | None
) -> Iterator[str | None]:
    """A problem or None per case, in the order in which they end."""
    if len(missing) <= 1 or workers == 1:
        yield from (_prepare(case, stem, preparation) for case, stem in missing)
        return
    with ProcessPoolExecutor(workers) as pool:
        futures = [pool.submit(_prepare, case, stem, preparation) for case, stem in missing]
        yield from (future.result() for future in as_completed(futures))


def _prepare(case: Case, stem: Path, preparation: Preparation) -> str | None:
    """Write one case; the line to tell when it cannot be read."""
    try:
        volume = read_volume(case, preparation)
    except InputError as problem:
        return str(problem)
    digest = hashlib.sha256()
    for array in (volume.image, volume.label, volume.affine):
        digest.update(array.tobytes())
    record = {
        "shape": volume.label.shape,
        "affine": volume.affine.tolist(),
        "voxels": np.bincount(volume.label.ravel(), minlength=NUM_CLASSES).tolist(),
        "sha256": digest.hexdigest(),
    }
    with replacing(_path(stem, "image.npy")) as path, open(path, "wb") as file:
        np.save(file, volume.image)
    with replacing(_path(stem, "label.npy")) as path, open(path, "wb") as file:
        np.save(file, volume.label)
    with replacing(_path(stem, "json")) as path:
        path.write_text(json.dumps(record))
    return None


def _open(case_id: str, stem: Path) -> PreparedCase:
    record = json.loads(_path(stem, "json").read_text())
    return PreparedCase(
        id=case_id,
        image=_path(stem, "image.npy"),
        label=_path(stem, "label.npy"),
        shape=tuple(record["shape"]),
        affine=tuple(map(tuple, record["affine"])),
        voxels=tuple(record["voxels"]),
        sha256=record["sha256"],
    )


def _path(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}")


def _key(case: Case, preparation: Preparation) -> str:
    """What the prepared arrays depend on, hashed."""
    files = [(case.image, ()), *((file.path, file.ids) for file in case.labels)]
    try:
        sources = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns, ids) for path, ids in files]
    except OSError:
        sources = []  # an unreadable file: preparing the case will tell
    return hashlib.sha256(repr((FORMAT, dataclasses.astuple(preparation), sources)).encode()).hexdigest()[:12]
