"""An iterator in a thread: its order, how far it runs ahead, how it fails and ends."""

from __future__ import annotations

import gc
import itertools
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from arlow_trainer.data.look_ahead import LookAhead


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def ahead_of(values: Iterator[int], most: int = 4, most_bytes: int = 100) -> LookAhead[int]:
    return LookAhead(values, lambda size: size, most, most_bytes, "look-ahead")


@pytest.mark.parametrize(
    ("sizes", "most", "most_bytes", "made"),
    [
        # One more than is finished ahead waits in the thread.
        (itertools.repeat(1), 4, 100, 5),
        (itertools.repeat(30), 4, 100, 4),
        (itertools.repeat(200), 4, 100, 2),
        (itertools.chain([200], itertools.repeat(10)), 4, 100, 2),
        (itertools.repeat(0), 3, 0, 4),
    ],
)
def test_it_runs_ahead_by_a_number_and_a_number_of_bytes(
    sizes: Iterator[int], most: int, most_bytes: int, made: int
) -> None:
    seen: list[int] = []
    ahead = ahead_of((seen.append(size) or size for size in sizes), most, most_bytes)
    until(lambda: len(seen) == made)
    time.sleep(0.05)
    assert len(seen) == made
    ahead.close()


def test_it_keeps_the_order_and_ends() -> None:
    ahead = ahead_of(iter(range(1000)))
    assert list(ahead) == list(range(1000))
    assert next(ahead, "none") == "none"
    ahead.close()


def test_a_failure_comes_after_what_was_made_before_it() -> None:
    def failing() -> Iterator[int]:
        yield from (1, 2)
        raise KeyError("third")

    ahead = ahead_of(failing())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(KeyError, match="third"):
        next(ahead)
    assert next(ahead, "none") == "none"
    ahead.close()


def test_closing_ends_the_thread_wherever_it_stands() -> None:
    before = threading.active_count()
    for taken in range(3):
        ahead = ahead_of(itertools.count())
        for _ in range(taken):
            next(ahead)
        ahead.close()
        ahead.close()
    assert threading.active_count() == before


def test_a_signal_interrupts_the_wait_and_leaves_it_usable() -> None:
    go = threading.Event()

    def slow() -> Iterator[int]:
        go.wait(30)
        yield from itertools.count()

    def handler(number: int, frame: object) -> None:
        raise InterruptedError

    ahead = ahead_of(slow())
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(InterruptedError):
            next(ahead)
    finally:
        signal.signal(signal.SIGALRM, before)
    go.set()
    assert [next(ahead), next(ahead)] == [0, 1]
    ahead.close()


def test_it_holds_nothing_that_was_taken() -> None:
    class Value:
        pass

    ahead = LookAhead((Value() for _ in itertools.count()), lambda _: 1, 2, 100, "look-ahead")
    taken = [weakref.ref(next(ahead)) for _ in range(10)]
    until(lambda: gc.collect() is not None and not any(ref() for ref in taken))
    ahead.close()
