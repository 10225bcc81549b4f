"""The decoding processes of a rank: how many, how they start, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any


def workers_per_rank(ranks_here: int) -> int:
    """Returns the decoding processes of each of `ranks_here` ranks that share this machine.

    All cores that this process may use, by affinity and by the container's limit; at least one.
    """
    # macOS has no affinity.
    affine = getattr(os, "sched_getaffinity", None)
    cores = float(len(affine(0)) if affine is not None else os.cpu_count() or 1)
    limit = Path("/sys/fs/cgroup/cpu.max")
    if limit.is_file():
        quota, period = limit.read_text().split()
        if quota != "max":
            cores = min(cores, int(quota) / int(period))
    return max(1, int(cores) // ranks_here)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Blocks SIGTERM and SIGINT in this thread, and for good in processes that it starts.

    A process takes seconds to reach `init_worker`; a signal to the whole group would end it.
    """
    # If it started along with the first process, the tracker would unblock them in this thread.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def init_worker(_: int) -> None:
    """Ignores SIGTERM and SIGINT in this process, and ends it when its rank has ended, however."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Pillow warns of every odd header, in every process; what cannot be decoded is reported anyway.
    warnings.filterwarnings("ignore", module=r"PIL\.")


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
