"""Attempts that end too soon or make no steps: the cause, the budget, and what follows."""

from __future__ import annotations

import pytest
from world import World, conditions, started

from arlow_trainer.config.status import Phase


def test_an_exit_code_of_0_alone_is_no_success() -> None:
    world = started()
    world.end(world.pod, 0, message=False)
    world.passes()
    assert world.status.phase != "Succeeded"
    assert world.status.restarts.by_cause == {"unknown": 1}


@pytest.mark.parametrize(
    ("code", "cause"),
    [(3, "nonFiniteLoss"), (5, "outOfMemory"), (70, "crash"), (74, "store")],
)
def test_a_failure_spends_its_budget_and_the_next_attempt_waits(code: int, cause: str) -> None:
    world = started()
    world.end(world.pod, code)
    decision = world.passes()
    assert world.status.phase == "Restarting"
    assert world.status.restarts.spent == {"total": 1, cause: 1, "withoutProgress": 1}
    assert world.status.attempt is not None
    assert world.status.attempt.number == 2
    assert not world.jobs
    assert decision.again_after == 10
    world.wait(10)
    world.passes()
    assert [job["metadata"]["name"] for job in world.jobs] == ["run-2"]


def test_a_run_that_another_s_lease_keeps_out_waits_longer_than_one_without_progress() -> None:
    world = started()
    world.train(10)
    world.lose_node(world.pod)
    world.passes()
    lost = world.pods[0]
    for times, seconds in enumerate((10, 20, 40, 80, 160, 300, 300), start=1):
        world.end(world.pod, 73)
        decision = world.passes()
        assert world.status.restarts.spent == {"total": times, "store": times}
        assert decision.again_after == seconds
        world.wait(seconds)
        world.passes()
    # The node is found, the pod on it ends, and the next attempt has the lease.
    world.end(lost, 75)
    world.train(10)
    world.passes()
    assert world.status.phase == "Running"
    assert world.status.restarts.by_cause == {"disruption": 1, "store": 7}


def test_the_next_attempt_starts_at_once_after_progress() -> None:
    world = started()
    world.train(10)
    world.end(world.pod, 70)
    world.passes()
    assert [job["metadata"]["name"] for job in world.jobs] == ["run-2"]
    assert world.status.restarts.spent == {"total": 1, "crash": 1}
    world.train(10)
    world.end(world.pod, 70)
    world.passes()
    assert world.status.restarts.spent == {"total": 2, "crash": 1}


@pytest.mark.parametrize(("code", "name"), [(78, "config"), (65, "data"), (4, "deviceMemory")])
def test_a_run_that_cannot_succeed_ends_at_once(code: int, name: str) -> None:
    world = started()
    world.end(world.pod, code)
    world.passes()
    assert world.status.phase == "Failed"
    assert conditions(world)["Failed"].reason == "RunCannotSucceed"


def test_refused_credentials_end_a_run_only_before_its_first_checkpoint() -> None:
    world = started()
    world.end(world.pod, 77)
    world.passes()
    assert world.status.phase == "Failed"
    world = started()
    world.train(10)
    world.end(world.pod, 77)
    world.passes()
    assert world.status.restarts.by_cause == {"store": 1}


def test_restarts_without_progress_fail_the_run_with_what_was_seen() -> None:
    world = started()
    for _ in range(4):
        world.end(world.pod, 70)
        world.passes()
        world.wait(300)
        world.passes()
    assert world.status.phase == "Failed"
    assert world.status.message == (
        "ended 4 times in a row without a new checkpoint, and "
        "spec.failurePolicy.maxRestarts.withoutProgress is 3; the last end: why"
    )
    assert world.status.restarts.total == 3


@pytest.mark.parametrize(
    "disruption", ["EvictionByEvictionAPI", "PreemptionByScheduler", "TerminationByKubelet", ""]
)
def test_a_disruption_is_free_and_waits_for_the_pod_to_end(disruption: str) -> None:
    world = started()
    world.train(10)
    world.ask_to_end(world.pod, disruption)
    world.passes()
    assert world.status.restarts.total == 0
    world.end(world.pod, 75)
    world.settle()
    world.passes()
    assert world.status.restarts.by_cause == {"disruption": 1}
    assert world.status.restarts.spent == {}
    assert len(world.jobs) == 1


def test_a_lost_node_is_left_when_its_taint_is_not_tolerated_any_more() -> None:
    world = started()
    world.train(10)
    world.lose_node(world.pod)
    world.passes()
    assert world.status.restarts.by_cause == {"disruption": 1}
    assert [job["metadata"]["name"] for job in world.jobs] == ["run-2"]


