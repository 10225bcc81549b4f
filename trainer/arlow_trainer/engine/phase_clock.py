"""The seconds of a step's phases."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class PhaseClock:
    """Adds up the seconds of named phases; on a GPU by events that are read at `collect` only."""

    def __init__(self, device: torch.device) -> None:
        self._events = device.type == "cuda"
        self._seconds: dict[str, float] = defaultdict(float)
        self._pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time of the block towards a phase."""
        if not self._events:
            start = time.perf_counter()
            yield
            self._seconds[name] += time.perf_counter() - start
            return
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        begin.record()
        yield
        end.record()
        self._pending.append((name, begin, end))

    def collect(self, wait: bool) -> dict[str, float]:
        """Returns and forgets the seconds so far; events still running are left, or waited for."""
        left = []
        for name, begin, end in self._pending:
            if wait:
                end.synchronize()
            if wait or end.query():
                self._seconds[name] += begin.elapsed_time(end) / 1000
            else:
                left.append((name, begin, end))
        self._pending = left
        seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds
