"""The ranks of a run on several devices of this machine: a process each, none of which outlives the one that waits.

Lightning's own launcher runs the command line again for each rank: within a multirun that is the whole sweep. Here each
rank gets the objects of the one run, in a process that nothing else of a sweep shares: no group, port, signal handler
or GPU memory of a cell is there for the next one, and a cell that is killed leaves the sweep to go on. Ranks that
torchrun or SLURM started need none of this.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]  # which typeshed lacks
from multiprocessing.process import BaseProcess
from typing import Any

import torch.distributed as dist

from lightning_dice.errors import InputError, Interrupted
from lightning_dice.parallel import end_with_parent

HOST = "127.0.0.1"
PRELOADED = ["lightning_dice.build"]  # not a command's file, which each process imports as its main one
GRACE = 10.0  # seconds in which ranks end by themselves when one of them did; most wait for it and would do so forever


def run_ranks(function: Callable[..., Any], count: int, name: str, *arguments: Any) -> Any:
    """Call `function(rank, *arguments)` in so many processes, in whose environments Lightning finds one group.

    Ctrl-C and SIGTERM go to rank zero, see `LastCheckpoint`.

    Args:
        name: of what is done, for errors.

    Returns:
        What rank zero's call returned.

    Raises:
        InputError: a rank's own, or one was killed. By then all ranks have ended, as with any other error of one.
        Interrupted: rank zero stopped.
    """
    # Ranks are forked from a server that has imported all that they need, and has no threads and no GPU in use.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]  # torch has it
    group = {"WORLD_SIZE": count, "MASTER_ADDR": HOST, "MASTER_PORT": store.port}  # a port that nobody else gets
    group |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}  # as torchrun tells of its store
    processes: list[BaseProcess] = []
    pipes: list[Connection] = []
    outcomes: dict[int, Any] | None = None
    try:
        for rank in range(count):
            receive, send = context.Pipe(duplex=False)
            processes.append(context.Process(target=_rank, args=(send, group, function, rank, arguments)))
            processes[rank].start()
            send.close()  # so that the process has the only end, and its death closes it
            pipes.append(receive)
        with _passed_on_to(processes[0]) as stopped:
            outcomes = _awaited(pipes)
    finally:
        for process in processes:
            process.join(GRACE if outcomes and len(outcomes) == count else 0)
            process.kill()
            process.join()
    errors = [outcome for outcome in outcomes.values() if isinstance(outcome, BaseException)]
    if not errors:
        return outcomes[0]
    if told := [error for error in errors if isinstance(error, InputError | Interrupted)]:
        raise told[0]
    if stopped:
        raise Interrupted("stopped at once")
    if any(isinstance(error, EOFError) for error in errors):
        raise InputError(
            f"{name}: one of {count} processes was killed, perhaps because memory ran out; the others were stopped; "
            "the same command goes on from the last checkpoint"
        )
    raise errors[0]


def _awaited(pipes: Sequence[Connection]) -> dict[int, Any]:
    """What the ranks returned or raised, in the order in which they ended, EOFError of one that was killed. None is
    waited for long after the first error."""
    outcomes: dict[int, Any] = {}
    pending, until = list(pipes), None
    while pending and (ready := wait(pending, until and max(0, until - time.monotonic()))):
        for pipe in ready:
            assert isinstance(pipe, Connection)
            pending.remove(pipe)
            try:
                outcome = pipe.recv()
            except EOFError as end:
                outcome = end
            outcomes[pipes.index(pipe)] = outcome
            if isinstance(outcome, BaseException):
                until = until or time.monotonic() + GRACE
    return outcomes


@contextlib.contextmanager
def _passed_on_to(process: BaseProcess) -> Iterator[list[int]]:
    """Send a process the signal that this one is asked to stop by, which is listed; a second one stops at once."""
    passed: list[int] = []

    def send(number: int, _: object) -> None:
        if passed:
            raise KeyboardInterrupt
        passed.append(number)
        if process.is_alive() and process.pid:
            os.kill(process.pid, number)

    if threading.current_thread() is not threading.main_thread():  # no other gets any
        yield passed
        return
    before = {number: signal.signal(number, send) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _rank(
    send: Connection, group: dict[str, Any], function: Callable[..., Any], rank: int, arguments: tuple[Any, ...]
) -> None:
    """In a rank: do its work, and send what it returns, or the error that ends it."""
    os.setsid()  # Ctrl-C of the terminal is for the parent
    threading.Thread(target=end_with_parent, daemon=True).start()
    multiprocessing.set_start_method(None, force=True)  # for loaders' workers, which would all import anew as ranks do
    logging.disable(logging.INFO)  # of Lightning's own, as the commands do
    os.environ |= {key: str(value) for key, value in (group | {"LOCAL_RANK": rank}).items()}
    try:
        with contextlib.redirect_stdout(None if rank else sys.stdout):
            outcome = function(rank, *arguments)
        if dist.is_initialized():
            dist.destroy_process_group()
        send.send(outcome)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):  # Lightning makes the latter of the former
            error = Interrupted("stopped at once")
        try:
            send.send(ExceptionWithTraceback(error, error.__traceback__))
        except Exception:  # an error that cannot be sent
            send.send(RuntimeError("".join(traceback.format_exception(error))))
