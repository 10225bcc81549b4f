"""The decoding processes of a rank: how they start, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

from arlow_trainer.config.ending import signal_name
from arlow_trainer.config.errors import ArlowError, DataError, ProcessKilled

# Terminals, supervisors and SLURM signal whole groups; what to do is the rank's to decide.
_OF_GROUPS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Blocks signals to a whole group in this thread, and for good in processes that it starts.

    A process takes seconds to reach `init_worker`; a signal to the whole group would end it.
    """
    # If it started along with the first process, the tracker would unblock them in this thread.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_GROUPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def sigchld_kept() -> Iterator[None]:
    """Keeps this process's way with SIGCHLD while a DataLoader starts.

    torch's own would raise an error of a dead process wherever the main thread stands. Without it
    the error comes where the process's work is waited for, at most five seconds later.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)


def worker_died(decoded: Any) -> ArlowError:
    """Returns the error to raise when processes of a DataLoader iterator have died."""
    ends = {
        worker.pid: -worker.exitcode if worker.exitcode < 0 else 0
        for worker in decoded._workers
        if worker.exitcode is not None
    }
    killed = [number for number in ends.values() if number in (signal.SIGKILL, signal.SIGBUS)]
    if killed:
        return ProcessKilled(
            f"a decoding process was killed by {signal_name(killed[0])}; the kernel does "
            "so when the machine's or pod's memory, or /dev/shm, runs out: lower data.workers, or "
            "give the machine or pod more of it"
        )
    crashed = [signal_name(number) for number in ends.values() if number]
    how = f"crashed with {crashed[0]}" if crashed else "ended"
    return DataError(
        f"a decoding process {how}, most often over a damaged file; the log may say which. Find it "
        "with data.workers=0, and repair or remove it"
    )


def init_worker(also: Callable[[int], None] | None, number: int) -> None:
    """Ignores signals to a whole group here, and ends this process when its rank has ended.

    Then calls `also` with the process's number among its rank's.
    """
    for of_group in _OF_GROUPS:
        signal.signal(of_group, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Pillow warns of every odd header, in every process; what cannot be decoded is reported anyway.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if also is not None:
        also(number)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def end_workers(decoded: Any) -> None:
    """Ends a DataLoader iterator's processes, if it has any, and waits for them."""
    if not hasattr(decoded, "_shutdown_workers"):
        return
    decoded._shutdown_workers()
    for worker in decoded._workers:
        if worker.is_alive():
            worker.kill()
            worker.join()
