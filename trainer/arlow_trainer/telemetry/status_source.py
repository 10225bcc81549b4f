"""Where a run's status is read from outside: its process, or its store."""

from __future__ import annotations

import http.client
import math
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from pydantic import ValidationError

from arlow_trainer.config.errors import StoreError
from arlow_trainer.config.status import RunStatus
from arlow_trainer.storage.json_text import parse_object

STATUS_FILE = "status.json"
ANSWER_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 2**20

_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}")


class NoAnswer(Exception):
    """The run's status cannot be read now; the message says why."""


StatusSource = Callable[[], RunStatus]
"""Reads the run's status. Raises NoAnswer."""


def is_endpoint(target: str) -> bool:
    """Whether a target is a process's address (HOST:PORT, http://...) and not a file or store."""
    return target.startswith(("http://", "https://")) or bool(_HOST_PORT.fullmatch(target))


def from_endpoint(target: str) -> StatusSource:
    """Returns the source that requests a process's `/status`."""
    url = target if "://" in target else f"http://{target}"
    if urlsplit(url).path in ("", "/"):
        url = url.rstrip("/") + "/status"

    def read_status() -> RunStatus:
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S) as answer:
                return parse_status(answer.read(MAX_ANSWER_BYTES), url)
        except urllib.error.HTTPError as error:
            raise NoAnswer(f"{url} answers {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise NoAnswer(f"{url}: {_text(error.reason)}") from None
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{url}: {_text(error)}") from None

    return read_status


def from_store(read: Callable[[], bytes], url: str) -> StatusSource:
    """Returns the source that reads the status in a run's store, at `url`, with `read`."""

    def read_status() -> RunStatus:
        try:
            return parse_status(read(), url)
        except StoreError as error:
            raise NoAnswer(str(error)) from None

    return read_status


def parse_status(content: bytes, url: str) -> RunStatus:
    """Returns the status in an answer, without the credentials of URLs in it.

    Raises NoAnswer when it is none.
    """
    try:
        status = RunStatus.model_validate(parse_object(content))
        # Texts such as "inf" are numbers to pydantic.
        if not all(map(math.isfinite, _floats(status.model_dump()))):
            raise ValueError("numbers that are not finite")
        return status
    except (ValidationError, ValueError):
        raise NoAnswer(f"{url} does not hold the status of a run") from None


def _floats(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _floats(inner)


def _text(reason: object) -> str:
    return reason.strerror or str(reason) if isinstance(reason, OSError) else str(reason)
