"""`arlow-operator`: the process around it all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import kopf
from aiohttp import ClientSession

from arlow_operator.api import Api, ApiError
from arlow_operator.handlers import register
from arlow_operator.health import Health
from arlow_operator.lease import OperatorLease
from arlow_operator.reconcile import Key, Reconciler
from arlow_operator.resource import RUN_LABEL
from arlow_operator.settings import Settings, settings_from
from arlow_operator.work_queue import WorkQueue
from arlow_trainer.config import ConfigError

log = logging.getLogger("arlow_operator")

WORKERS = 4
HEALTH_PORT = 8080
PASS_TIMEOUT_S = 30.0
FAILED_AGAIN_S = 5.0
RELIST_S = 60.0


def main() -> None:
    """Runs the operator until SIGTERM."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # A line for every event that was handled says nothing.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    try:
        settings = settings_from()
    except ConfigError as error:
        sys.exit(f"error: {error}")
    asyncio.run(run_operator(settings))


async def run_operator(settings: Settings) -> None:
    """Looks after runs, once it is the only operator, until SIGTERM or until a watch has died."""
    api = await Api.connected()
    try:
        if settings.lease_namespace is None:
            await _look_after_runs(api, settings, None)
            return
        lease = OperatorLease(api, settings.lease_namespace, settings.identity)
        await _unless_stopped(lease.acquire())
        try:
            await _look_after_runs(api, settings, lease)
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


async def _look_after_runs(api: Api, settings: Settings, lease: OperatorLease | None) -> None:
    queue: WorkQueue[Key] = WorkQueue()
    async with ClientSession(trust_env=False) as http, asyncio.TaskGroup() as tasks:
        health = Health()
        reconciler = Reconciler(api, http, settings)
        background = [tasks.create_task(_work(queue, reconciler)) for _ in range(WORKERS)]
        background.append(tasks.create_task(_relist(api, queue, health, settings)))
        if lease:
            background.append(tasks.create_task(lease.keep()))

        def stop() -> None:
            for task in background:
                task.cancel()

        log.info("looks after the runs of %s", ", ".join(settings.namespaces) or "all namespaces")
        # The default registry has the handlers that log in.
        registry = kopf.get_default_registry()
        register(registry, reconciler, queue.add, health, stop)
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


async def _work(queue: WorkQueue[Key], reconciler: Reconciler) -> None:
    while True:
        key = await queue.take()
        again: float | None = FAILED_AGAIN_S
        try:
            async with asyncio.timeout(PASS_TIMEOUT_S):
                again = await reconciler.reconcile(key)
        except ApiError as error:
            log.warning("%s: %s: %s", "/".join(key), error.where, error)
        except TimeoutError:
            log.warning("%s: the pass took more than %g s", "/".join(key), PASS_TIMEOUT_S)
        except Exception:
            # A bug in one pass must not end the looking after of all other runs.
            log.exception("%s: the pass failed", "/".join(key))
        finally:
            queue.done(key)
        if again is not None:
            queue.add_after(key, again)


async def _relist(api: Api, queue: WorkQueue[Key], health: Health, settings: Settings) -> None:
    """Finds each minute what no event told of."""
    while True:
        try:
            for namespace in settings.namespaces or (None,):
                for body in await api.list_runs(namespace):
                    queue.add(Key(body["metadata"]["namespace"], body["metadata"]["name"]))
            await queue.drained()
            health.full_pass()
        except ApiError as error:
            log.warning("the runs cannot be listed: %s", error)
        await asyncio.sleep(RELIST_S)
