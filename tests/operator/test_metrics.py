"""What Prometheus reads of the operator."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version

import pytest
from prometheus_client import generate_latest

from arlow_operator.metrics import Metrics
from arlow_operator.run_metrics import CAUSES, RUN_GAUGES
from arlow_operator.status import (
    AttemptStatus,
    CheckpointStatus,
    Condition,
    GoodputStatus,
    ProgressStatus,
    RestartsStatus,
    Status,
)
from arlow_trainer.config.cluster import MaxRestarts

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

PREFIX = "arlow_operator_run_"


def series(metrics: Metrics) -> dict[str, float]:
    """Returns what is served but for the process's own metrics, which change by themselves."""
    lines = generate_latest(metrics.registry).decode().splitlines()
    found = [line.rpartition(" ") for line in lines if line.startswith("arlow_")]
    return {name: float(value) for name, _, value in found if "_created" not in name}


def of_run(status: Status, gpus: int = 0) -> dict[str, float]:
    """Returns the gauges of a run."""
    metrics = Metrics()
    metrics.runs.tell(("team", "a"), status, gpus)
    labels = '{namespace="team",run="a"}'
    return {
        name.removeprefix(PREFIX).removesuffix(labels): value
        for name, value in series(metrics).items()
        if name.startswith(PREFIX) and name.endswith(labels)
    }


def stalled(status: str) -> Condition:
    return Condition(
        type="TrainingStalled",
        status=status,  # type: ignore[arg-type]
        reason="NoStep",
        last_transition_time=NOON,
        observed_generation=1,
    )


def test_runs_are_counted_by_phase_with_their_restarts_and_goodput() -> None:
    metrics = Metrics()
    metrics.runs.tell(
        ("team", "a"),
        Status(
            phase="Running",
            restarts=RestartsStatus(total=3, by_cause={"crash": 2, "disruption": 1}),
            goodput=GoodputStatus(productive_seconds=100, lost_seconds=7),
        ),
    )
    metrics.runs.tell(("team", "b"), Status(phase="Queued"))
    found = series(metrics)
    expected = {
        'arlow_operator_runs{phase="Queued"}': 1,
        'arlow_operator_runs{phase="Running"}': 1,
        'arlow_operator_runs{phase="Failed"}': 0,
        'arlow_operator_run_phase{namespace="team",phase="Running",run="a"}': 1,
        'arlow_operator_run_phase{namespace="team",phase="Queued",run="a"}': 0,
        'arlow_operator_run_restarts_total{cause="crash",namespace="team",run="a"}': 2,
        'arlow_operator_run_restarts_total{cause="store",namespace="team",run="a"}': 0,
        'arlow_operator_run_restarts_total{cause="crash",namespace="team",run="b"}': 0,
        'arlow_operator_run_goodput_seconds{kind="lost",namespace="team",run="a"}': 7,
        'arlow_operator_run_goodput_seconds{kind="queued",namespace="team",run="b"}': 0,
    }
    assert expected.items() <= found.items()


def test_causes_are_those_that_have_a_budget_and_disruptions() -> None:
    budgets = {field.alias or name for name, field in MaxRestarts.model_fields.items()}
    assert set(CAUSES) == budgets - {"total", "withoutProgress"} | {"disruption"}


def test_a_cause_of_another_version_is_told_as_well() -> None:
    metrics = Metrics()
    metrics.runs.tell(("team", "a"), Status(restarts=RestartsStatus(by_cause={"new": 1})))
    name = 'arlow_operator_run_restarts_total{cause="new",namespace="team",run="a"}'
    assert series(metrics)[name] == 1


def test_a_run_without_a_status_has_no_numbers_of_what_it_has_not() -> None:
    assert of_run(Status()) == {"gpus": 0, "training_stalled": 0}


@pytest.mark.parametrize(
    ("status", "name", "value"),
    [
        (Status(conditions=[stalled("True")]), "training_stalled", 1),
        (Status(conditions=[stalled("False")]), "training_stalled", 0),
        (Status(attempt=AttemptStatus(number=3, job_name="a-3")), "attempt", 3),
        (
            Status(attempt=AttemptStatus(number=3, job_name="a-3", start_time=NOON)),
            "attempt_start_timestamp_seconds",
            NOON.timestamp(),
        ),
        (Status(start_time=NOON), "start_timestamp_seconds", NOON.timestamp()),
        (Status(completion_time=NOON), "completion_timestamp_seconds", NOON.timestamp()),
        (Status(progress=ProgressStatus(step=0)), "steps", 0),
        (Status(progress=ProgressStatus(total_steps=9)), "planned_steps", 9),
        (Status(progress=ProgressStatus(loss=0.5)), "loss", 0.5),
        (Status(progress=ProgressStatus(images_per_second=12)), "images_per_second", 12),
        (Status(progress=ProgressStatus(mfu=0.3)), "model_flops_utilization_ratio", 0.3),
        (Status(progress=ProgressStatus(eta_seconds=60)), "eta_seconds", 60),
        (
            Status(progress=ProgressStatus(last_update_time=NOON)),
            "last_update_timestamp_seconds",
            NOON.timestamp(),
        ),
        (Status(last_checkpoint=CheckpointStatus(step=0)), "checkpoint_step", 0),
        (
            Status(last_checkpoint=CheckpointStatus(time=NOON)),
            "checkpoint_timestamp_seconds",
            NOON.timestamp(),
        ),
    ],
)
def test_numbers_of_a_status(status: Status, name: str, value: float) -> None:
    assert of_run(status)[name] == value


def test_every_number_is_proven() -> None:
    [mark] = [m for m in test_numbers_of_a_status.pytestmark if m.name == "parametrize"]  # type: ignore[attr-defined]
    proven = {name for _, name, _ in mark.args[1]}
    assert {gauge.name for gauge in RUN_GAUGES} == proven | {"gpus"}
    assert of_run(Status(), gpus=16)["gpus"] == 16


def test_nothing_is_left_of_runs_that_are_gone() -> None:
    metrics = Metrics()
    before = series(metrics)
    for _ in range(3):
        keys = [("team", f"run-{number}") for number in range(100)]
        for key in keys:
            metrics.runs.tell(key, Status(phase="Running"))
        metrics.runs.forget(keys[0])
        metrics.runs.keep_only([])
    assert series(metrics) == before


def test_passes_requests_events_and_notifications_are_counted() -> None:
    metrics = Metrics()
    assert series(metrics)["arlow_operator_leader"] == 0
    metrics.lead(lambda: 4, lambda: 12.0)
    metrics.passed(0.2, failed=False)
    metrics.passed(31, failed=True)
    metrics.requested("patch", 200)
    metrics.requested("patch", 409)
    metrics.notified("failed")
    metrics.saw("pods")
    metrics.compared(2)
    expected = {
        "arlow_operator_leader": 1,
        f'arlow_operator_info{{version="{version("arlow-pretrain")}"}}': 1,
        "arlow_operator_queue_depth": 4,
        "arlow_operator_last_full_pass_age_seconds": 12,
        'arlow_operator_pass_duration_seconds_count{result="failed"}': 1,
        'arlow_operator_api_requests_total{code="409",verb="patch"}': 1,
        'arlow_operator_watch_events_total{resource="pods"}': 1,
        'arlow_operator_watch_events_total{resource="jobs"}': 0,
        "arlow_operator_definition_differing_fields": 2,
        'arlow_operator_notifications_total{result="failed"}': 1,
        'arlow_operator_notifications_total{result="delivered"}': 0,
    }
    assert expected.items() <= series(metrics).items()
