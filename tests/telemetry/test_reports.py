"""The status as a function of the reports."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from telemetry_reports import make_readout, make_report

from arlow_trainer.config import RunStatus
from arlow_trainer.telemetry import CheckpointReport
from arlow_trainer.telemetry.reports import (
    RECENT_LOSSES,
    RECENT_STEPS,
    Message,
    PhaseChanged,
    StatusState,
    StatusUpdate,
    status_of,
    updated,
)
from arlow_trainer.telemetry.scalars import SCALARS

START = datetime(2026, 1, 1, tzinfo=UTC)


def after(*updates: StatusUpdate, peak_flops: float | None = None) -> RunStatus:
    """The status after updates a second apart."""
    state = StatusState(run="quick", started_at=START, peak_flops=peak_flops)
    for index, update in enumerate(updates):
        state = updated(state, update, START + timedelta(seconds=index))
    return status_of(state)


def test_run_that_has_not_begun() -> None:
    status = after()
    assert set((status.model_extra or {}).values()) == {None}
    plain = RunStatus(run="quick", phase="starting", started_at=START)
    assert status.model_dump(include=set(RunStatus.model_fields)) == plain.model_dump()


@pytest.mark.parametrize(
    ("updates", "expected"),
    [
        pytest.param(
            [PhaseChanged("loading", "reading the data set")],
            {"phase": "loading", "message": "reading the data set"},
            id="phase with message",
        ),
        pytest.param(
            [Message("hello"), PhaseChanged("training")],
            {"phase": "training", "message": "hello"},
            id="phase without message keeps the last one",
        ),
        pytest.param(
            [make_report(1)],
            {"step": 1, "total_steps": 100, "loss": None, "eta_seconds": 49.5},
            id="step without read-out",
        ),
        pytest.param(
            [make_report(10, readout=make_readout())],
            {"loss": 0.5, "image_loss": 0.45, "learning_rate": 1e-4, "grad_norm": 0.8},
            id="read-out",
        ),
        pytest.param(
            [make_report(10, readout=make_readout()), make_report(11)],
            {"step": 11, "loss": 0.5},
            id="a step without read-out keeps the last one's loss",
        ),
        pytest.param(
            [make_report(1, seconds=1.0), make_report(2, seconds=1.0), make_report(3, seconds=60)],
            {"median_step_seconds": 1.0, "eta_seconds": 97.0},
            id="a slow step does not move the remaining time",
        ),
        pytest.param(
            [make_report(1, images=30, clips=0), make_report(2, images=10, clips=20)],
            {"images_per_second": 40.0, "clips_per_second": 20.0},
            id="throughput over the recent steps",
        ),
        pytest.param(
            [make_report(100), PhaseChanged("finished")],
            {"phase": "finished", "eta_seconds": 0.0},
            id="finished",
        ),
        pytest.param(
            [make_report(50), PhaseChanged("failed", "disk full; free some")],
            {"phase": "failed", "eta_seconds": None, "message": "disk full; free some"},
            id="failed",
        ),
        pytest.param(
            [make_report(1, seconds=0.0)],
            {"images_per_second": None, "eta_seconds": 0.0},
            id="no time passed",
        ),
        pytest.param(
            [make_report(7), make_report(3)],
            {"step": 3},
            id="a run that went back to a checkpoint",
        ),
    ],
)
def test_status_after_updates(updates: list[StatusUpdate], expected: dict[str, object]) -> None:
    status = after(*updates)
    found = {
        key: status.scalar(key) if key in SCALARS else getattr(status, key) for key in expected
    }
    assert found == expected


def test_only_recent_steps_count() -> None:
    slow = [make_report(step, seconds=9.0) for step in range(RECENT_STEPS)]
    fast = [make_report(step, seconds=0.1) for step in range(RECENT_STEPS)]
    assert after(*slow, *fast).median_step_seconds == 0.1


def test_last_step_and_checkpoint_are_stamped_with_their_time() -> None:
    checkpoint = CheckpointReport(1, "s3://runs/quick/checkpoint-1", 3.0, 100, 0.1)
    status = after(make_report(1), checkpoint)
    assert status.last_step_time == START
    assert status.last_checkpoint is not None
    assert status.last_checkpoint.url == "s3://runs/quick/checkpoint-1"
    assert status.last_checkpoint.time == START + timedelta(seconds=1)


def test_phases_are_means_over_the_recent_steps() -> None:
    quick = make_report(1, phase_seconds={"data": 0.1, "forward": 0.2})
    saving = make_report(2, phase_seconds={"data": 0.3, "checkpoint": 1.0})
    phases = after(quick, saving).step_phase_seconds
    assert phases == pytest.approx({"data": 0.2, "forward": 0.1, "checkpoint": 0.5})


def test_utilization_is_of_all_devices_peak() -> None:
    report = make_report(1, flops=1e12, seconds=0.5)
    assert after(report, peak_flops=8e12).scalar("model_flops_utilization") == 0.25
    assert after(report).scalar("model_flops_utilization") is None


def test_recent_losses_are_finite_and_few() -> None:
    reports = [
        make_report(step, readout=make_readout(loss=math.nan if step % 2 else float(step)))
        for step in range(4 * RECENT_LOSSES)
    ]
    losses = after(*reports).recent_losses
    assert len(losses) == RECENT_LOSSES
    assert losses[-1].step == 4 * RECENT_LOSSES - 2
    assert all(math.isfinite(point.loss) for point in losses)


def test_nan_is_null_in_json_and_reads_back() -> None:
    status = after(make_report(1, readout=make_readout(loss=math.nan, grad_norm=math.inf)))
    text = status.model_dump_json(by_alias=True)
    assert '"loss":null' in text
    assert '"gradNorm":null' in text
    back = RunStatus.model_validate_json(text)
    assert (back.loss, back.scalar("grad_norm")) == (None, None)


def test_scalars_read_back_from_json() -> None:
    status = after(make_report(10, readout=make_readout()))
    back = RunStatus.model_validate_json(status.model_dump_json(by_alias=True))
    assert back == status
    assert (back.scalar("loss"), back.scalar("grad_norm"), back.scalar("other")) == (0.5, 0.8, None)


def test_a_number_without_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no row in telemetry/scalars\.py: gradient_norm"):
        make_report(1, readout={"loss": 0.5, "gradient_norm": 0.8})


def test_the_checkpoint_of_an_earlier_version_is_read() -> None:
    checkpoint = {"uri": "s3://runs/a/checkpoint-5", "step": 5, "time": "2026-11-25T10:00:00Z"}
    status = RunStatus.model_validate({"run": "a", "lastCheckpoint": checkpoint})
    assert status.last_checkpoint is not None
    assert status.last_checkpoint.url == "s3://runs/a/checkpoint-5"
    written = status.model_dump(mode="json", by_alias=True)["lastCheckpoint"]
    assert (written["url"], "uri" in written) == ("s3://runs/a/checkpoint-5", False)
