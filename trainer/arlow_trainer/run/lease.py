"""At most one live run per URL: a lease object that its holder renews and a second run respects.

The lease is written only while its version is the one that was judged (`Store.write_if_unchanged`),
so of several runs that want it one succeeds. Whether its holder lives is judged by its renewals, as
a waiting run sees them by its own monotonic clock: no clock is compared with another machine's.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from arlow_trainer.config.errors import ArlowError, LeaseError, LeaseLost
from arlow_trainer.config.shown_text import printable
from arlow_trainer.run.attempt_logs import ATTEMPT_VARIABLE
from arlow_trainer.storage.store import Store

LEASE_FILE = "lease.json"
TTL_S = 60.0
MAX_POLL_S = 1.0
MAX_LOST_RACES = 10
RELEASE_TIMEOUT_S = 30.0
STARTED_TOLERANCE_S = 5.0
MAX_PID = 2**31 - 1

log = logging.getLogger(__name__)


class LeaseRecord(BaseModel):
    """What `lease.json` holds. Times are seconds since 1970, by the holder's clock.

    `machine` identifies one boot of one process namespace: only there do `pid` and the process's
    start identify the holder. `started_after_boot` is that in seconds which no change of the clock
    moves; None where the system does not tell it, and in leases of earlier versions.
    """

    # A later version's lease must not count as damaged, and hence as none.
    model_config = ConfigDict(extra="ignore", frozen=True)

    owner: str
    token: str
    host: str
    machine: str
    pid: Annotated[int, Field(ge=1, le=MAX_PID)]
    process_started: float
    started_after_boot: float | None = None
    acquired: float
    renewed: float


class Verdict(Enum):
    """What a lease in the store means for a run that wants the URL."""

    FREE = "free"
    TAKE_OVER = "take over"
    WAIT = "wait"
    REFUSED = "refused"


def judge(
    held: LeaseRecord | None,
    *,
    machine: str,
    holder_alive: Callable[[LeaseRecord], bool],
    changed: bool,
    unchanged_s: float,
    ttl_s: float,
) -> Verdict:
    """Decides about the lease in the store, `held`, for a run on `machine`.

    `holder_alive` is called only for a holder on this machine: there a dead process loses its lease
    at once and a living one keeps it, even while it is suspended. A holder on another machine is
    alive if its lease has `changed` since this run first saw it, and dead if it has been unchanged
    for more than `ttl_s` seconds; until one of them is seen, this run waits.
    """
    if held is None:
        return Verdict.FREE
    if held.machine == machine:
        return Verdict.REFUSED if holder_alive(held) else Verdict.TAKE_OVER
    if changed:
        return Verdict.REFUSED
    return Verdict.TAKE_OVER if unchanged_s > ttl_s else Verdict.WAIT


def holder_name(run: str, environ: Mapping[str, str]) -> str:
    """Names a run's attempt: the run, and in a cluster the attempt's number and the pod."""
    in_pod = "KUBERNETES_SERVICE_HOST" in environ
    attempt = environ.get(ATTEMPT_VARIABLE, "")
    pod = environ.get("ARLOW_POD") or (environ.get("HOSTNAME", "") if in_pod else "")
    name = run + (f", attempt {attempt}" if attempt else "") + (f", pod {pod}" if pod else "")
    return printable(name)


class Lease(AbstractContextManager["Lease"]):
    """The right to write to a run URL, renewed by a thread until `release`.

    When the lease turns out to be another run's, `loss` becomes the error to raise, and `on_lost`
    is called once with it from the renewing thread: this run must then stop without writing
    anything more.
    """

    def __init__(
        self,
        store: Store,
        record: LeaseRecord,
        version: str,
        ttl_s: float,
        on_lost: Callable[[LeaseError], None] | None,
    ) -> None:
        self._store = store
        self._record = record
        self._version = version
        self._renewed = time.monotonic()
        self._ttl_s = ttl_s
        self._on_lost = on_lost
        self.loss: LeaseError | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(
        cls,
        store: Store,
        owner: str,
        ttl_s: float = TTL_S,
        *,
        on_lost: Callable[[LeaseError], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> Lease:
        """Acquires the lease of `store` for `owner`, waiting for a holder elsewhere to show life.

        The wait ends when the holder renews its lease, which a live one does every third of
        `ttl_s`, or when it has not for `ttl_s` seconds; the lease is then taken over. `check` is
        called meanwhile and may raise. Raises LeaseError when another live run holds the lease,
        StoreError when the store fails.
        """
        record = _new_record(owner)
        asked = time.monotonic()
        first = found = _read(store)
        # From after the first answer to before the last question: an answer may take long.
        since, waiting, lost_races = time.monotonic(), False, 0
        while True:
            verdict = judge(
                found.record,
                machine=record.machine,
                holder_alive=process_alive,
                changed=found.version != first.version or lost_races > 0,
                unchanged_s=asked - since,
                ttl_s=ttl_s,
            )
            if verdict is Verdict.REFUSED or lost_races > MAX_LOST_RACES:
                raise LeaseError(_refusal(store, found.record))
            if verdict is Verdict.WAIT:
                if not waiting and found.record is not None:
                    log.warning(
                        "%s is in use by %s: waiting for up to %.0f s whether it still lives",
                        store.url,
                        _who(found.record),
                        ttl_s,
                    )
                waiting = True
            else:
                # Since now, not since this run began to wait for another's end.
                now = time.time()
                record = record.model_copy(update={"acquired": now, "renewed": now})
                try:
                    version = store.write_if_unchanged(LEASE_FILE, _to_bytes(record), found.version)
                except ArlowError:
                    # It may have been written though no answer came.
                    _withdraw(store, record)
                    raise
                if version is not None:
                    return cls(store, record, version, ttl_s, on_lost)
                lost_races += 1
            if check is not None:
                check()
            time.sleep(min(MAX_POLL_S, ttl_s / 4))
            asked = time.monotonic()
            found = _read(store)

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self, timeout_s: float = RELEASE_TIMEOUT_S) -> None:
        """Stops renewing and removes the lease, if it is still this run's; waits at most
        `timeout_s` seconds for a store that does not answer."""
        self._stopping.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning(
                "%s does not answer: the lease ends by itself, %.0f s after its last renewal",
                self._store.url,
                self._ttl_s,
            )

    def _work(self) -> None:
        while not self._stopping.wait(self._ttl_s / 3):
            try:
                self._renew()
            except ArlowError as error:
                # A store that is out of reach does not mean the lease is lost: if another run takes
                # it over, the next renewal that succeeds shows that.
                log.warning("the lease could not be renewed: %s", error)
            if self.loss is not None:
                return
        _withdraw(self._store, self._record)

    def _renew(self) -> None:
        data = _to_bytes(self._record.model_copy(update={"renewed": time.time()}))
        version = self._store.write_if_unchanged(LEASE_FILE, data, self._version)
        if version is None:
            found = _read(self._store)
            if found.record is not None and not _is_of(self._record, found):
                self._lose(f"was taken over by {_who(found.record)}")
                return
            if found.record is None and time.monotonic() - self._renewed > self._ttl_s:
                self._lose("may have been taken over and left again while it was not renewed")
                return
            # Removed by hand, or written by a renewal whose answer was lost.
            version = self._store.write_if_unchanged(LEASE_FILE, data, found.version)
        if version is not None:
            self._version, self._renewed = version, time.monotonic()

    def _lose(self, what: str) -> None:
        self.loss = LeaseLost(
            f"{self._store.url} {what}. This run stops, so that the two do "
            "not overwrite each other's checkpoints. Keep one of them, or give one another name."
        )
        log.error("%s", self.loss)
        if self._on_lost is not None:
            self._on_lost(self.loss)


def version_held_by(store: Store, processes: Collection[int]) -> str | None:
    """Returns the version of a lease that one of this machine's processes holds, else None."""
    found = _read(store)
    held = found.record
    if held is None or held.machine != this_machine() or held.pid not in processes:
        return None
    return found.version


