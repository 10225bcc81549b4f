"""An iterator that runs ahead in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class LookAhead(Generic[T]):
    """Iterates in a thread, a bounded number of values and bytes ahead of who asks for them.

    Between the threads are only queues that signal handlers may interrupt: an exception that one
    raises in `next` leaves nothing locked.
    """

    def __init__(
        self, values: Iterator[T], size: Callable[[T], int], most: int, most_bytes: int, name: str
    ) -> None:
        """Starts the thread.

        Args:
            values: what to iterate; from now on only the thread does.
            size: a value's bytes.
            most, most_bytes: how many values are finished ahead, and the bytes of all of them; one
                is whatever its bytes are, and another that is finished waits in the thread.
            name: the thread's.
        """
        self._size, self._most, self._most_bytes = size, most, most_bytes
        self._ready: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        self._taken: SimpleQueue[None] = SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(values,), name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """Returns the next value, or raises what the iterator raised; ends with that."""
        if self._closed.is_set():
            raise StopIteration
        value, error = self._ready.get()
        self._taken.put(None)
        if error is not None:
            self._closed.set()
            raise error
        return value  # type: ignore[return-value]

    def close(self) -> None:
        """Ends the thread when the iterator has made the value that it is making."""
        self._closed.set()
        self._taken.put(None)
        self._thread.join()

    def _run(self, values: Iterator[T]) -> None:
        ahead: deque[int] = deque()
        try:
            for value in values:
                size = self._size(value)
                while ahead and (len(ahead) >= self._most or sum(ahead) + size > self._most_bytes):
                    self._taken.get()
                    ahead.popleft()
                    if self._closed.is_set():
                        return
                ahead.append(size)
                self._ready.put((value, None))
                # Else the loop would hold it until the next one is made.
                del value
                if self._closed.is_set():
                    return
            self._ready.put((None, StopIteration()))
        except BaseException as error:
            self._ready.put((None, error))
