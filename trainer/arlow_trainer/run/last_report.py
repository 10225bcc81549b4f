"""What rank 0 would have reported last, written by the launcher where rank 0 could not.

A rank 0 that was killed, or that waited on its GPU for a lost rank, leaves a status that says that
it trains, and a lease that nobody renews.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.errors import ArlowError, Interrupted
from arlow_trainer.config.status import ENDED, Phase, RunStatus
from arlow_trainer.run.lease import LEASE_FILE, version_held_by
from arlow_trainer.storage.errors import MissingObject
from arlow_trainer.storage.events import EventLog
from arlow_trainer.storage.options import store_of
from arlow_trainer.storage.store import Store

log = logging.getLogger(__name__)


def report_for_rank_0(
    run: ArlowPretrain, ranks: Collection[int], failure: ArlowError, timeout_s: float
) -> None:
    """Writes the last status and events, and gives the lease back; waits at most `timeout_s`.

    Args:
        run: the run.
        ranks: process numbers of its ranks, which have ended. Nothing is written unless one of
            them holds the lease: the folder would be another run's.
        failure: why the run ended.
        timeout_s: a store that does not answer is left alone after that.
    """

    def work() -> None:
        try:
            _report(store_of(run), run, ranks, failure)
        except ArlowError as error:
            log.warning("the run's last status is not written: %s", error)

    thread = threading.Thread(target=work, name="last report", daemon=True)
    thread.start()
    thread.join(timeout_s)


def _report(store: Store, run: ArlowPretrain, ranks: Collection[int], failure: ArlowError) -> None:
    # Not before: it imports numpy and rich, which a launcher of a run that goes well does without.
    from arlow_trainer.telemetry import STATUS_FILE

    version = version_held_by(store, ranks)
    if version is None:
        return
    phase: Phase = "stopped" if isinstance(failure, Interrupted) else "failed"
    events = EventLog(store)
    events.record("phase", phase=phase, message=str(failure))
    events.record("end", phase=phase)
    try:
        status = RunStatus.model_validate_json(store.read_bytes(STATUS_FILE))
    except (MissingObject, ValueError):
        status = RunStatus(run=run.metadata.name)
    if status.phase not in ENDED:
        status = status.model_copy(update={"phase": phase, "message": str(failure)})
        store.write_bytes(STATUS_FILE, status.model_dump_json(by_alias=True).encode())
    events.close()
    store.delete_if_unchanged(LEASE_FILE, version)