def process_alive(holder: LeaseRecord) -> bool:
    """Whether the process that wrote the lease still runs on this machine.

    A zombie counts as dead; the start time distinguishes another process with the same number.
    """
    started = _started_after_boot(holder.pid)
    try:
        process = psutil.Process(holder.pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return False
        if started is not None and holder.started_after_boot is not None:
            return started == holder.started_after_boot
        return abs(process.create_time() - holder.process_started) < STARTED_TOLERANCE_S
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _started_after_boot(pid: int) -> float | None:
    """Returns the seconds from this machine's boot to a process's start; None if nothing tells.

    psutil's time of creation adds the boot's, which moves whenever somebody sets the clock: a run
    that lives would seem to be another process.
    """
    try:
        # The name in parentheses may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def this_machine() -> str:
    """Identifies this boot of this machine and this process namespace (a container has its own)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{uuid.getnode():012x}/{int(psutil.boot_time())}"


def _new_record(owner: str) -> LeaseRecord:
    now = time.time()
    return LeaseRecord(
        owner=owner,
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=this_machine(),
        pid=os.getpid(),
        process_started=psutil.Process().create_time(),
        started_after_boot=_started_after_boot(os.getpid()),
        acquired=now,
        renewed=now,
    )


@dataclass(frozen=True)
class _Found:
    """The lease in the store: `record` is None where it is missing or damaged, `version` where it
    is missing."""

    record: LeaseRecord | None
    version: str | None


def _read(store: Store) -> _Found:
    found = store.read_versioned(LEASE_FILE)
    if found is None:
        return _Found(None, None)
    try:
        return _Found(LeaseRecord.model_validate_json(found.data), found.version)
    except ValidationError:
        log.warning("%s cannot be read and is ignored", store.url_of(LEASE_FILE))
        return _Found(None, found.version)


def _is_of(record: LeaseRecord, found: _Found) -> bool:
    return found.record is not None and found.record.token == record.token


def _withdraw(store: Store, record: LeaseRecord) -> None:
    """Removes the lease where it is still this record's; a failure is a warning."""
    try:
        found = _read(store)
        if _is_of(record, found) and found.version is not None:
            store.delete_if_unchanged(LEASE_FILE, found.version)
    except ArlowError as error:
        log.warning("the lease ends by itself after a while: %s", error)


def _to_bytes(record: LeaseRecord) -> bytes:
    return (record.model_dump_json(indent=1) + "\n").encode()


def _who(record: LeaseRecord) -> str:
    return (
        f"{record.owner} (process {record.pid} on {record.host}, since {_as_date(record.acquired)})"
    )


def _as_date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} s after 1970"


def _refusal(store: Store, held: LeaseRecord | None) -> str:
    if held is None:
        return (
            f"{store.url} is being claimed by another run at this moment. Start again in a while, "
            "or give this run another metadata.name."
        )
    return (
        f"{store.url} is in use by {_who(held)}, which is alive. Wait for that run or stop it, or "
        "give this run another metadata.name."
    )
