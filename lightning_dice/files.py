"""Writing files so that a reader never meets half of one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder to write to, and rename it to `path` when the block ends without error.

    The temporary name is hidden, and keeps the endings, which some writers go by.

    Raises:
        OSError: naming `path`, also for a full disk, of which the system names no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path` to fill, and rename it to `path`, which must be absent or empty, when the
    block ends without error.

    Raises:
        OSError: as from what fills it; or `path` is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time write into a folder, which is made when missing. Those that wait say so.

    The lock is a file's, and the system drops it when the process ends, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder}: another process writes there, waiting until it is done", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def remove_leftovers(folder: Path, endings: tuple[str, ...] = ("",)) -> None:
    """Remove what `atomic_write` could not, because its process was killed. Only where nobody else is writing."""
    for path in folder.glob(".[0-9]*-*"):
        if path.name.endswith(endings):
            path.unlink(missing_ok=True)
