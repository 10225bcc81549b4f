"""A webhook is told of ends and of stalls, once each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import TOTAL_STEPS, World, manifest, started

from arlow_operator.notifications import Notification, notifications_of
from arlow_operator.resource import read_run
from arlow_operator.status import Status


def told(world: World, passes: int = 6) -> list[Notification]:
    """Makes passes, and returns what a webhook is told in them."""
    found = []
    for _ in range(passes):
        run, before = read_run(world.body)
        decision = world.decide()
        found += notifications_of(run, before, decision.status)
        world.write(decision)
        world.act(decision)
    return found


def test_a_run_that_starts_trains_and_is_suspended_is_not_told_of() -> None:
    world = World()
    assert told(world) == []
    world.train(10)
    world.wait(30)
    assert told(world) == []
    world.end(world.pod, 70)
    assert told(world) == []
    world.body["spec"]["suspend"] = True
    assert told(world) == []


def test_success_is_told_once() -> None:
    world = started()
    world.train(TOTAL_STEPS)
    world.end(world.pod, 0)
    [found] = told(world)
    assert (found.event, found.namespace, found.run) == ("Succeeded", "team", "run")
    assert found.payload() == {
        "text": "Succeeded: ArlowPretrain team/run at step 100 of 100: finished after 100 steps",
        "event": "Succeeded",
        "namespace": "team",
        "run": "run",
        "uid": "run-1",
        "reason": "Finished",
        "message": "finished after 100 steps",
        "attempt": 1,
        "step": 100,
        "totalSteps": 100,
        "time": "2026-01-01T00:00:00Z",
    }
    # Another operator, or the same one anew, decides on what is written.
    assert told(world) == []


def test_a_failure_is_told_again_only_after_it_was_retried() -> None:
    world = started()
    world.end(world.pod, 78)
    [found] = told(world)
    assert (found.event, found.reason) == ("Failed", "RunCannotSucceed")
    assert told(world) == []
    world.wait(5)
    world.body["metadata"]["annotations"]["arlow.dev/retry"] = world.now.isoformat()
    assert told(world, 10) == []
    world.end(world.pod, 78)
    assert [each.event for each in told(world)] == ["Failed"]


def test_a_stall_is_told_once_and_again_when_it_comes_again() -> None:
    world = started(failurePolicy={"stall": {"action": "Report"}})
    for _ in range(2):
        world.train(10)
        assert told(world) == []
        world.wait(601)
        [found] = told(world)
        assert (found.event, found.reason) == ("TrainingStalled", "NoStep")
        assert "no step after" in found.message


def test_a_run_that_can_never_be_is_told_of_without_a_step() -> None:
    world = World(manifest(startDeadlineSeconds=10))
    told(world, 1)
    run, _ = read_run(world.body)
    decision = started().decide()
    failed = decision.status.model_copy(update={"progress": None, "attempt": None})
    condition = next(each for each in failed.conditions if each.type == "Failed")
    now = condition.model_copy(update={"status": "True", "reason": "DeadlineExceeded"})
    [found] = notifications_of(run, Status(), failed.model_copy(update={"conditions": [now]}))
    assert {"step", "totalSteps", "attempt"} & found.payload().keys() == set()
    assert found.text() == "Failed: ArlowPretrain team/run"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("<!channel> & <@U1>", "&lt;!channel&gt; &amp; &lt;@\u200bU1&gt;"),
        ("@here and @everyone", "@\u200bhere and @\u200beveryone"),
        ("a @ b", "a @ b"),
    ],
)
def test_a_message_calls_nobody(message: str, text: str) -> None:
    world = started()
    world.end(world.pod, 78)
    [found] = told(world)
    assert replace(found, message=message).text().endswith(text)


def test_a_message_has_no_credentials_no_control_characters_and_an_end() -> None:
    world = started()
    world.end(world.pod, 78)
    run, before = read_run(world.body)
    after = world.decide().status
    failed = after.condition("Failed")
    assert failed is not None
    words = "s3://key:secret@bucket \x1b[31m " + "x" * 5000
    changed = failed.model_copy(update={"message": words})
    [found] = notifications_of(run, before, after.model_copy(update={"conditions": [changed]}))
    assert "secret" not in found.message
    assert "\x1b" not in found.message
    assert len(found.message) == 1000
