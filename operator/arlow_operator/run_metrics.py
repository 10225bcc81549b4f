"""What Prometheus reads of runs: series that come from their statuses, and outlive their pods.

What is told of a run is kept while the run exists, and its series go with it.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from arlow_operator.status import (
    AttemptStatus,
    CheckpointStatus,
    GoodputStatus,
    Phase,
    ProgressStatus,
    Status,
)

RunKey = tuple[str, str]
LABELS = ("namespace", "run")
PHASES: tuple[Phase, ...] = get_args(Phase)
KINDS = ("productive", "lost", "queued", "starting")
CAUSES = (
    "cacheFull",
    "crash",
    "disruption",
    "nonFiniteLoss",
    "outOfMemory",
    "stalled",
    "store",
    "unknown",
)


@dataclass(frozen=True)
class Told:
    """What is told of a run.

    Attributes:
        status: its newest status.
        gpus: how many its manifest asks for, on all nodes.
    """

    status: Status
    gpus: int = 0

    @property
    def progress(self) -> ProgressStatus:
        """How far it is; empty where nothing is known."""
        return self.status.progress or ProgressStatus()

    @property
    def checkpoint(self) -> CheckpointStatus:
        """Its newest checkpoint; empty where there is none."""
        return self.status.last_checkpoint or CheckpointStatus()

    @property
    def attempt(self) -> AttemptStatus | None:
        """The attempt that runs, or is about to."""
        return self.status.attempt

    @property
    def stalled(self) -> bool:
        """Whether it makes no steps though it should."""
        condition = self.status.condition("TrainingStalled")
        return condition is not None and condition.status == "True"


@dataclass(frozen=True)
class RunGauge:
    """A number of each run; a run that has none has no series.

    Attributes:
        name: of the metric, after `arlow_operator_run_`.
        help: what it means.
        value: reads it from what is told of a run.
    """

    name: str
    help: str
    value: Callable[[Told], float | None]


RUN_GAUGES = (
    RunGauge("gpus", "GPUs that the run's manifest asks for.", lambda told: told.gpus),
    RunGauge(
        "training_stalled",
        "Whether the run makes no steps though it should: its condition TrainingStalled.",
        lambda told: told.stalled,
    ),
    RunGauge(
        "attempt",
        "Number of the attempt that runs, or is about to.",
        lambda told: told.attempt.number if told.attempt else None,
    ),
    RunGauge(
        "attempt_start_timestamp_seconds",
        "When the attempt's Job was made.",
        lambda told: _seconds(told.attempt.start_time) if told.attempt else None,
    ),
    RunGauge(
        "start_timestamp_seconds",
        "When the first attempt was begun.",
        lambda told: _seconds(told.status.start_time),
    ),
    RunGauge(
        "completion_timestamp_seconds",
        "When the run succeeded or failed.",
        lambda told: _seconds(told.status.completion_time),
    ),
    RunGauge("steps", "Optimisation steps that are done.", lambda told: told.progress.step),
    RunGauge(
        "planned_steps", "Optimisation steps of the run.", lambda told: told.progress.total_steps
    ),
    RunGauge("loss", "Loss of the newest logged step.", lambda told: told.progress.loss),
    RunGauge(
        "images_per_second",
        "Samples per second over all devices, while the run trains.",
        lambda told: told.progress.images_per_second,
    ),
    RunGauge(
        "model_flops_utilization_ratio",
        "Share of the devices' peak that the model's operations make up, while the run trains.",
        lambda told: told.progress.mfu,
    ),
    RunGauge(
        "eta_seconds",
        "Seconds that remain, while the run trains.",
        lambda told: told.progress.eta_seconds,
    ),
    RunGauge(
        "last_update_timestamp_seconds",
        "When the trainer was last heard.",
        lambda told: _seconds(told.progress.last_update_time),
    ),
    RunGauge(
        "checkpoint_step",
        "Step of the newest verified checkpoint.",
        lambda told: told.checkpoint.step,
    ),
    RunGauge(
        "checkpoint_timestamp_seconds",
        "When the newest verified checkpoint was committed.",
        lambda told: _seconds(told.checkpoint.time),
    ),
)


class Runs(Collector):
    """The runs that exist, by namespace and name."""

    def __init__(self) -> None:
        self._told: dict[RunKey, Told] = {}

    def tell(self, key: RunKey, status: Status, gpus: int = 0) -> None:
        """Takes note of a run's newest status, and of the GPUs that it asks for."""
        self._told[key] = Told(status, gpus)

    def forget(self, key: RunKey) -> None:
        """Takes note that a run is gone."""
        self._told.pop(key, None)

    def keep_only(self, existing: Collection[RunKey]) -> None:
        """Takes note of all runs that exist."""
        for key in self._told.keys() - set(existing):
            del self._told[key]

    def __len__(self) -> int:
        return len(self._told)

    def collect(self) -> Iterator[Metric]:
        """Yields the series."""
        # A scrape is on a thread of its own.
        told = dict(sorted(self._told.items()))
        runs = GaugeMetricFamily("arlow_operator_runs", "Runs by phase.", labels=["phase"])
        counted = Count(each.status.phase for each in told.values())
        for phase in PHASES:
            runs.add_metric([phase], counted[phase])
        yield runs
        phases = GaugeMetricFamily(
            "arlow_operator_run_phase",
            "1 for the phase that the run is in, 0 for the others.",
            labels=[*LABELS, "phase"],
        )
        restarts = CounterMetricFamily(
            "arlow_operator_run_restarts", "Restarts of a run by cause.", labels=[*LABELS, "cause"]
        )
        # No counter: a restart takes what it lost from what was productive.
        goodput = GaugeMetricFamily(
            "arlow_operator_run_goodput_seconds",
            "Where the run's time went; a restart turns productive seconds into lost ones.",
            labels=[*LABELS, "kind"],
        )
        for key, each in told.items():
            for phase in PHASES:
                phases.add_metric([*key, phase], each.status.phase == phase)
            # A counter that begins at 1 has no increase: each cause is there from the beginning.
            by_cause = dict.fromkeys(CAUSES, 0) | each.status.restarts.by_cause
            for cause, number in sorted(by_cause.items()):
                restarts.add_metric([*key, cause], number)
            seconds = each.status.goodput or GoodputStatus()
            for kind in KINDS:
                goodput.add_metric([*key, kind], getattr(seconds, f"{kind}_seconds"))
        yield from (phases, restarts, goodput)
        for gauge in RUN_GAUGES:
            family = GaugeMetricFamily(
                f"arlow_operator_run_{gauge.name}", gauge.help, labels=LABELS
            )
            for key, each in told.items():
                value = gauge.value(each)
                if value is not None:
                    family.add_metric(key, value)
            yield family


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
