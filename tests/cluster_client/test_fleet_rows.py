"""What the table of a cluster's runs shows of an object."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.cluster.fleet import NO_STATUS, GpuHours, fleet_row, fleet_rows
from support.fleet_objects import NOW, condition, fleet_object, fleet_objects, goodput, training


def row(**status: Any) -> Any:
    return fleet_row(fleet_object("run", **status), NOW)


def test_a_run_that_trains_is_shown_with_all_that_its_status_says() -> None:
    found = row(**training())
    assert (found.namespace, found.name, found.phase) == ("team", "run", "Running")
    assert (found.attempt, found.restarts) == (2, 1)
    assert (found.step, found.total_steps, found.eta_seconds) == (1200, 5004, 11520)
    assert (found.loss, found.images_per_second, found.mfu) == (0.2445, 1630.4, 0.312)
    assert found.checkpoint_seconds == 240
    assert found.goodput == 0.9
    assert found.gpus == 8
    assert found.hours == GpuHours(productive=144, lost=8, starting=8, queued=32)
    assert found.reason == ""


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({}, NO_STATUS),
        ({"phase": "Pending", "message": "the first attempt is made"}, ""),
        (
            {"phase": "Queued", "conditions": [condition("Running", "Queued", "no GPUs", "False")]},
            "Queued: no GPUs",
        ),
        ({"phase": "Queued", "message": "no GPUs"}, "Queued: no GPUs"),
        (
            {"phase": "Starting", "conditions": [condition("Running", "Starting", "up", "False")]},
            "",
        ),
        (
            {
                "phase": "Starting",
                "conditions": [condition("Running", "CannotStart", "no node takes it", "False")],
            },
            "CannotStart: no node takes it",
        ),
        (
            {"phase": "Running", "conditions": [condition("Running", "Unreachable", "cut off")]},
            "Unreachable: cut off",
        ),
        (
            {
                "phase": "Running",
                "conditions": [
                    condition("Running", "Training", "no step"),
                    condition("TrainingStalled", "NoStep", "no step"),
                ],
            },
            "NoStep: no step",
        ),
        (
            {
                "phase": "Running",
                "conditions": [condition("TrainingStalled", "Stepping", "", "False")],
            },
            "",
        ),
        (
            {
                "phase": "Restarting",
                "conditions": [condition("Running", "Restarting", "restarts: crash", "False")],
            },
            "Restarting: restarts: crash",
        ),
        (
            {"phase": "Failed", "conditions": [condition("Failed", "BudgetSpent", "crash")]},
            "BudgetSpent: crash",
        ),
        ({"phase": "Failed"}, "Failed"),
        (
            {
                "phase": "Pending",
                "conditions": [condition("Validated", "Invalid", "spec.a: x\nspec.b: y", "False")],
            },
            "Invalid: spec.a: x; spec.b: y",
        ),
        (
            {"phase": "Succeeded", "conditions": [condition("Running", "Finished", "", "False")]},
            "",
        ),
        ({"phase": "Suspended", "message": "as asked"}, ""),
        (
            training(progress={"lastUpdateTime": "2026-01-02T11:30:00Z"}),
            "nothing was heard of it since 2026-01-02 11:30 UTC: does the operator run?",
        ),
    ],
)
def test_the_reason_is_that_of_what_is_not_well(status: dict[str, Any], reason: str) -> None:
    assert row(**status).reason == reason


@pytest.mark.parametrize(
    ("nodes", "gpus"),
    [
        ({}, 8),
        ({"gpus": 0}, 0),
        ({"gpus": 4, "count": 3}, 12),
        ({"gpus": None, "count": None}, 8),
        ({"gpus": "many"}, 8),
        (None, 8),
    ],
)
def test_gpus_are_those_of_all_nodes(nodes: Any, gpus: int) -> None:
    body = fleet_object("run") | {"spec": {"nodes": nodes}}
    assert fleet_row(body, NOW).gpus == gpus


def test_rows_are_in_the_order_of_namespaces_and_names() -> None:
    names = [(row.namespace, row.name) for row in fleet_rows(fleet_objects(), NOW)]
    assert names == sorted(names)


def test_a_run_that_used_no_device_yet_has_no_goodput() -> None:
    found = row(phase="Queued", goodput=goodput(0, queued=5))
    assert found.goodput is None
    assert found.hours == GpuHours(queued=40)


def test_a_checkpoint_of_a_clock_that_is_ahead_is_new() -> None:
    assert row(lastCheckpoint={"time": "2026-01-02T13:00:00Z"}).checkpoint_seconds == 0


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(
        ["True", "Running", "\x1b[31m", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
FIELDS = ("step", "totalSteps", "etaSeconds", "loss", "imagesPerSecond", "mfu", "lastUpdateTime")
SECTIONS = {
    "attempt": ("number",),
    "progress": FIELDS,
    "lastCheckpoint": ("time",),
    "restarts": ("total",),
    "goodput": ("productiveSeconds", "lostSeconds", "startingSeconds", "queuedSeconds"),
}
CONDITION = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["Failed", "TrainingStalled", "Running", "Validated"]) | JSON,
        "status": st.sampled_from(["True", "False"]) | JSON,
        "reason": JSON,
        "message": JSON,
    },
)
STATUS = st.fixed_dictionaries(
    {},
    optional={
        "phase": JSON,
        "message": JSON,
        "conditions": st.lists(CONDITION | JSON, max_size=4) | JSON,
        **{
            name: st.fixed_dictionaries({}, optional=dict.fromkeys(fields, JSON)) | JSON
            for name, fields in SECTIONS.items()
        },
    },
)


@given(status=STATUS | JSON, spec=JSON, nodes=JSON)
def test_fields_of_any_type_are_absent_and_never_an_error(
    status: Any, spec: Any, nodes: Any
) -> None:
    for each in (spec, {"nodes": nodes}, {"nodes": {"count": nodes, "gpus": nodes}}):
        body = fleet_object("run") | {"status": status, "spec": each}
        found = fleet_row(body, NOW)
        assert found.reason.isprintable()
        assert found.phase.isprintable()
        assert found.gpus >= 0
        for value in (found.step, found.loss, found.eta_seconds, found.goodput, found.attempt):
            assert value is None or 0 <= value <= 2**53


@given(JSON)
def test_an_object_that_is_none_makes_a_row(body: Any) -> None:
    for each in ({"metadata": body}, {"status": body}, {"status": {"conditions": body}}):
        assert fleet_row(each, NOW).reason is not None
