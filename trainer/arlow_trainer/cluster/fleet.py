"""The runs of a cluster as the rows of a table, with the reason of what is not well. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from arlow_trainer.cluster.fields import count, moment, number, section, text
from arlow_trainer.cluster.object_status import NO_STATUS, PHASES
from arlow_trainer.config.cluster import NodesSection

# The operator asks a trainer at least every ten minutes.
UNHEARD_AFTER = timedelta(minutes=15)
# Reasons of the condition Running that somebody has to do something about, or to wait for.
HELD_UP = ("CannotStart", "Unreachable", "Stopping")
NODES = NodesSection()


@dataclass(frozen=True)
class GpuHours:
    """Where the hours of a run's GPUs went, by the number that it asks for now.

    Attributes:
        productive: training whose steps were kept.
        lost: training that restarts threw away.
        starting: from an attempt's beginning to its first step.
        queued: waiting for a queue.
    """

    productive: float = 0.0
    lost: float = 0.0
    starting: float = 0.0
    queued: float = 0.0

    def __add__(self, other: GpuHours) -> GpuHours:
        """Returns the hours of both."""
        return GpuHours(
            self.productive + other.productive,
            self.lost + other.lost,
            self.starting + other.starting,
            self.queued + other.queued,
        )


@dataclass(frozen=True)
class FleetRow:
    """A run. What its status does not say is None.

    Attributes:
        namespace, name: of the object.
        phase: of its status.
        stalled: whether its training makes no steps.
        reason: what is not well, and why; empty where all is.
        attempt: number of the attempt.
        step, total_steps: of the training.
        eta_seconds, loss, images_per_second, mfu: of a run that trains.
        goodput: share of the time on devices whose steps were kept; queues do not count.
        restarts: of the run in all.
        checkpoint_seconds: age of the newest checkpoint.
        gpus: that it asks for.
        hours: of its GPUs.
    """

    namespace: str
    name: str
    phase: str
    stalled: bool
    reason: str
    attempt: int | None
    step: int | None
    total_steps: int | None
    eta_seconds: float | None
    loss: float | None
    images_per_second: float | None
    mfu: float | None
    goodput: float | None
    restarts: int | None
    checkpoint_seconds: float | None
    gpus: int
    hours: GpuHours

    @property
    def over(self) -> bool:
        """Whether it has ended well, or was asked to wait."""
        return self.phase in ("Succeeded", "Suspended") and not self.reason


def fleet_rows(bodies: Iterable[Mapping[str, Any]], now: datetime) -> list[FleetRow]:
    """Returns the rows of objects, by namespace and name."""
    rows = (fleet_row(body, now) for body in bodies)
    return sorted(rows, key=lambda row: (row.namespace, row.name))


def fleet_row(body: Mapping[str, Any], now: datetime) -> FleetRow:
    """Returns the row of an object. A field of another type than it should be is absent."""
    metadata, status = section(body, "metadata"), section(body, "status")
    progress, spent = section(status, "progress"), section(status, "goodput")
    saved = moment(section(status, "lastCheckpoint"), "time")
    conditions = _conditions(status)
    phase = text(status, "phase")
    gpus = _gpus(section(body, "spec"))
    return FleetRow(
        namespace=text(metadata, "namespace"),
        name=text(metadata, "name"),
        # A version of the operator that is newer may know more of them.
        phase=phase if phase in PHASES else phase[:20] or "Pending",
        stalled=_holds(conditions, "TrainingStalled"),
        reason=_reason(status, conditions, now),
        attempt=count(section(status, "attempt"), "number"),
        step=count(progress, "step"),
        total_steps=count(progress, "totalSteps"),
        eta_seconds=number(progress, "etaSeconds"),
        loss=number(progress, "loss"),
        images_per_second=number(progress, "imagesPerSecond"),
        mfu=number(progress, "mfu"),
        goodput=_goodput(spent),
        restarts=count(section(status, "restarts"), "total"),
        checkpoint_seconds=max(0.0, (now - saved).total_seconds()) if saved else None,
        gpus=gpus,
        hours=_hours(spent, gpus),
    )


def _conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = status.get("conditions")
    listed = found if isinstance(found, list) else []
    return {text(each, "type"): each for each in listed if isinstance(each, dict)}


def _holds(conditions: Mapping[str, Mapping[str, Any]], kind: str) -> bool:
    return text(section(conditions, kind), "status") == "True"


def _reason(
    status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]], now: datetime
) -> str:
    """Returns what is not well with a run: a condition's reason and message."""
    if not status:
        return NO_STATUS
    for kind in ("Failed", "TrainingStalled"):
        if _holds(conditions, kind):
            return _told(conditions[kind], kind)
    phase = text(status, "phase")
    if phase in ("Succeeded", "Suspended"):
        return ""
    validated, running = section(conditions, "Validated"), section(conditions, "Running")
    if text(validated, "status") == "False":
        return _told(validated, "Invalid")
    if phase in ("Failed", "Queued", "Restarting") or text(running, "reason") in HELD_UP:
        return _told({"message": status.get("message"), **running}, phase)
    heard = moment(section(status, "progress"), "lastUpdateTime")
    if phase == "Running" and heard and now - heard > UNHEARD_AFTER:
        return f"nothing was heard of it since {heard:%Y-%m-%d %H:%M} UTC: does the operator run?"
    return ""


def _told(condition: Mapping[str, Any], otherwise: str) -> str:
    reason, message = text(condition, "reason") or otherwise, text(condition, "message")
    return f"{reason}: {message}" if message else reason


def _gpus(spec: Mapping[str, Any]) -> int:
    nodes = section(spec, "nodes")
    number_of_nodes, each = count(nodes, "count"), count(nodes, "gpus")
    return (NODES.count if number_of_nodes is None else number_of_nodes) * (
        NODES.gpus if each is None else each
    )


def _hours(spent: Mapping[str, Any], gpus: int) -> GpuHours:
    kinds = ("productive", "lost", "starting", "queued")
    return GpuHours(*((number(spent, f"{kind}Seconds") or 0.0) * gpus / 3600 for kind in kinds))


def _goodput(spent: Mapping[str, Any]) -> float | None:
    kinds = ("productive", "lost", "starting")
    productive, lost, starting = (number(spent, f"{kind}Seconds") or 0.0 for kind in kinds)
    used = productive + lost + starting
    return productive / used if used else None
