"""The process's standard streams, made safe for work that must not depend on who reads them."""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress
from typing import Any, TextIO

_WAIT_S = 1.0


def open_closed_streams() -> None:
    """Opens the standard streams that the process was started without (`>&-`) on the null device.

    A file that is opened later would get their numbers, and what libraries write to stderr.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free; processes started by this one have it too.
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            stream = os.fdopen(number, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def lasting(stream: TextIO) -> TextIO:
    """Returns a stream over the same descriptor as `sys.stdout` or `sys.stderr` that never fails.

    What cannot be written, since the reader has ended or the disk is full, is lost. A stream that
    something has put in place of the process's own is returned as it is.
    """
    if stream not in (sys.__stdout__, sys.__stderr__) or not isinstance(stream, io.TextIOWrapper):
        return stream
    with suppress(OSError):
        stream.flush()
    raw = _NeverFails(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        # Unbuffered where Python was told so (PYTHONUNBUFFERED).
        raw if stream.write_through else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _NeverFails(io.FileIO):
    def write(self, data: Any) -> int:
        with suppress(OSError):
            written = super().write(data)
            if written is not None:
                return written
        return memoryview(data).nbytes


def write_stderr(text: str) -> None:
    """Writes a short text to stderr at once, past Python's buffers.

    For signal handlers and the last moments of a process: it neither raises nor waits for a reader
    that is stuck.
    """
    stream = sys.__stderr__
    if stream is None:
        return
    with suppress(OSError, ValueError):
        number = stream.fileno()
        if select.select([], [number], [], _WAIT_S)[1]:
            # A pipe that is ready takes that much without waiting.
            os.write(number, text.encode(errors="backslashreplace")[: select.PIPE_BUF])
