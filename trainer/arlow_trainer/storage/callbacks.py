"""Where a signal's handler raises nothing: in calls back from a library, which would swallow it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Calls(threading.local):
    """The calls of this thread: how many are under way, and what is raised after them."""

    depth = 0
    error: BaseException | None = None


_calls = _Calls()


@contextmanager
def called_back() -> Iterator[None]:
    """For short calls of a library that calls Python from C and ignores what that raises.

    What `interrupt` was given meanwhile is raised at the end, in place of the call's own error.
    """
    _calls.depth += 1
    try:
        yield
    finally:
        _calls.depth -= 1
        if not _calls.depth and (error := _calls.error) is not None:
            _calls.error = None
            raise error


def interrupt(error: BaseException) -> None:
    """Raises an error in this thread, now or at the end of `called_back`."""
    if not _calls.depth:
        raise error
    _calls.error = error
