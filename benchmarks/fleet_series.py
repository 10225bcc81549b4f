"""The series of a fleet as a Prometheus has them: the real pages, of many runs, over hours."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from arlow_operator.run_metrics import CAUSES, KINDS, PHASES, RUN_GAUGES, Runs
from arlow_operator.status import (
    AttemptStatus,
    CheckpointStatus,
    GoodputStatus,
    Phase,
    ProgressStatus,
    RestartsStatus,
    Status,
)
from arlow_trainer.config.load import load_run
from arlow_trainer.telemetry import StepReport, Telemetry, TelemetryOptions
from arlow_trainer.telemetry.scalars import SCALARS

# Rules are evaluated as often as is usual; with the chart the operator is scraped twice as often.
SCRAPE_S, RECORD_S = 30, 30
BLOCK_S = 7200
# Of what no panel of the fleet asks, so little is kept that the server has the series.
SHORT_S = 300
RANKS = 8
NAMESPACES = 20
DCGM = (
    *("GPU_UTIL", "MEM_COPY_UTIL", "FB_USED", "FB_FREE", "GPU_TEMP", "POWER_USAGE"),
    *("SM_CLOCK", "XID_ERRORS", "PCIE_REPLAY_COUNTER"),
)
PREFIX = "arlow_operator_run_"
RECORDED = {
    f"{PREFIX}phase": "cluster_namespace_run_phase:arlow_operator_run_phase:max",
    f"{PREFIX}restarts_total": "cluster_namespace_run_cause:arlow_operator_run_restarts:max",
    f"{PREFIX}goodput_seconds": "cluster_namespace_run_kind:arlow_operator_run_goodput_seconds:max",
}
NUMBERS = "cluster_namespace_run_metric:arlow_operator_run:max"
# What is recorded of all runs, by the label that it keeps beside the namespace, and its values.
TOTALS: dict[str, tuple[str, Sequence[str]]] = {
    "cluster_namespace_phase:arlow_operator_run_phase:sum": ("phase", PHASES),
    "cluster_namespace_phase:arlow_operator_run_gpus:sum": ("phase", PHASES),
    "cluster_namespace_kind:arlow_operator_run_gpu_hours:sum": ("kind", KINDS),
    "cluster_namespace_metric:arlow_operator_run:sum": (
        "metric",
        ("images_per_second", "training_stalled"),
    ),
    "cluster_namespace_cause:arlow_operator_run_restarts:increase1h": ("cause", CAUSES),
}
GOODPUT = "cluster_namespace_run:arlow_operator_run_goodput:ratio"


@dataclass(frozen=True)
class Series:
    """One series: its name with labels, its value at first, and how much it grows in a second."""

    name: str
    value: float
    rate: float = 0.0
    every_s: int = SCRAPE_S
    short: bool = False


def fleet(runs: int) -> Iterator[Series]:
    """Yields all series of a fleet: of operator, trainers, GPUs, and what is recorded of them."""
    now = datetime.now(UTC)
    collector = Runs()
    for number in range(runs):
        collector.tell(_key(number), _status(number, now), gpus=RANKS)
    for family in collector.collect():
        yield from _of_operator(family)
    for namespace in range(NAMESPACES):
        for name, (label, values) in TOTALS.items():
            for value in values:
                labels = f'namespace="team-{namespace:02}",{label}="{value}"'
                yield Series(f"{name}{{{labels}}}", 8.0, every_s=RECORD_S)
    page = _trainer_page()
    for number in range(runs):
        namespace, run = _key(number)
        pod = f'namespace="{namespace}",pod="{run}-1-0-abcde"'
        for name, labels in page:
            yield Series(f'{name}{{{labels}run="{run}",{pod}}}', 1.0, 1.0, short=True)
        for gpu in range(RANKS):
            for metric in DCGM:
                of_gpu = f'gpu="{gpu}",UUID="GPU-{number}-{gpu}",Hostname="node-{number}"'
                yield Series(f"DCGM_FI_DEV_{metric}{{{of_gpu},{pod}}}", 50.0, short=True)


def _key(number: int) -> tuple[str, str]:
    return f"team-{number % NAMESPACES:02}", f"run-{number:04}"


def _status(number: int, now: datetime) -> Status:
    # Most of a fleet trains.
    phase: Phase = PHASES[number % len(PHASES)] if number % 3 == 0 else "Running"
    return Status(
        phase=phase,
        start_time=now - timedelta(hours=20),
        attempt=AttemptStatus(number=2, job_name="run-2", start_time=now - timedelta(hours=9)),
        progress=ProgressStatus(
            step=1000 + number,
            total_steps=100_000,
            loss=0.5,
            images_per_second=800 + number,
            mfu=0.3,
            eta_seconds=86_400,
            last_update_time=now,
        ),
        last_checkpoint=CheckpointStatus(step=1000, time=now - timedelta(minutes=20)),
        restarts=RestartsStatus(total=2, by_cause={"crash": 1, "disruption": 1}),
        goodput=GoodputStatus(
            productive_seconds=60_000, lost_seconds=900, queued_seconds=3000, starting_seconds=500
        ),
    )


def _of_operator(family: Metric) -> Iterator[Series]:
    gauges = {f"{PREFIX}{gauge.name}": gauge.name for gauge in RUN_GAUGES}
    for sample in family.samples:
        labels = ",".join(f'{key}="{value}"' for key, value in sample.labels.items())
        rate = 1.0 if sample.labels.get("kind") == "productive" else 0.0
        series = Series(
            f'{sample.name}{{{labels},instance="10.0.0.1:8081",pod="arlow-operator-abcde"}}',
            sample.value,
            rate,
        )
        yield series
        recorded = None
        if sample.name in RECORDED:
            recorded = f"{RECORDED[sample.name]}{{{labels}}}"
        elif sample.name in gauges:
            recorded = f'{NUMBERS}{{{labels},metric="{gauges[sample.name]}"}}'
        if recorded:
            yield replace(series, name=recorded, every_s=RECORD_S)
        if sample.name == f"{PREFIX}gpus":
            yield Series(f"{GOODPUT}{{{labels}}}", 0.97, every_s=RECORD_S)


def _trainer_page() -> list[tuple[str, str]]:
    """Returns names and labels of what rank 0 of a run serves."""
    run = load_run("tiny", ["metadata.name=fleet"])
    telemetry = Telemetry(run, 0, RANKS, TelemetryOptions(port=None))
    try:
        readout = dict.fromkeys(SCALARS, 1.0)
        telemetry.step(StepReport(1, 100, 0.5, 24, 8, 2000, 1e9, {}, readout))
        registry: CollectorRegistry = telemetry._metrics.registry
        return [
            (sample.name, "".join(f'{k}="{v}",' for k, v in sample.labels.items() if k != "run"))
            for family in registry.collect()
            for sample in family.samples
        ]
    finally:
        telemetry.close()


def fill(folder: Path, series: Sequence[Series], end: int, seconds: int) -> int:
    """Writes the samples of series up to a time as blocks of a Prometheus; returns their number."""
    written = 0
    begin = end - seconds
    text = folder.with_suffix(".txt")
    # A pass over the text for each block that it touches: one text a block.
    for start in range(begin - begin % BLOCK_S, end, BLOCK_S):
        with text.open("w") as file:
            for each in series:
                first = max(start, end - SHORT_S if each.short else begin)
                first += -first % each.every_s
                times = range(first, min(start + BLOCK_S, end), each.every_s)
                name, value, rate = each.name, each.value, each.rate
                file.writelines(f"{name} {value + rate * (t - begin)} {t}\n" for t in times)
                written += len(times)
            file.write("# EOF\n")
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet"]
        subprocess.run([*command, str(text), str(folder)], check=True, capture_output=True)
    text.unlink()
    return written
