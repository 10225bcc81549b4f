"""Which failures are retried, and reads that are retried for minutes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    stop_any,
    stop_when_event_set,
    wait_random_exponential,
)

from arlow_trainer.config.errors import ArlowError
from arlow_trainer.storage.failures import NOT_STORE_ERRORS, Failure, classify, describe
from arlow_trainer.storage.timeouts import StoreTimeout

log = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = 4
MAX_MINUTES = 5
RENEWALS = 3


def is_transient(error: BaseException) -> bool:
    """Whether the operation that raised `error` may succeed a little later."""
    return _retry_reason(error).transient


def with_retries(name: str, read: Callable[[], T]) -> T:
    """Returns what `read` does, repeated for up to five minutes while a disk or store hiccups.

    For reading, which can be repeated at will: what fails without saying why is repeated too. What
    a retry cannot fix is raised at once, and the last failure when the time is over, each as
    `read` raised it. `name` is what the log calls the thing that is read.
    """
    return RETRYING.copy(before_sleep=partial(_log_first_failure, name))(read)


def briefly() -> Retrying:
    """Returns the retries of an operation that something waits for: seconds."""
    return Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.5, max=8.0),
        retry=retry_if_exception(is_transient),
        reraise=True,
    )


def persistently(name: str, given_up: threading.Event) -> Retrying:
    """Returns the retries of writing what must not be lost: minutes, until `given_up` is set.

    Never fewer attempts than `briefly`: a large file may take longer than those minutes.
    """
    enough = stop_all(stop_after_attempt(ATTEMPTS), stop_after_delay(60 * MAX_MINUTES))
    return briefly().copy(
        stop=stop_any(enough, stop_when_event_set(given_up)),
        sleep=sleep_using_event(given_up),
        before_sleep=partial(_log_first_failure, name),
    )


def renewing(renew: Callable[[], None]) -> Retrying:
    """Returns the repetitions of an operation whose credentials are refused, `renew` before each.

    Several: keys that are read from their file may end soon after, and a large file takes long.
    """
    return Retrying(
        stop=stop_after_attempt(1 + RENEWALS),
        retry=retry_if_exception(lambda error: _retry_reason(error).of_credentials),
        before_sleep=lambda _: renew(),
        reraise=True,
    )


def _is_worth_repeating(error: BaseException) -> bool:
    # By its own class first: a decoder's ValueError is about the content, whatever it came from.
    if isinstance(error, NOT_STORE_ERRORS):
        return False
    reason = _retry_reason(error)
    return reason.transient or reason is Failure.UNKNOWN


def _retry_reason(error: BaseException) -> Failure:
    """As `classify`; `OTHER` for ArlowError, StoreTimeout and non-Exceptions: they are not retried.

    Those may have been raised from an error that is transient.
    """
    if isinstance(error, (ArlowError, StoreTimeout)) or not isinstance(error, Exception):
        return Failure.OTHER
    return classify(error, local=False)


def _log_first_failure(name: str, state: RetryCallState) -> None:
    """Logs the first of a series of failures alone: many processes may meet one outage."""
    error = state.outcome.exception() if state.outcome else None
    if state.attempt_number == 1 and error is not None:
        reason = describe(error)
        log.warning("%s: %s; trying again for up to %d minutes", name, reason, MAX_MINUTES)


RETRYING = Retrying(
    retry=retry_if_exception(_is_worth_repeating),
    stop=stop_after_delay(60 * MAX_MINUTES),
    # Random, so that the processes of all ranks do not return to a strained store at once.
    wait=wait_random_exponential(max=30),
    reraise=True,
)