def test_a_node_that_is_tainted_and_answers_lets_its_pods_save() -> None:
    world = started()
    world.train(10)
    world.ask_to_end(world.pod, "DeletionByTaintManager")
    world.passes()
    assert world.status.restarts.total == 0
    assert "saves a checkpoint" in world.status.message
    world.train(5)
    world.end(world.pod, 75)
    world.settle()
    world.passes()
    assert world.status.restarts.by_cause == {"disruption": 1}
    assert world.status.checkpoint_step == 15


def test_a_pod_evicted_by_its_own_limit_is_not_free() -> None:
    world = started()
    world.train(10)
    world.passes()
    world.pod["status"] |= {"reason": "Evicted", "message": "Usage of EmptyDir volume exceeds"}
    world.end(world.pod, 137, message=False)
    world.passes()
    assert world.status.restarts.spent == {"total": 1, "cacheFull": 1}


def test_a_killed_container_that_says_nothing_is_unknown() -> None:
    world = started()
    world.end(world.pod, 137, message=False)
    world.passes()
    assert world.status.restarts.by_cause == {"unknown": 1}


def test_out_of_memory_is_told_by_the_kubelet_whatever_the_code() -> None:
    world = started()
    world.end(world.pod, 0, message=False, reason="OOMKilled")
    world.passes()
    assert world.status.restarts.by_cause == {"outOfMemory": 1}


def test_a_node_on_which_attempts_fail_is_avoided() -> None:
    world = started()
    for _ in range(2):
        world.train(10)
        world.pod["spec"]["nodeName"] = "broken"
        world.end(world.pod, 70)
        world.passes()
    affinity = world.jobs[0]["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    [wish] = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert wish["preference"]["matchFields"] == [
        {"key": "metadata.name", "operator": "NotIn", "values": ["broken"]}
    ]
    world.train(10)
    world.wait(31 * 60)
    world.end(world.pod, 70)
    world.passes()
    assert "affinity" not in world.jobs[0]["spec"]["template"]["spec"]


def test_a_job_deleted_by_hand_is_made_anew_under_the_next_number() -> None:
    world = started()
    world.delete_job(world.jobs[0]["metadata"]["uid"])
    world.pods.clear()
    world.passes()
    assert world.status.restarts.by_cause == {"unknown": 1}
    world.wait(10)
    world.passes()
    assert [job["metadata"]["name"] for job in world.jobs] == ["run-2"]


def test_a_termination_message_with_numbers_that_no_status_holds_is_none() -> None:
    world = started()
    world.step = 10**30
    world.end(world.pod, 70)
    world.passes()
    assert world.status.restarts.by_cause == {"crash": 1}
    assert "said nothing" in world.status.restarts.last[0].message


def stalled(**spec: object) -> World:
    world = started(**spec)
    world.train(10)
    world.passes()
    world.wait(601)
    world.passes()
    return world


def test_a_stall_is_told_its_stacks_are_kept_and_the_run_is_restarted() -> None:
    world = stalled()
    assert conditions(world)["TrainingStalled"].status == "True"
    assert world.stacks == 1
    assert world.status.phase == "Running"
    assert "no step after 10 for 601 s, and 600 s are allowed" in world.status.message
    assert "its stacks go to s3://bucket/runs/run/logs/1/" in world.status.message
    world.wait(5)
    world.passes()
    assert world.status.restarts.by_cause == {"stalled": 1}
    assert conditions(world)["TrainingStalled"].status == "False"
    assert not world.jobs
    assert "deletionTimestamp" in world.pod["metadata"]


def test_a_stalled_pod_has_its_short_grace_though_the_operator_is_killed_before_it_acts() -> None:
    world = stalled()
    world.wait(5)
    world.write(world.decide())
    assert world.status.restarts.by_cause == {"stalled": 1}
    world.passes()
    assert world.stopped == 1
    assert not world.jobs


def test_a_stall_that_goes_by_leaves_nothing() -> None:
    world = stalled()
    world.train(1)
    world.passes()
    assert conditions(world)["TrainingStalled"].status == "False"
    assert world.status.restarts.total == 0


def test_a_stall_is_only_reported_where_that_is_asked_for() -> None:
    world = stalled(failurePolicy={"stall": {"action": "Report"}})
    world.wait(1000)
    world.passes()
    assert conditions(world)["TrainingStalled"].status == "True"
    assert world.status.restarts.total == 0
    assert "TrainingStalled" not in {
        kind
        for kind, each in conditions(stalled(failurePolicy={"stall": {"action": "None"}})).items()
        if each.status == "True"
    }


@pytest.mark.parametrize("phase", ["loading", "saving"])
def test_the_clock_of_a_stall_stands_while_the_trainer_loads_or_saves(phase: Phase) -> None:
    world = started()
    world.train(10)
    world.trainer_phase = phase
    world.passes()
    world.wait(10_000)
    world.passes()
    world.trainer_phase = "training"
    world.wait(599)
    world.passes()
    assert conditions(world)["TrainingStalled"].status == "False"
