"""What Prometheus reads of the operator."""

from __future__ import annotations

from prometheus_client import generate_latest

from arlow_operator.metrics import Metrics
from arlow_operator.status import GoodputStatus, RestartsStatus, Status


def text(metrics: Metrics) -> str:
    """Returns what is served but for the process's own metrics, which change by themselves."""
    lines = generate_latest(metrics.registry).decode().splitlines()
    return "\n".join(line for line in lines if "arlow_operator" in line)


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
    found = text(metrics).splitlines()
    assert 'arlow_operator_runs{phase="Queued"} 1.0' in found
    assert 'arlow_operator_runs{phase="Running"} 1.0' in found
    assert 'arlow_operator_run_restarts_total{cause="crash",namespace="team",run="a"} 2.0' in found
    assert (
        'arlow_operator_run_goodput_seconds_total{kind="lost",namespace="team",run="a"} 7.0'
        in found
    )


def test_nothing_is_left_of_runs_that_are_gone() -> None:
    metrics = Metrics()

    def series() -> list[str]:
        # Not those of the process, whose memory changes by itself.
        return [line for line in text(metrics).splitlines() if line.startswith("arlow_")]

    before = series()
    for _ in range(3):
        keys = [("team", f"run-{number}") for number in range(500)]
        for key in keys:
            metrics.runs.tell(key, Status(phase="Running"))
        metrics.runs.forget(keys[0])
        metrics.runs.keep_only([])
    assert series() == before


def test_passes_requests_and_notifications_are_counted() -> None:
    metrics = Metrics()
    metrics.watch(lambda: 4, lambda: 12.0)
    metrics.passed(0.2, failed=False)
    metrics.passed(31, failed=True)
    metrics.requested("patch", 200)
    metrics.requested("patch", 409)
    metrics.notified("failed")
    found = text(metrics).splitlines()
    for line in (
        "arlow_operator_queue_depth 4.0",
        "arlow_operator_last_full_pass_age_seconds 12.0",
        'arlow_operator_pass_duration_seconds_count{result="failed"} 1.0',
        'arlow_operator_api_requests_total{code="409",verb="patch"} 1.0',
        'arlow_operator_notifications_total{result="failed"} 1.0',
        'arlow_operator_notifications_total{result="delivered"} 0.0',
    ):
        assert line in found
