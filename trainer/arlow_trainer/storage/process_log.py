"""The last lines that a process wrote, in a local file that outlives the process.

What Python writes to stdout and stderr also goes to the file; at a terminal, whose display would
fill it, only log lines do.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from threading import Lock
from typing import Any, TextIO

from arlow_trainer.storage.streams import lasting

MAX_BYTES = 2**20
_EARLIER = ".earlier"


class ProcessLog:
    """A file that keeps the last `max_bytes` of what is written to it, or somewhat less.

    It is begun anew at half of that, and the half before is kept beside it until the next time.
    The descriptor stays the same, so that faulthandler can hold it.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path, self._half = path, max_bytes // 2
        self._lock = Lock()
        self._file = path.open("ab", buffering=0)

    def write(self, text: str) -> None:
        """Appends text. Never raises: what a process does must not depend on its log."""
        with contextlib.suppress(OSError, ValueError), self._lock:
            self._file.write(text.encode(errors="replace"))
            if self._file.tell() > self._half:
                os.replace(self._path, self._path.with_name(self._path.name + _EARLIER))
                with self._path.open("ab", buffering=0) as begun:
                    os.dup2(begun.fileno(), self._file.fileno(), inheritable=False)

    def fileno(self) -> int:
        """The descriptor of the file, open for appending."""
        return self._file.fileno()


def read_log(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Returns what a log kept, from the beginning of a line on."""
    content = b""
    for part in (path.with_name(path.name + _EARLIER), path):
        with contextlib.suppress(FileNotFoundError):
            content += part.read_bytes()
    if len(content) <= max_bytes:
        return content
    return content[-max_bytes:].partition(b"\n")[2]


def log_name(rank: int, worker: int | None = None) -> str:
    """Returns the name of the log of a rank, or of one of its decoding processes."""
    return f"rank-{rank}.log" if worker is None else f"rank-{rank}-worker-{worker}.log"


def compiler_log_name(rank: int) -> str:
    """Returns the name of the log of the process that compiles a rank's blocks."""
    return f"rank-{rank}-compiler.log"


class Tee:
    """A text stream that also writes to a log; all else is the stream's own."""

    def __init__(self, stream: TextIO, log: ProcessLog) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        """Writes to both; the log has it also where the stream's reader has ended."""
        self._log.write(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_current: ProcessLog | None = None


def current() -> ProcessLog | None:
    """Returns this process's log; None before `keep_output`."""
    return _current


def keep_output(path: Path) -> ProcessLog:
    """Keeps what this process writes from now on; returns its log.

    From then on writing to stdout and stderr never fails (`lasting`).
    """
    global _current
    _current = log = ProcessLog(path)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None:
            stream = lasting(stream)
            setattr(sys, name, stream if stream.isatty() else Tee(stream, log))
    return log
