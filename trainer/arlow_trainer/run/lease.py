"""At most one live run per URL: a lease object that its holder renews and a second run respects.

fsspec offers no compare-and-swap on object stores, so a lease is written and, after a pause in
which another run's write would have arrived, read back. If two runs still hold it, the one whose
token was replaced finds out at its next renewal and stops.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from arlow_trainer.config.errors import ArlowError, LeaseError, LeaseLost
from arlow_trainer.storage.errors import MissingObject
from arlow_trainer.storage.store import Store

LEASE_FILE = "lease.json"
TTL_S = 60.0
SETTLE_S = 1.0
SETTLE_LOCAL_S = 0.1
RELEASE_TIMEOUT_S = 30.0
STARTED_TOLERANCE_S = 5.0

Clock = Callable[[], float]

log = logging.getLogger(__name__)


class LeaseRecord(BaseModel):
    """What `lease.json` holds. Times are seconds since 1970.

    `machine` identifies one boot of one process namespace: only there do `pid` and
    `process_started` identify the holder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: str
    token: str
    host: str
    machine: str
    pid: int
    process_started: float
    acquired: float
    renewed: float


class Verdict(Enum):
    """What a lease in the store means for a run that wants the URL."""

    FREE = "free"
    TAKE_OVER = "take over"
    REFUSED = "refused"


def judge(
    held: LeaseRecord | None,
    *,
    machine: str,
    holder_alive: Callable[[LeaseRecord], bool],
    unchanged_s: float,
    ttl_s: float,
) -> Verdict:
    """Decides about the lease in the store, `held`, for a run on `machine`.

    `holder_alive` is called only for a holder on this machine: there a dead process loses its lease
    at once and a living one keeps it, even while it is suspended. On another machine the lease ends
    when this run has seen it unchanged for more than `ttl_s` seconds: `unchanged_s` is measured by
    this run's own clock, because the clocks of two machines may differ.
    """
    if held is None:
        return Verdict.FREE
    if held.machine == machine:
        return Verdict.REFUSED if holder_alive(held) else Verdict.TAKE_OVER
    return Verdict.TAKE_OVER if unchanged_s > ttl_s else Verdict.REFUSED


class Lease(AbstractContextManager["Lease"]):
    """The right to write to a run URL, renewed by a thread until `release`.

    When another holder's token is found in the lease, `loss` becomes the error to raise, and
    `on_lost` is called once with it from the renewing thread: this run must then stop without
    writing anything more.
    """

    def __init__(
        self,
        store: Store,
        record: LeaseRecord,
        ttl_s: float,
        clock: Clock,
        on_lost: Callable[[LeaseError], None] | None,
    ) -> None:
        self._store = store
        self._record = record
        self._ttl_s = ttl_s
        self._clock = clock
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
        clock: Clock = time.time,
        *,
        wait_s: float = 0.0,
        on_lost: Callable[[LeaseError], None] | None = None,
    ) -> Lease:
        """Acquires the lease of `store` for `owner`, waiting up to `wait_s` for its holder to end.

        A wait of more than `ttl_s` is longer than the lease of a holder that died on another
        machine. Where a lease of another machine has expired by its own clock, this run watches it
        for `ttl_s` whatever `wait_s` is, because that clock may be slow. Raises LeaseError when
        another live run holds the lease, StoreError when the store fails.
        """
        begun = since = time.monotonic()
        seen = _read(store)
        ended = seen if _looks_ended(seen, clock(), ttl_s) else None
        while True:
            record = _new_record(owner, clock())
            held, now = _read(store), time.monotonic()
            if held != seen:
                seen, since = held, now
            verdict = judge(
                held,
                machine=record.machine,
                holder_alive=process_alive,
                unchanged_s=now - since,
                ttl_s=ttl_s,
            )
            if verdict is not Verdict.REFUSED:
                if _write_confirmed(store, record, held):
                    return cls(store, record, ttl_s, clock, on_lost)
                held = _read(store)
            if now - begun >= wait_s and (held is None or held != ended):
                raise LeaseError(_refusal(store, held, ttl_s))
            time.sleep(min(1.0, ttl_s / 4))

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
                held = _read(self._store)
                if held is not None and held.token != self._record.token:
                    self._lose(held)
                    return
                renewed = self._record.model_copy(update={"renewed": self._clock()})
                self._store.write_bytes(LEASE_FILE, _to_bytes(renewed))
            except ArlowError as error:
                # A store that is out of reach does not mean the lease is lost: if another run takes
                # it over, the next successful read shows that.
                log.warning("the lease could not be renewed: %s", error)
        try:
            held = _read(self._store)
            if held is not None and held.token == self._record.token:
                self._store.delete(LEASE_FILE)
        except ArlowError as error:
            log.warning("the lease ends by itself in %.0f s: %s", self._ttl_s, error)

    def _lose(self, by: LeaseRecord) -> None:
        self.loss = LeaseLost(
            f"{self._store.url} was taken over by {_who(by)}. This run stops, so that the two do "
            "not overwrite each other's checkpoints. Keep one of them, or give one another name."
        )
        log.error("%s", self.loss)
        if self._on_lost is not None:
            self._on_lost(self.loss)


