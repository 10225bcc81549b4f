"""One operation on a store: who may, how often, how long, and what its failure means."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from arlow_trainer.config.errors import ArlowError
from arlow_trainer.storage.connection import Connection
from arlow_trainer.storage.errors import as_store_error
from arlow_trainer.storage.retries import briefly, persistently, renewing
from arlow_trainer.storage.timeouts import BoundedFileSystem, Deadline

TIMEOUT_S = 120.0
# A part of a large file has more time than a small object.
PARTS_TIMEOUT_FACTOR = 2.5

T = TypeVar("T")


class Access:
    """The way to a store of a scheme: its connection, and the rules of every operation there.

    An operation is retried, renews credentials that are refused, ends within `timeout_s` seconds
    without an answer, and raises CredentialsError or StoreError. Local files have no limit.
    """

    def __init__(
        self, url: str, scheme: str, options: Mapping[str, Any], timeout_s: float = TIMEOUT_S
    ) -> None:
        self.connection = Connection(url, scheme, dict(options))
        self._scheme, self._timeout_s = scheme, timeout_s
        # A list, so that the copies of this instance share it.
        self._forbidden: list[ArlowError] = []
        self._given_up: threading.Event | None = None
        self._within: Callable[[float], float] | None = None

    def forbid_writes(self, reason: ArlowError) -> None:
        """Makes every later "write" and "delete" of this one and its copies raise `reason`."""
        self._forbidden.append(reason)

    def persistent(self, given_up: threading.Event) -> Access:
        """Returns a copy that retries for minutes; its operations end when `given_up` is set."""
        inner = copy.copy(self)
        inner._given_up = given_up
        return inner

    def stoppable(self, within: Callable[[float], float]) -> Access:
        """Returns a copy whose operations end soon when `within` returns less than it is given."""
        inner = copy.copy(self)
        inner._within = within
        return inner

    def deadline(self, parts: bool = False) -> Deadline:
        """Returns the time limit of an operation; with `parts`, of each part of a large file."""
        limit_s = self._timeout_s * (PARTS_TIMEOUT_FACTOR if parts else 1.0)
        return Deadline(limit_s, self._given_up, self._within)

    def run(
        self,
        doing: str,
        root: str,
        key: str,
        work: Callable[[Any, str], T],
        deadline: Deadline | None = None,
    ) -> T:
        """Returns `work(file system, path)` of the object `key` under the URL `root`.

        `doing` ("read", "write", "list", "delete") is for messages, and for what is forbidden.
        """
        bound = deadline or self.deadline()
        url = f"{root}/{key}" if key else root
        retrying = briefly() if self._given_up is None else persistently(url, self._given_up)
        used: Any = None

        def once() -> T:
            nonlocal used
            if self._forbidden and doing in ("write", "delete"):
                raise self._forbidden[0]
            if self._given_up is not None:
                bound.renew()  # Its minutes of retries are longer than an answer may take.
            used = self.connection.file_system()
            fs = BoundedFileSystem(used, bound)
            path = str(fs._strip_protocol(root))
            return work(fs, f"{path.rstrip('/')}/{key}" if key else path)

        def renew() -> None:
            self.connection.renew(used)
            bound.renew()

        local = self._scheme in ("file", "memory")
        try:
            result = retrying(once) if local else renewing(renew)(lambda: retrying(once))
        except ArlowError:
            raise
        except Exception as error:
            worked = doing in self.connection.worked
            raise as_store_error(error, doing, url, self._scheme, worked=worked) from error
        self.connection.worked.add(doing)
        return result
