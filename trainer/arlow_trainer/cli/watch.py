"""`arlow watch`: shows a running or finished run in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arlow_trainer.cli.options import Namespace, Overrides, complete_run

if TYPE_CHECKING:
    from arlow_trainer.config.status import LossPoint
    from arlow_trainer.storage.store import Store

ENDPOINT_INTERVAL_S = 1.0
STORE_INTERVAL_S = 5.0


def watch(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE|URL|HOST:PORT|apt/NAME",
            help="The run's manifest or preset, its URL (the folder of its checkpoints), the "
            "address of its /status, or the run in a cluster as kubectl names it.",
            autocompletion=complete_run,
        ),
    ],
    overrides: Overrides = None,
    namespace: Namespace = None,
    once: Annotated[
        bool, typer.Option("--once", help="Show the current status once, and exit.")
    ] = False,
) -> None:
    """Watch a run: progress, remaining time, loss, throughput, checkpoints.

    Continues across restarts of the run and exits when it is finished; Ctrl-C exits only the watch.
    """
    from rich.console import Console

    from arlow_trainer.cluster.runs import ClusterRun, run_name
    from arlow_trainer.config.errors import StoreError
    from arlow_trainer.telemetry.status_source import (
        STATUS_FILE,
        NoAnswer,
        from_endpoint,
        from_store,
        is_endpoint,
    )
    from arlow_trainer.telemetry.times import utc_now
    from arlow_trainer.telemetry.watch import WatchState, after_answer, panel, watch_run

    earlier: list[LossPoint] = []
    if name := run_name(target):
        run = ClusterRun.of(name, namespace)
        # A name that is wrong is told at once; later the cluster may be away for a while.
        run.read()
        source, interval = run.status, ENDPOINT_INTERVAL_S
    elif is_endpoint(target):
        source, interval = from_endpoint(target), ENDPOINT_INTERVAL_S
    else:
        store = _store(target, overrides)
        source = from_store(lambda: store.read_bytes(STATUS_FILE), store.url_of(STATUS_FILE))
        interval, earlier = STORE_INTERVAL_S, _earlier_losses(store)
    console = Console()
    if once:
        try:
            watched = after_answer(WatchState(losses=tuple(earlier)), source())
        except NoAnswer as error:
            raise StoreError(f"{target}: no status: {error}") from None
        console.print(panel(watched, target, utc_now()))
        return
    try:
        watch_run(source, target, console, interval, earlier)
    except KeyboardInterrupt:
        raise typer.Exit from None


def _store(target: str, overrides: list[str] | None) -> Store:
    from arlow_trainer.config import load_run
    from arlow_trainer.config.errors import ConfigError
    from arlow_trainer.config.presets import PRESETS
    from arlow_trainer.storage.options import store_of
    from arlow_trainer.storage.store import Store

    path = Path(target).expanduser()
    if "://" in target or path.is_dir():
        return Store(target)
    if target not in PRESETS and not path.exists():
        raise ConfigError(
            f"{target}: neither a run's folder, nor a manifest, nor a preset "
            f"({', '.join(PRESETS)}); give the run's folder, its URL or its manifest"
        )
    return store_of(load_run(target, overrides or ()))


def _earlier_losses(store: Store) -> list[LossPoint]:
    """Returns the losses in the run's stored history; empty where there is none yet."""
    from arlow_trainer.config.errors import StoreError
    from arlow_trainer.config.status import LossPoint
    from arlow_trainer.storage.jsonl import read_lines
    from arlow_trainer.telemetry import HISTORY_FILE, read_history

    try:
        lines = read_lines(store, HISTORY_FILE)
    except StoreError:
        return []
    points = read_history(line.decode("utf-8", "replace") for line in lines)
    return [
        LossPoint(step=point.step, loss=point.scalars["loss"])
        for point in points
        if "loss" in point.scalars
    ]
