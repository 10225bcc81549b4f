"""From the error that ends `arlow` to its exit code, and to the line in the termination message."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from arlow_trainer.config.ending import Ending, termination_log
from arlow_trainer.config.errors import ArlowError, ExitCode


@dataclass(frozen=True)
class Reached:
    """How far an attempt has come: see `Ending`."""

    step: int | None = None
    saved: int | None = None


def exit_code_of(error: BaseException) -> ExitCode:
    """Returns the exit code of an error that ends a command."""
    if isinstance(error, ArlowError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.KEYBOARD_INTERRUPT
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ExitCode.STORE
    return ExitCode.INTERNAL


def message_of(error: BaseException) -> str:
    """Returns what an error says to the user."""
    if isinstance(error, ArlowError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if exit_code_of(error) is ExitCode.STORE:
        return f"the disk is full: {error}; free some space and run the command again"
    return (
        f"internal error (a bug in Arlow): {type(error).__name__}: {error}\n"
        "report it with the traceback in the log and the command you ran"
    )


def write_ending(
    code: ExitCode, message: str, reached: Reached = Reached(), rank: int | None = None
) -> None:
    """Writes how the attempt ended, where something reads it.

    Never raises: the attempt has ended that way, whether or not it can be written.
    """
    with suppress(Exception):
        path = termination_log()
        if path is not None:
            ending = Ending.of(code, message, rank=rank, step=reached.step, saved=reached.saved)
            _write(path, ending.line().encode())


def _write(path: Path, content: bytes) -> None:
    """Writes a file, or to a pipe or device that takes it at once: nothing is waited for.

    Raises OSError, also for a pipe that nobody reads.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "wb", buffering=0) as file:
        file.write(content)


def clear_ending() -> None:
    """Removes the message of an earlier attempt, which must not be taken for that of this one."""
    with suppress(OSError):
        path = termination_log()
        # Emptied: in a pod the file is mounted and cannot be deleted.
        if path is not None and path.is_file():
            os.truncate(path, 0)


@contextmanager
def failures_written(reached: Callable[[], Reached] = Reached) -> Iterator[None]:
    """Writes the termination message of whatever error passes through."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        rank = getattr(error, "rank", None)
        write_ending(exit_code_of(error), message_of(error), reached(), rank)
        raise
