"""Where a run's time goes: from one status to the next. Pure."""

from __future__ import annotations

from datetime import datetime

from arlow_operator.status import GoodputStatus, Phase, Status, whole_second

KINDS: dict[Phase, str] = {
    "Queued": "queued_seconds",
    "Starting": "starting_seconds",
    "Restarting": "starting_seconds",
    "Running": "productive_seconds",
}


def account(before: Status, after: Status, now: datetime) -> GoodputStatus:
    """Returns the seconds of each kind, with those since the last account added.

    The time counts for the phase that the run was in. A restart turns what was trained since the
    newest checkpoint, as far as the trainer was heard, from productive into lost seconds.
    """
    known = before.goodput or GoodputStatus()
    if before.phase not in KINDS and after.phase == before.phase and known.as_of:
        # Time that counts for nothing is no reason to write.
        return known
    now = whole_second(now)
    passed = (now - known.as_of).total_seconds() if known.as_of else 0.0
    seconds = known.model_dump(exclude={"as_of"})
    if kind := KINDS.get(before.phase):
        seconds[kind] += round(passed)
    if after.restarts.total > before.restarts.total:
        lost = min(round(_since_checkpoint(before)), seconds["productive_seconds"])
        seconds["productive_seconds"] -= lost
        seconds["lost_seconds"] += lost
    return GoodputStatus(**seconds, as_of=now)


def _since_checkpoint(status: Status) -> float:
    heard = status.progress.last_update_time if status.progress else None
    began = status.attempt.start_time if status.attempt else None
    saved = status.last_checkpoint.time if status.last_checkpoint else None
    start = max((each for each in (began, saved) if each), default=None)
    return max(0.0, (heard - start).total_seconds()) if heard and start else 0.0
