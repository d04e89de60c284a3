"""Work on all cores, in processes that never outlive the one that started them."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import Pipe, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from tqdm import tqdm

from lightning_dice.errors import InputError

Result = TypeVar("Result")


def run_all(
    function: Callable[..., Result],
    tasks: Sequence[tuple[Any, ...]],
    title: str,
    workers: int | None = None,
    progress: bool = True,
) -> list[Result]:
    """Call a function with each of the tasks' arguments, in processes where that is worth their start.

    The first error ends the others at once, as does Ctrl-C.

    Args:
        title: what is done, for the progress bar, which is drawn in a terminal only.
        workers: processes; by default one per core that this process may use.

    Returns:
        The results, in the order of the tasks.

    Raises:
        InputError: memory is full, for which a process got an error or the system ended it.
    """
    workers = min(workers or usable_cores(), len(tasks))
    with tqdm(total=len(tasks), desc=title, unit="case", disable=None if progress and tasks else True) as bar:
        if workers > 1:
            return _in_processes(function, tasks, title, workers, bar)
        results = []
        for task in tasks:
            results.append(function(*task))
            bar.update()
        return results


def usable_cores() -> int:
    """Those that this process may run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def ignore_interrupts(*_: object) -> None:
    """What a worker does about Ctrl-C, which reaches all processes of a terminal: its parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_with_parent(*told: Connection) -> None:
    """In a thread of a worker: end the process when the parent ends, or when something comes from it."""
    parent = parent_process()
    assert parent is not None  # this is a worker
    wait([parent.sentinel, *told])
    os._exit(1)


def _in_processes(
    function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], title: str, workers: int, bar: tqdm
) -> list[Result]:
    listening, stop = Pipe(duplex=False)
    with ProcessPoolExecutor(workers, initializer=_begin, initargs=(listening,)) as pool:
        try:
            futures = [pool.submit(function, *task) for task in tasks]
            for future in as_completed(futures):
                future.result()
                bar.update()
        except BaseException as error:
            stop.send(None)  # the executor itself would wait for what is running
            if isinstance(error, BrokenProcessPool | MemoryError):
                raise InputError(
                    f"{title}: one of {workers} processes was killed, most likely because memory ran out; free some, "
                    f"or run fewer at once, by taskset -c 0-{workers // 2 - 1} before the command; what is done is kept"
                ) from None
            raise
        return [future.result() for future in futures]


def _begin(listening: Connection) -> None:
    """In a worker: live no longer than the parent, and no longer than it wants."""
    ignore_interrupts()
    threading.Thread(target=end_with_parent, args=(listening,), daemon=True).start()
