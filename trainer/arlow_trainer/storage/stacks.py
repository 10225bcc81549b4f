"""Writing the stacks of a process's threads, and of the processes under it, at a signal.

A thread writes them, holding the interpreter's lock. Where a library holds that lock for good, a
process does not answer, and the launcher sends it `AT_ONCE`, at which faulthandler writes them
without the lock. Not at first: frames that are being made or freed would crash the process.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread

import psutil

from arlow_trainer.storage.process_log import current, keep_output, log_name

if sys.platform == "linux":
    AT_ONCE = signal.SIGRTMIN + 8
else:
    AT_ONCE = signal.SIGINFO
"""Has a process write its stacks to its log even while a library holds the interpreter's lock."""
ANSWER_S = 5.0
"""How long a process may take to answer before it is sent `AT_ONCE`."""
_POLL_S = 0.1
_HEADING = re.compile(rb"^stacks of process (\d+):$", re.MULTILINE)


def write_stacks_at(number: signal.Signals, logs: Path | None = None) -> None:
    """Makes a signal write this process's stacks to its log, where it has one, and to stderr.

    Called in the main thread. With `logs`, the folder that processes under this one keep their logs
    in, these are sent the signal, too.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The descriptor hears of the signal even while the main thread is in a library's code.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(number, lambda *_: None)
    if (log := current()) is not None:
        faulthandler.register(AT_ONCE, file=log, all_threads=True)
    # Processes inherit a mask, and decoding ones have theirs for good.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number, AT_ONCE})
    Thread(target=_work, args=(reader, number, logs), name="stacks", daemon=True).start()


def start_worker(folder: Path, rank: int, stacks: signal.Signals, number: int) -> None:
    """Keeps a decoding process's output and lets it write its stacks; called in it."""
    keep_output(folder / log_name(rank, number))
    write_stacks_at(stacks)


def _work(reader: int, number: signal.Signals, logs: Path | None) -> None:
    while True:
        if number in os.read(reader, 512):
            text = _stacks()
            if (log := current()) is not None:
                log.write(text)
            if logs is not None:
                _ask_all(number, logs)
            # Last: the reader of stderr, which all processes share, may be stuck. In one piece.
            if sys.__stderr__ is not None:
                with suppress(OSError, ValueError):
                    os.write(sys.__stderr__.fileno(), text.encode())


def _stacks() -> str:
    with TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return f"stacks of process {os.getpid()}:\n{file.read().decode(errors='replace')}"


def _ask_all(number: signal.Signals, logs: Path) -> None:
    """Has the processes under this one write their stacks, and those that cannot, at once."""
    sizes = {path: path.stat().st_size for path in logs.glob("*.log")}
    asked = _send(number, {process.pid for process in psutil.Process().children(recursive=True)})
    deadline = time.monotonic() + ANSWER_S
    while (silent := asked - _answered(logs, sizes)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    _send(AT_ONCE, silent)


def _send(number: int, processes: set[int]) -> set[int]:
    """Sends a signal to those of the processes that handle it; returns these."""
    sent = set()
    for process in processes:
        with suppress(OSError, StopIteration):
            if _handles(process, number):
                os.kill(process, number)
                sent.add(process)
    return sent


def _answered(logs: Path, sizes: dict[Path, int]) -> set[int]:
    """Returns the processes whose stacks are in what was added to the logs."""
    found = set()
    for path in logs.glob("*.log"):
        with suppress(OSError), path.open("rb") as file:
            file.seek(sizes.get(path, 0))
            found |= {int(process) for process in _HEADING.findall(file.read())}
    return found


def _handles(process: int, number: int) -> bool:
    """Whether a process would survive the signal; one that is starting would not yet."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
