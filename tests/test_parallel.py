"""Workers end with their parent, with its interruption, and with each other's errors."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lightning_dice.errors import InputError
from lightning_dice.parallel import run_all, usable_cores

SLEEP = 60  # seconds that a worker would take if nothing ended it
SOON = 20  # a loaded machine's seconds in which it is ended, mostly for starting Python


def double(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("workers", [1, 2, None])
def test_results_come_in_the_order_of_the_tasks(workers):
    assert run_all(double, [(number,) for number in range(20)], "doubling", workers, progress=False) == list(
        range(0, 40, 2)
    )
    assert run_all(double, [], "doubling", workers, progress=False) == []


def process_of(_: int) -> int:
    time.sleep(0.02)
    return os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="cores are set for a process on Linux only")
def test_there_are_no_more_workers_than_cores_to_use_and_tasks(monkeypatch):
    assert usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    counts = {
        tasks: len(set(run_all(process_of, [(n,) for n in range(tasks)], "", progress=False))) for tasks in (2, 60)
    }
    assert counts == {2: 2, 60: 3}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert run_all(process_of, [(0,), (1,)], "", progress=False) == [os.getpid()] * 2


def fail_or_sleep(number: int) -> None:
    if number == 1:
        raise OSError(errno.ENOSPC, "No space left on device", "/there")
    time.sleep(SLEEP)


def test_an_error_keeps_its_file_and_does_not_wait_for_the_others():
    started = time.monotonic()
    with pytest.raises(OSError, match="No space left") as failure:
        run_all(fail_or_sleep, [(number,) for number in range(6)], "", workers=2, progress=False)
    assert time.monotonic() - started < SOON
    assert (failure.value.errno, failure.value.filename) == (errno.ENOSPC, "/there")
    assert not multiprocessing.active_children()


def be_killed(number: int) -> None:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory is full
    time.sleep(SLEEP)


def get_no_memory(number: int) -> None:
    if number == 1:
        np.empty(2**58)
    time.sleep(SLEEP)


@pytest.mark.parametrize("function", [be_killed, get_no_memory])
def test_want_of_memory_is_told_in_a_line_with_what_to_do(function):
    started = time.monotonic()
    with pytest.raises(InputError, match=r"preparing: one of 3 processes was killed, .* taskset") as refusal:
        run_all(function, [(number,) for number in range(6)], "preparing", 3, progress=False)
    assert "\n" not in str(refusal.value)
    assert time.monotonic() - started < SOON
    assert not multiprocessing.active_children()


def tell_and_sleep(seconds: float) -> None:
    os.write(sys.stdout.fileno(), b"began\n")  # at one go, unlike print
    time.sleep(seconds)


def begun(seconds: tuple[float, float]) -> subprocess.Popen:
    """A process with two workers that have begun; its output ends when all of them have."""
    tasks = [(each,) for each in seconds]
    code = f"from tests.test_parallel import *; run_all(tell_and_sleep, {tasks}, '', 2, progress=False)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert [process.stdout.readline() for _ in seconds] == ["began\n", "began\n"]
    return process


BOTH_OR_ONE = pytest.mark.parametrize("seconds", [(SLEEP, SLEEP), (SLEEP, 0)])  # at work, and one waits for more


@BOTH_OR_ONE
def test_no_worker_outlives_a_parent_that_is_killed(seconds):
    process = begun(seconds)
    process.kill()
    assert process.communicate(timeout=SOON) == ("", "")
    assert process.returncode == -signal.SIGKILL


@BOTH_OR_ONE
def test_an_interruption_ends_all_at_once_with_one_traceback(seconds):
    process = begun(seconds)
    time.sleep(0.5)  # for the worker that waits
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: all processes of the terminal get it
    _, said = process.communicate(timeout=SOON)
    assert process.returncode != 0
    assert said.count("Traceback") == 1
    assert said.splitlines()[-1] == "KeyboardInterrupt"
