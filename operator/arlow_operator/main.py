"""`arlow-operator`: the process around it all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

import kopf
from aiohttp import ClientSession
from prometheus_client import start_http_server

from arlow_operator.api import Api, ApiError
from arlow_operator.apply import record_delivery
from arlow_operator.definition import differing_fields
from arlow_operator.handlers import register
from arlow_operator.health import Health
from arlow_operator.lease import OperatorLease
from arlow_operator.logs import configure_logging, of_run
from arlow_operator.metrics import Metrics
from arlow_operator.reconcile import Key, Reconciler
from arlow_operator.run_metrics import Runs
from arlow_operator.settings import Settings, settings_from
from arlow_operator.webhook import Webhook
from arlow_operator.work_queue import WorkQueue
from arlow_trainer.config import ConfigError
from arlow_trainer.config.object_names import RUN_LABEL

log = logging.getLogger("arlow_operator")

WORKERS = 4
HEALTH_PORT = 8080
METRICS_PORT = 8081
PASS_TIMEOUT_S = 30.0
FAILED_AGAIN_S = 5.0
RELIST_S = 60.0
# Of the grace of a pod that ends, 10 s; the Lease is given back in the rest.
LAST_NOTIFICATIONS_S = 4.0
COMPARE_S = 600.0


def main() -> None:
    """Runs the operator until SIGTERM."""
    configure_logging()
    try:
        settings = settings_from()
    except ConfigError as error:
        sys.exit(f"error: {error}")
    asyncio.run(run_operator(settings))


async def run_operator(settings: Settings) -> None:
    """Looks after runs, once it is the only operator, until SIGTERM or until a watch has died."""
    metrics = Metrics()
    api = await Api.connected(metrics.requested)
    start_http_server(METRICS_PORT, registry=metrics.registry)
    try:
        if settings.lease_namespace is None:
            await _look_after_runs(api, settings, metrics, None)
            return
        lease = OperatorLease(api, settings.lease_namespace, settings.identity)
        await _unless_stopped(lease.acquire())
        try:
            await _look_after_runs(api, settings, metrics, lease)
        finally:
            with contextlib.suppress(ApiError):
                await lease.release()
    finally:
        await api.close()


async def _unless_stopped(waiting: Coroutine[Any, Any, None]) -> None:
    """Waits, until SIGTERM ends the process: the first one of a container has no default action."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(waiting)
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        sys.exit(0)


async def _look_after_runs(
    api: Api, settings: Settings, metrics: Metrics, lease: OperatorLease | None
) -> None:
    queue: WorkQueue[Key] = WorkQueue()
    async with ClientSession(trust_env=False) as http, asyncio.TaskGroup() as tasks:
        health = Health()
        metrics.lead(queue.__len__, health.age)
        record = partial(record_delivery, api)
        webhook = Webhook(http, settings.webhook_file, metrics.notified, record)
        reconciler = Reconciler(api, http, settings, metrics.runs, webhook)
        background = [tasks.create_task(_work(queue, reconciler, metrics)) for _ in range(WORKERS)]
        background.append(tasks.create_task(_relist(api, queue, health, settings, metrics.runs)))
        background.append(tasks.create_task(_compare_definition(api, metrics)))
        if lease:
            background.append(tasks.create_task(lease.keep()))
        sending = tasks.create_task(webhook.send_all())

        def stop() -> None:
            for task in background:
                task.cancel()

        log.info("looks after the runs of %s", ", ".join(settings.namespaces) or "all namespaces")
        # The default registry has the handlers that log in.
        registry = kopf.get_default_registry()
        register(registry, reconciler, queue.add, health, metrics, stop)
        # It ends by SIGTERM, and raises when a watch has died.
        await kopf.operator(
            registry=registry,
            settings=_kopf_settings(),
            standalone=True,
            liveness_endpoint=f"http://0.0.0.0:{HEALTH_PORT}/healthz",
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
        )
        stop()
        await webhook.sent(LAST_NOTIFICATIONS_S)
        sending.cancel()


def _kopf_settings() -> kopf.OperatorSettings:
    kopf_settings = kopf.OperatorSettings()
    # Otherwise kopf takes the finalizers of other operators that are built on it for its own.
    kopf_settings.persistence.finalizer = "arlow.dev/kopf"
    kopf_settings.scanning.disabled = True
    kopf_settings.posting.enabled = False
    kopf_settings.networking.request_timeout = 10
    kopf_settings.networking.trust_env = False
    kopf_settings.watching.label_selectors["", "v1", "pods"] = RUN_LABEL
    kopf_settings.watching.label_selectors["batch", "v1", "jobs"] = RUN_LABEL
    return kopf_settings


async def _work(queue: WorkQueue[Key], reconciler: Reconciler, metrics: Metrics) -> None:
    while True:
        key = await queue.take()
        again: float | None = FAILED_AGAIN_S
        began, failed = time.monotonic(), True
        with of_run(namespace=key.namespace, run=key.name):
            try:
                async with asyncio.timeout(PASS_TIMEOUT_S):
                    again = await reconciler.reconcile(key)
                failed = False
            except ApiError as error:
                log.warning("%s: %s", error.where, error)
            except TimeoutError:
                log.warning("the pass took more than %g s", PASS_TIMEOUT_S)
            except Exception:
                # A bug in one pass must not end the looking after of all other runs.
                log.exception("the pass failed")
            finally:
                queue.done(key)
                metrics.passed(time.monotonic() - began, failed=failed)
        if again is not None:
            queue.add_after(key, again)


async def _relist(
    api: Api, queue: WorkQueue[Key], health: Health, settings: Settings, runs: Runs
) -> None:
    """Finds each minute what no event told of."""
    began: float | None = time.monotonic()
    while True:
        try:
            existing = set()
            for namespace in settings.namespaces or (None,):
                for body in await api.list_runs(namespace):
                    existing.add(Key(body["metadata"]["namespace"], body["metadata"]["name"]))
            runs.keep_only(existing)
            for key in existing:
                queue.add(key)
            await queue.drained()
            health.full_pass()
            if began is not None:
                seconds = time.monotonic() - began
                log.info("first full pass over %d runs after %.1f s", len(existing), seconds)
                began = None
        except ApiError as error:
            log.warning("the runs cannot be listed: %s", error)
        await asyncio.sleep(RELIST_S)


async def _compare_definition(api: Api, metrics: Metrics) -> None:
    """Looks now and then whether the cluster's definition is the one of this version."""
    told: set[str] = set()
    while True:
        try:
            differing = differing_fields(await api.read_published_schemas())
        except ApiError as error:
            log.warning("the cluster's definition cannot be compared: %s", error)
        else:
            if differing is not None:
                metrics.compared(len(differing))
                if differing and differing != told:
                    log.warning(
                        "the cluster's definition is of another version than this operator; only "
                        "one of them has %s",
                        ", ".join(sorted(differing)),
                    )
                told = differing
        await asyncio.sleep(COMPARE_S)
