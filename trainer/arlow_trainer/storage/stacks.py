"""Writing the stacks of a process's threads, and of the processes under it, at a signal.

faulthandler writes them to the process's log, which outlives it, even where a library holds the
interpreter's lock. A thread then writes them to stderr in one piece, since all processes share
stderr and faulthandler writes word by word, and passes the signal on.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
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
    write_stacks_to_log(number)
    # Processes inherit a mask, and decoding ones have theirs for good.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    Thread(target=_work, args=(reader, number), name="stacks", daemon=True).start()


def write_stacks_to_log(number: signal.Signals) -> None:
    """Has the signal write to this process's log, or to stderr before there is one."""
    file = current() or sys.__stderr__
    if file is not None:
        faulthandler.register(number, file=file, all_threads=True, chain=True)


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
            if current() is not None and sys.__stderr__ is not None:
                with suppress(OSError, ValueError):
                    os.write(sys.__stderr__.fileno(), _stacks())
            _pass_on(number)


def _stacks() -> bytes:
    with TemporaryFile() as file:
        file.write(f"stacks of process {os.getpid()}:\n".encode())
        file.flush()
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


def _handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process would survive the signal; one that is starting would not yet."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
