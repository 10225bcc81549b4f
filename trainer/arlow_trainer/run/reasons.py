"""Why a rank ends: from the error to what it tells the launcher, before it does anything else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from arlow_trainer.config.errors import ArlowError, ExitCode, Interrupted
from arlow_trainer.run.attempt import Attempt
from arlow_trainer.run.held_signals import StopNow
from arlow_trainer.run.signals import WHILE_LOADING
from arlow_trainer.run.termination import exit_code_of, message_of

_LOST_PEER = ("by peer", "Broken pipe", "remote process exited", "recvValue failed")
"""In the messages of gloo, NCCL and the ranks' key-value store when another rank has ended."""
_VERDICT_S = 3.0


def lost_a_peer(error: BaseException) -> bool:
    """Whether an error only says that another rank has ended."""
    return isinstance(error, RuntimeError) and any(part in str(error) for part in _LOST_PEER)


@contextmanager
def reason_first(attempt: Attempt, rank: int) -> Iterator[None]:
    """Tells the launcher why this rank ends before its resources are released.

    Releasing may wait for what will never come: another rank, a device, a store. Enter it after
    what it must precede, in the same `with` statement.
    """
    try:
        yield
    except BaseException as error:
        report(attempt, rank, error)
        raise


def report(attempt: Attempt, rank: int, error: BaseException) -> ExitCode:
    """Records why a rank ends, unless that has been recorded; returns its exit code."""
    if isinstance(error, StopNow):
        # It came between two instructions of what would have caught it.
        error = Interrupted(WHILE_LOADING)
    code = exit_code_of(error)
    if not attempt.has_reported(rank):
        second_hand = bool(getattr(error, "second_hand", False)) or lost_a_peer(error)
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, ArlowError) or code != ExitCode.INTERNAL:
            message = message_of(error)
        attempt.report(rank, int(code), message, second_hand)
    return code


def first_reason(attempt: Attempt, sleep: Callable[[float], None] = time.sleep) -> str:
    """Returns why the attempt fails, in a rank that only lost another one."""
    deadline = time.monotonic() + _VERDICT_S
    while (verdict := attempt.verdict()) is None and time.monotonic() < deadline:
        sleep(0.05)
    return verdict or "another rank ended"
