"""Events tell of transitions only."""

from __future__ import annotations

from world import World, manifest

from arlow_operator.events import events_of
from arlow_operator.resource import read_run


def reasons(world: World, passes: int = 6) -> list[str]:
    """Makes passes, and returns the reasons of the events that they write."""
    found = []
    for _ in range(passes):
        run, before = read_run(world.body)
        decision = world.decide()
        found += [event["reason"] for event in events_of(run, before, decision.status, world.now)]
        world.write(decision)
        world.act(decision)
    return found


def test_a_phase_is_told_once() -> None:
    world = World()
    assert reasons(world) == ["Starting", "Running"]
    world.train(10)
    world.wait(30)
    assert reasons(world) == []
    world.end(world.pod, 70)
    assert reasons(world) == ["Restarting", "Starting", "Running"]


def test_a_stall_is_told_once_and_names_where_the_stacks_are() -> None:
    world = World(manifest(failurePolicy={"stall": {"action": "Report"}}))
    reasons(world)
    world.train(10)
    reasons(world)
    world.wait(601)
    run, before = read_run(world.body)
    decision = world.decide()
    [event] = events_of(run, before, decision.status, world.now)
    assert (event["type"], event["reason"]) == ("Warning", "TrainingStalled")
    assert "s3://bucket/runs/run/logs/1/" in event["message"]
    world.write(decision)
    assert reasons(world) == []