def process_alive(holder: LeaseRecord) -> bool:
    """Whether the process that wrote the lease still runs on this machine.

    A zombie counts as dead; the start time distinguishes another process with the same number.
    """
    try:
        process = psutil.Process(holder.pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return False
        return abs(process.create_time() - holder.process_started) < STARTED_TOLERANCE_S
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def this_machine() -> str:
    """Identifies this boot of this machine and this process namespace (a container has its own)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{uuid.getnode():012x}/{int(psutil.boot_time())}"


def _new_record(owner: str, now: float) -> LeaseRecord:
    return LeaseRecord(
        owner=owner,
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=this_machine(),
        pid=os.getpid(),
        process_started=psutil.Process().create_time(),
        acquired=now,
        renewed=now,
    )


def _looks_ended(held: LeaseRecord | None, now: float, ttl_s: float) -> bool:
    if held is None or held.machine == this_machine() or now - held.renewed <= ttl_s:
        return False
    log.warning("watching for %.0f s whether %s has ended, as it seems", ttl_s, _who(held))
    return True


def _write_confirmed(store: Store, record: LeaseRecord, held: LeaseRecord | None) -> bool:
    """Writes the lease and reads it back; False when another run was faster."""
    data = _to_bytes(record)
    if held is None:
        # Where the store can create exclusively, this alone decides between two new runs. A damaged
        # lease reads as none but still exists, so it is overwritten.
        if not store.create_bytes(LEASE_FILE, data) and _read(store) is None:
            store.write_bytes(LEASE_FILE, data)
    else:
        store.write_bytes(LEASE_FILE, data)
    time.sleep(SETTLE_S if store.local_path is None else SETTLE_LOCAL_S)
    found = _read(store)
    return found is not None and found.token == record.token


def _read(store: Store) -> LeaseRecord | None:
    try:
        return LeaseRecord.model_validate_json(store.read_bytes(LEASE_FILE))
    except MissingObject:
        return None
    except ValidationError:
        log.warning("%s cannot be read and is ignored", store.url_of(LEASE_FILE))
        return None


def _to_bytes(record: LeaseRecord) -> bytes:
    return (record.model_dump_json(indent=1) + "\n").encode()


def _who(record: LeaseRecord) -> str:
    since = datetime.fromtimestamp(record.acquired, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{record.owner} (process {record.pid} on {record.host}, since {since})"


def _refusal(store: Store, held: LeaseRecord | None, ttl_s: float) -> str:
    if held is None:
        return (
            f"{store.url} is being claimed by another run at this moment. Start again in a while, "
            "or give this run another metadata.name."
        )
    renewed = datetime.fromtimestamp(held.renewed, UTC).strftime("%H:%M:%S UTC")
    return (
        f"{store.url} is in use by {_who(held)}, last renewed at {renewed}. Wait for that run or "
        f"stop it (if it died on another machine, start again {ttl_s:.0f} s after that time), "
        "or give this run another metadata.name."
    )
