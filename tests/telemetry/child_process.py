"""Processes that tests start, killed when they do not end in time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import Any

TIMEOUT_S = 60.0


@contextmanager
def child_process(
    command: Sequence[str], timeout_s: float = TIMEOUT_S, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Starts a process, and waits for its end after the block; kills it after `timeout_s`."""
    with subprocess.Popen(command, **options) as process:
        deadline = Timer(timeout_s, process.kill)
        deadline.start()
        try:
            yield process
            process.wait()
        finally:
            deadline.cancel()
            process.kill()
