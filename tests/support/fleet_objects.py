"""Runs as the Kubernetes API lists them: one that trains, one queued, one stalled, one failed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def fleet_object(
    name: str, namespace: str = "team", gpus: int | None = 8, **status: Any
) -> dict[str, Any]:
    """Returns a run with a status; one without any has none."""
    return {
        "apiVersion": "arlow.dev/v1alpha1",
        "kind": "ArlowPretrain",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": "7"},
        "spec": {"nodes": {"gpus": gpus}},
        **({"status": status} if status else {}),
    }


def condition(kind: str, reason: str, message: str = "", status: str = "True") -> dict[str, str]:
    """Returns a condition."""
    return {"type": kind, "status": status, "reason": reason, "message": message}


def goodput(productive: int, lost: int = 0, starting: int = 0, queued: int = 0) -> dict[str, int]:
    """Returns where a run's time went, in hours."""
    hours = {"productive": productive, "lost": lost, "starting": starting, "queued": queued}
    return {f"{kind}Seconds": number * 3600 for kind, number in hours.items()}


def training(**changes: Any) -> dict[str, Any]:
    """Returns the status of a run that trains, at NOW."""
    return {
        "phase": "Running",
        "attempt": {"number": 2},
        "progress": {
            "step": 1200,
            "totalSteps": 5004,
            "loss": 0.2445,
            "imagesPerSecond": 1630.4,
            "mfu": 0.312,
            "etaSeconds": 11520,
            "eta": "3h12m",
            "lastUpdateTime": "2026-01-02T11:59:55Z",
        },
        "lastCheckpoint": {"step": 1100, "time": "2026-01-02T11:56:00Z"},
        "restarts": {"total": 1},
        "goodput": goodput(productive=18, lost=1, starting=1, queued=4),
        "conditions": [condition("Running", "Training")],
    } | changes


def fleet_objects() -> list[dict[str, Any]]:
    """Returns a run of every kind."""
    no_step = (
        "no step after 300 for 700 s, and 600 s are allowed (spec.failurePolicy.stall); its "
        "stacks go to s3://arlow/runs/stalled/logs/1/"
    )
    spent = (
        "ended 6 times for the cause crash, and spec.failurePolicy.maxRestarts.crash is 5; the "
        "last end: rank 3 on node-7: CUDA error: an illegal memory access"
    )
    queue = "queued in the LocalQueue vision: couldn't assign flavors to pod set main"
    stalled = [
        condition("Running", "Training", no_step),
        condition("TrainingStalled", "NoStep", no_step),
    ]
    return [
        fleet_object("vision-3072", **training()),
        fleet_object(
            "waits",
            phase="Queued",
            attempt={"number": 1},
            message=queue,
            goodput=goodput(0, queued=3),
            conditions=[condition("Running", "Queued", queue, "False")],
        ),
        fleet_object("stalled", **training(attempt={"number": 1}, conditions=stalled)),
        fleet_object(
            "broken",
            "research",
            phase="Failed",
            attempt={"number": 7},
            restarts={"total": 6},
            progress={"step": 40, "totalSteps": 5004, "loss": 0.9},
            goodput=goodput(2, lost=2),
            message=spent,
            conditions=[condition("Failed", "BudgetSpent", spent)],
        ),
        fleet_object(
            "done", "research", 0, phase="Succeeded", progress={"step": 9, "totalSteps": 9}
        ),
    ]
