"""What a watcher is shown of a run in a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from arlow_trainer.cluster.object_status import PHASES, object_message, run_status
from arlow_trainer.cluster.runs import run_name


def body(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "run"}, "status": status}


def test_a_run_that_trains_is_shown_with_all_that_the_operator_knows() -> None:
    found = run_status(
        body(
            phase="Running",
            attempt={"number": 2, "startTime": "2026-01-01T00:00:00Z"},
            progress={
                "step": 40,
                "totalSteps": 100,
                "loss": 0.5,
                "imagesPerSecond": 12.5,
                "etaSeconds": 60,
                "stepTime": "2026-01-01T00:01:00Z",
            },
            lastCheckpoint={"url": "s3://a/b", "step": 20, "time": "2026-01-01T00:00:30Z"},
        )
    )
    assert (found.phase, found.step, found.total_steps, found.loss) == ("training", 40, 100, 0.5)
    assert found.last_checkpoint is not None
    assert found.last_checkpoint.step == 20
    assert found.message == "Running, attempt 2"


def test_a_run_without_a_status_says_so() -> None:
    assert "does the operator look after this namespace?" in run_status(body()).message
    assert run_status({"metadata": {"name": "run"}}).phase == "starting"


def test_what_has_another_form_is_left_out() -> None:
    found = run_status(body(phase="Later", progress={"step": "many", "loss": 0.5}, attempt=[1]))
    assert (found.phase, found.step, found.loss) == ("starting", 0, 0.5)


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_is_told_with_its_message(phase: str) -> None:
    assert object_message(body(phase=phase, message="why")) == f"{phase}: why"


@pytest.mark.parametrize(
    ("target", "name"),
    [("apt/a", "a"), ("arlowpretrain/a", "a"), ("runs/a", None), ("s3://a", None)],
)
def test_a_target_names_a_run_of_a_cluster(target: str, name: str | None) -> None:
    assert run_name(target) == name
