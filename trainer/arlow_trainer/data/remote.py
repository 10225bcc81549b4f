"""Reading files on disks and behind fsspec, and what goes wrong on the way in words."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from arlow_trainer.config.errors import ArlowError, CredentialsError, DataError, StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")

_MINUTES = 5
# What no waiting mends.
_LASTING = (
    ArlowError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
_LASTING_ERRNOS = frozenset(
    {errno.EDQUOT, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOSPC, errno.ENOSYS, errno.EROFS}
)
_PASSING_STATUSES = frozenset({408, 409, 425, 429})


def read_remote(name: str, filesystem: Any, path: str) -> bytes:
    """Returns a file's bytes. Raises what `with_retries` does."""
    from arlow_trainer.data.decode import BrokenSample

    try:
        content: bytes = with_retries(name, lambda: filesystem.cat_file(path))
    except (ArlowError, BrokenSample, MemoryError):
        raise
    except Exception as error:  # the stores' libraries have classes of their own
        raise unreachable(name, error) from error
    return content


def with_retries(place: str, read: Callable[[], T]) -> T:
    """Returns what `read` does, trying again for minutes where a disk or store hiccups.

    A hiccup must not become a skipped sample: that would change the training.

    Raises BrokenSample when the file is gone, what `unreachable` tells of any other OSError, and
    whatever else `read` raises.
    """
    from arlow_trainer.data.decode import BrokenSample

    try:
        return PATIENCE.copy(before_sleep=partial(_tell, place))(read)
    except (FileNotFoundError, NotADirectoryError):
        raise BrokenSample(place, "the file is gone") from None
    except OSError as error:
        raise unreachable(place, error) from error


def unreachable(place: str, error: Exception) -> ArlowError:
    """Returns what to tell the user when a disk or store refused or could not be reached.

    StoreError where the same request may succeed later, CredentialsError where it was refused,
    DataError otherwise.
    """
    reason = summary(error)
    if _is_refusal(error):
        return CredentialsError(
            f"{place}: access was refused: {reason}; check the credentials (AWS_*, "
            "GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_*, HF_TOKEN) or the file's permissions"
        )
    kind = StoreError if _is_passing(error) else DataError
    return kind(f"{place}: cannot be read: {reason}; check the path, the endpoint and the network")


def empty_set(place: str, modality: str) -> DataError:
    """Returns what to tell the user when a set holds nothing."""
    return DataError(
        f"{place} is empty; point data.{modality}s.path or its split at a set with {modality}s"
    )


def summary(error: BaseException) -> str:
    """Returns the first line of an error's innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _is_passing(error: BaseException) -> bool:
    """Tells whether waiting may help: taken to be so unless the error says otherwise."""
    from arlow_trainer.data.decode import BrokenSample

    if (
        isinstance(error, (*_LASTING, BrokenSample))
        or not isinstance(error, Exception)
        or _is_refusal(error)
    ):
        return False
    if isinstance(error, OSError) and error.errno in _LASTING_ERRNOS:
        return False
    status = _status(error)
    return status is None or not 400 <= status < 500 or status in _PASSING_STATUSES


def _is_refusal(error: BaseException) -> bool:
    # botocore, google-auth and azure-core share no base class, but their names.
    names = {base.__name__ for base in type(error).__mro__}
    refused = isinstance(error, PermissionError) or _status(error) in (401, 403)
    return refused or any("Credential" in name or "Authentication" in name for name in names)


def _status(error: BaseException) -> int | None:
    """Returns the HTTP status, as httpx, requests, azure-core, aiohttp and gcsfs carry it."""
    response = getattr(error, "response", None)
    for carrier, name in ((response, "status_code"), (error, "status"), (error, "code")):
        status = getattr(carrier, name, None)
        if isinstance(status, int):
            return status
    return None


def _tell(place: str, state: RetryCallState) -> None:
    """Logs the first of a series of failures: many processes may meet one outage."""
    error = state.outcome.exception() if state.outcome else None
    if state.attempt_number == 1 and error is not None:
        reason = summary(error)
        log.warning("%s: %s; trying again for up to %d minutes", place, reason, _MINUTES)


PATIENCE = Retrying(
    retry=retry_if_exception(_is_passing),
    stop=stop_after_delay(60 * _MINUTES),
    # Random, so that the processes of all ranks do not return to a strained store at once.
    wait=wait_random_exponential(max=30),
    reraise=True,
)
