"""What kopf calls: watch events nudge the queue, and nothing else happens in a handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf

from arlow_operator.health import Health
from arlow_operator.metrics import Metrics
from arlow_operator.reconcile import Key, Reconciler
from arlow_trainer.config.object_names import GROUP, PLURAL, RUN_LABEL, VERSION


def register(
    registry: kopf.OperatorRegistry,
    reconciler: Reconciler,
    nudge: Callable[[Key], None],
    health: Health,
    metrics: Metrics,
    stop: Callable[[], None],
) -> None:
    """Registers the watches of runs, and of their Jobs and pods; `stop` is called at the end."""
    owned = {RUN_LABEL: kopf.PRESENT}

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def on_run(body: kopf.Body, **_: Any) -> None:
        metrics.saw("runs")
        if key := reconciler.saw_run(body):
            nudge(key)

    @kopf.on.event("batch", "v1", "jobs", labels=owned, registry=registry)
    async def on_job(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        metrics.saw("jobs")
        if namespace:
            key = Key(namespace, labels[RUN_LABEL])
            reconciler.saw_child(key)
            nudge(key)

    @kopf.on.event("", "v1", "pods", labels=owned, registry=registry)
    async def on_pod(body: kopf.Body, **_: Any) -> None:
        metrics.saw("pods")
        if key := reconciler.saw_pod(body):
            nudge(key)

    @kopf.on.cleanup(registry=registry)
    async def on_cleanup(**_: Any) -> None:
        # kopf would wait for tasks that go on, for five seconds.
        stop()

    @kopf.on.probe(id="secondsSinceFullPass", registry=registry)
    async def on_probe(**_: Any) -> float:
        return health.check()
