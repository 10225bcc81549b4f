"""An attempt's logs in the run's URL: `logs/<attempt>/rank-<rank>.log` and those of its workers.

Attempts are numbered from 1 on; `logs/<attempt>/attempt.json` reserves a number for the one attempt
that writes it. The launcher stores what the processes wrote to local files, and so also what a
killed rank left.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from arlow_trainer.config.errors import ConfigError, StoreError
from arlow_trainer.storage.outbox import CLOSE_TIMEOUT_S, Outbox
from arlow_trainer.storage.process_log import read_log
from arlow_trainer.storage.store import Store

LOGS = "logs"
RESERVATION = "attempt.json"
ATTEMPT_VARIABLE = "ARLOW_ATTEMPT"
INTERVAL_S = 120.0

MAX_ATTEMPT = 999_999_999
_MAX_TRIES = 100
"""Numbers that others may reserve before this run does, which none does for long."""
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_NAME = re.compile(r"rank-(\d+)(-worker-\d+|-compiler)?\.log")


def attempts(store: Store) -> list[int]:
    """Returns the numbers of the attempts that began, ascending. Raises StoreError."""
    return sorted(int(name) for name in store.list_dirs(LOGS) if _NUMBER.fullmatch(name))


def reserve_attempt(
    store: Store, environ: Mapping[str, str], check: Callable[[], None] | None = None
) -> int:
    """Returns a number that no attempt has or will have, for the one that begins now.

    In a cluster the operator's, from `ARLOW_ATTEMPT`, or a higher one where the run's URL has seen
    that already. Nobody else writes to the folder, even where another run takes the lease over.
    `check` is called before each try and may raise. Raises ConfigError for a value that is no
    number, and StoreError, also where no number is left.
    """
    given = _given_number(environ)
    content = {"started": datetime.now(UTC).isoformat(), "token": uuid.uuid4().hex}
    data = (json.dumps(content) + "\n").encode()
    refused = 0
    for _ in range(_MAX_TRIES):
        if check is not None:
            check()
        # What was refused is taken, though no listing may show it: a link to a folder.
        taken = max(refused, *attempts(store), 0)
        number = max(given, taken + 1)
        if number > MAX_ATTEMPT:
            raise StoreError(
                f"{store.url_of(f'{LOGS}/{taken}')}: no attempt can have a number above "
                f"{MAX_ATTEMPT:,}, and this one is taken. Move the folder away if no attempt of "
                "this run made it, or give the run another metadata.name."
            )
        key = f"{LOGS}/{number}/{RESERVATION}"
        if store.write_if_unchanged(key, data, version=None) is not None:
            return number
        refused = number
    raise StoreError(
        f"{store.url_of(LOGS)}: {_MAX_TRIES} numbers of attempts up to {refused:,} were taken "
        "before this run could. Check that no other program writes there, and start again."
    )


def _given_number(environ: Mapping[str, str]) -> int:
    text = environ.get(ATTEMPT_VARIABLE, "")
    if text and not _NUMBER.fullmatch(text):
        raise ConfigError(
            f"{ATTEMPT_VARIABLE}: {text!r} is not allowed; allowed: the attempt's number, from 1 on"
        )
    return int(text or 0)


def read_logs(
    store: Store, attempt: int | None = None, rank: int | None = None
) -> tuple[int, dict[str, str]]:
    """Returns the attempt and its logs by name, each as the text that its process wrote last.

    Without `attempt` the newest that has stored any, without `rank` of all ranks. Raises StoreError
    where there is none.
    """
    found = attempts(store)
    if not found:
        raise StoreError(f"{store.url} holds no logs: give the URL of a run that has trained")
    if attempt is not None and attempt not in found:
        raise StoreError(f"{store.url} has no logs of attempt {attempt}; it has those of {found}")
    for number in reversed(found) if attempt is None else [attempt]:
        folder = f"{LOGS}/{number}"
        matches = [match for name in store.list_files(folder) if (match := _NAME.fullmatch(name))]
        if matches:
            break
    else:
        raise StoreError(
            f"{store.url} holds no logs of attempt {attempt or found[-1]}: they are stored every "
            f"{INTERVAL_S:.0f} s and at the end, unless the launcher is killed"
        )
    chosen = [match for match in matches if rank in (None, int(match.group(1)))]
    if not chosen:
        ranks = sorted({int(match.group(1)) for match in matches})
        raise StoreError(
            f"attempt {number} of {store.url} has no logs of rank {rank}; it has those of {ranks}"
        )
    chosen.sort(key=lambda match: (int(match.group(1)), match.group(2) or ""))
    names = [match.group(0) for match in chosen]
    return number, {
        name: store.read_bytes(f"{folder}/{name}").decode(errors="replace") for name in names
    }


class LogUploader:
    """Stores the logs in a local folder every few minutes, and once more when it is closed.

    Nothing is stored before the attempt has a number, which it has when it holds the run's lease.
    A store that fails is a warning.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        number: Callable[[], int | None],
        warn: Callable[[str], None],
        interval_s: float = INTERVAL_S,
    ) -> None:
        """Starts the thread; `number` returns the attempt's once it is known."""
        self._store, self._folder, self._number = store, folder, number
        self._stored: dict[str, bytes] = {}
        self._outbox: Outbox[None] = Outbox(
            "logs", self._deliver, warn, max_items=1, interval_s=interval_s, idle_too=True
        )

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Stores what is new and ends, after `timeout_s` seconds at the latest."""
        if self._number() is not None:
            self._outbox.close(timeout_s)

    def _deliver(self, _: list[None]) -> None:
        number = self._number()
        if number is None:
            return
        for path in sorted(self._folder.glob("rank-*.log")):
            content = read_log(path)
            if content and content != self._stored.get(path.name):
                self._store.write_bytes(f"{LOGS}/{number}/{path.name}", content)
                self._stored[path.name] = content
