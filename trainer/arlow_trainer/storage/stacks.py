"""Writing the stacks of a process's threads, and of the processes under it, at a signal.

faulthandler writes to stderr at once, even in a hung collective. A thread then adds them to the
process's log, which outlives it, and passes the signal on.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil

from arlow_trainer.storage.process_log import current, keep_output, log_name


def write_stacks_at(number: signal.Signals) -> None:
    """Makes a signal write this process's stacks and reach the processes under it.

    Called in the main thread.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The descriptor hears of the signal even while the main thread is in a library's code.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(number, lambda *_: None)
    if sys.__stderr__ is not None:
        faulthandler.register(number, file=sys.__stderr__, all_threads=True, chain=True)
    # Processes inherit a mask, and decoding ones have theirs for good.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    Thread(target=_work, args=(reader, number), name="stacks", daemon=True).start()


def _pass_on(number: signal.Signals) -> None:
    """Sends a signal to the processes right under this one that handle it."""
    for child in psutil.Process().children():
        with suppress(psutil.Error, OSError):
            if _handles(child.pid, number):
                child.send_signal(number)


def start_worker(folder: Path, rank: int, stacks: signal.Signals, number: int) -> None:
    """Keeps a decoding process's output and lets it write its stacks; called in it."""
    keep_output(folder / log_name(rank, number))
    write_stacks_at(stacks)


def _work(reader: int, number: signal.Signals) -> None:
    while True:
        if number in os.read(reader, 512):
            log = current()
            if log is not None:
                log.write(f"stacks of process {os.getpid()}:\n")
                with suppress(OSError, ValueError):
                    faulthandler.dump_traceback(log, all_threads=True)
            _pass_on(number)


def _handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process would survive the signal; one that is starting would not yet."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
