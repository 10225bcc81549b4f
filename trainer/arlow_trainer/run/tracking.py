"""Starts and ends the experiment trackers of a run."""

from __future__ import annotations

import os
from collections.abc import Callable

from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.errors import Interrupted
from arlow_trainer.config.stored import training_part
from arlow_trainer.run.owner import run_id
from arlow_trainer.storage.errors import MissingObject
from arlow_trainer.storage.grace import Grace
from arlow_trainer.storage.store import Store
from arlow_trainer.trackers import Outcome, TrackedRun, Tracker, Trackers
from arlow_trainer.trackers.choice import TrackerName, chosen_trackers
from arlow_trainer.trackers.trackers import OpenTracker

FINISH_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
"""For all trackers together, where the run was stopped or has failed."""


def start_trackers(
    run: ArlowPretrain, store: Store, attempt: int, step: int, warn: Callable[[str], None]
) -> Trackers:
    """Starts the trackers that the environment asks for, for rank 0.

    Args:
        run: the run.
        store: its URL, which it holds the lease of.
        attempt: the attempt's number.
        step: steps done, of the checkpoint that the run resumes from.
        warn: is told what trackers do not take, from any thread.
    """

    def read(key: str) -> bytes | None:
        try:
            return store.read_bytes(key)
        except MissingObject:
            return None

    def opener(name: TrackerName) -> OpenTracker:
        def open_tracker(warn: Callable[[str], None]) -> Tracker:
            tracked = TrackedRun(
                id=run_id(store),
                name=run.metadata.name,
                url=store.url,
                attempt=attempt,
                step=step,
                settings=training_part(run)["spec"]["training"],
                read=read,
            )
            return _open(name, tracked, store, warn)

        return open_tracker

    return Trackers({name: opener(name) for name in chosen_trackers(os.environ, warn)}, warn)


def end_trackers(trackers: Trackers, error: type[BaseException] | None, grace: Grace) -> None:
    """Ends the trackers of a run that ends with `error`, within a bounded time."""
    outcome: Outcome = "finished"
    if error is not None:
        outcome = "stopped" if issubclass(error, Interrupted) else "failed"
    limit_s = FINISH_TIMEOUT_S if error is None else STOP_TIMEOUT_S
    trackers.close(outcome, grace.within(limit_s))


def _open(name: TrackerName, run: TrackedRun, store: Store, warn: Callable[[str], None]) -> Tracker:
    # Here, on the tracker's thread: their packages take seconds to import.
    match name:
        case "TensorBoard":
            from arlow_trainer.trackers.tensorboard_files import TensorBoardFiles

            return TensorBoardFiles(run, store)
        case "MLflow":
            from arlow_trainer.trackers.mlflow_run import MlflowRun

            return MlflowRun(run, warn)
        case "Weights & Biases":
            from arlow_trainer.trackers.wandb_run import WandbRun

            return WandbRun(run, warn)
