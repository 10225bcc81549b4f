"""What the operator decides, by stories of one run: its start, its life, its end."""

from __future__ import annotations

import copy

import pytest
from world import TOTAL_STEPS, World, conditions, manifest, started

from arlow_operator.observation import QueueSeen


def test_the_status_announces_an_attempt_before_its_job_is_made() -> None:
    world = World()
    first = world.decide()
    assert first.action is None
    assert first.status.attempt is not None
    assert first.status.attempt.job_name == "run-1"
    world.write(first)
    assert world.decide().action is not None


def test_a_run_trains_and_succeeds() -> None:
    world = started()
    world.train(40)
    world.passes()
    assert world.status.phase == "Running"
    assert world.status.progress is not None
    assert (world.status.progress.step, world.status.progress.percent) == (40, 40.0)
    assert world.status.checkpoint_step == 40
    world.train(60)
    world.end(world.pod, 0)
    world.passes()
    assert world.status.phase == "Succeeded"
    assert world.status.completion_time == world.now
    assert {kind for kind, each in conditions(world).items() if each.status == "True"} == {
        "Validated",
        "Checkpointed",
        "Finished",
        "Succeeded",
    }


def test_an_end_stays_one_whatever_is_collected() -> None:
    world = started()
    world.train(TOTAL_STEPS)
    world.end(world.pod, 0)
    world.passes()
    world.jobs.clear()
    world.pods.clear()
    world.seen_ends.clear()
    world.passes()
    assert world.status.phase == "Succeeded"


def test_suspend_ends_the_attempt_and_resume_is_the_next_one() -> None:
    world = started()
    world.train(10)
    world.passes()
    world.body["spec"]["suspend"] = True
    world.passes()
    assert conditions(world)["Suspended"].status == "False"
    assert not world.jobs
    world.end(world.pod, 75)
    world.settle()
    world.passes()
    assert world.status.phase == "Suspended"
    assert conditions(world)["Suspended"].status == "True"
    assert world.status.message == "suspended; goes on from step 10"
    world.body["spec"]["suspend"] = False
    world.passes()
    assert [job["metadata"]["name"] for job in world.jobs] == ["run-2"]
    assert world.status.restarts.total == 0


def test_a_resumed_run_never_starts_beside_pods_that_still_end() -> None:
    world = started()
    world.body["spec"]["suspend"] = True
    world.passes()
    world.body["spec"]["suspend"] = False
    world.passes()
    assert not world.jobs
    assert "waits until run-1-0-00001 has ended" in world.status.message


def test_a_run_that_is_not_valid_makes_no_attempt_and_is_judged_anew() -> None:
    world = World(manifest(nodes={"count": 2, "gpus": 8}))
    world.passes()
    assert world.status.phase == "Pending"
    assert world.status.attempt is None
    assert conditions(world)["Validated"].status == "False"
    assert world.status.message == "spec.nodes.count: 2 is not possible yet; allowed: 1"
    world.body["spec"]["nodes"] = {"gpus": 0}
    world.passes()
    assert len(world.jobs) == 1


def test_a_path_that_is_gone_with_the_pod_is_refused_in_words() -> None:
    world = World(manifest(checkpoint={"url": "runs"}))
    world.passes()
    assert "would be gone with the pod" in world.status.message


def test_a_run_without_its_status_adopts_its_job() -> None:
    world = started()
    world.body.pop("status")
    world.passes()
    assert world.status.attempt is not None
    assert (world.status.attempt.number, world.status.attempt.job_uid) == (1, "job-1")
    assert world.created == 1


def test_of_two_live_jobs_the_newest_is_kept() -> None:
    world = started()
    older = copy.deepcopy(world.jobs[0])
    world.train(10)
    world.end(world.pod, 70)
    world.passes()
    world.jobs.append(older)
    assert [job["metadata"]["name"] for job in world.jobs] == ["run-2", "run-1"]
    world.body.pop("status")
    world.passes()
    assert [job["metadata"]["name"] for job in world.jobs] == ["run-2"]
    assert world.status.attempt is not None
    assert world.status.attempt.number == 2


def test_pods_of_an_earlier_run_of_the_name_are_waited_for() -> None:
    world = started()
    old = world.pod
    world.body = manifest("run-2")
    world.jobs.clear()
    world.passes()
    assert not world.jobs
    world.ask_to_end(old)
    world.end(old, 75)
    world.settle()
    world.passes()
    assert len(world.jobs) == 1
    assert world.status.restarts.total == 0


def test_a_failed_run_begins_again_when_it_is_told_to() -> None:
    world = started()
    world.end(world.pod, 78)
    world.passes()
    assert world.status.phase == "Failed"
    world.body["metadata"]["annotations"]["arlow.dev/retry"] = "2025-01-01T00:00:00Z"
    world.passes()
    assert world.status.phase == "Failed"
    world.wait(60)
    world.body["metadata"]["annotations"]["arlow.dev/retry"] = "2026-01-01T00:00:30Z"
    world.passes()
    assert [job["metadata"]["name"] for job in world.jobs] == ["run-2"]


def test_the_jobs_of_a_finished_run_go_after_their_time() -> None:
    world = started(ttlSecondsAfterFinished=60)
    world.end(world.pod, 78)
    decision = world.passes()
    assert len(world.jobs) == 1
    assert decision.again_after == 60
    world.wait(61)
    world.passes()
    assert not world.jobs
    assert world.status.phase == "Failed"


def test_a_run_over_its_deadline_fails_and_its_job_is_deleted() -> None:
    world = started(activeDeadlineSeconds=100)
    world.wait(101)
    world.passes()
    assert world.status.phase == "Failed"
    assert conditions(world)["Failed"].reason == "DeadlineExceeded"
    assert not world.jobs


def test_a_status_that_cannot_be_reached_is_no_restart() -> None:
    world = started()
    world.train(10)
    world.passes()
    world.reachable = False
    world.wait(100_000)
    world.passes()
    assert world.status.phase == "Running"
    assert "NetworkPolicy" in world.status.message
    assert world.status.restarts.total == 0


def test_a_job_that_its_queue_stops_and_starts_is_the_same_attempt() -> None:
    world = started()
    world.train(10)
    world.passes()
    world.stop_job(world.jobs[0])
    world.wait(1)
    world.passes()
    assert world.status.phase == "Queued"
    assert world.status.message == "stopped by its queue: its pods save a checkpoint and end"
    world.train(3)
    world.end(world.pod, 75)
    world.settle()
    world.passes()
    assert world.status.phase == "Queued"
    assert world.status.checkpoint_step == 13
    world.wait(1000)
    world.start_job(world.jobs[0])
    world.passes()
    assert world.status.phase == "Running"
    assert world.status.attempt is not None
    assert (world.status.attempt.number, world.status.restarts.total) == (1, 0)
    # It is judged by its new pods, and what the old ones left counts for nothing.
    world.end(world.pod, 70)
    world.passes()
    assert world.status.restarts.by_cause == {"crash": 1}


@pytest.mark.parametrize(
    ("queue", "reason", "words"),
    [
        (None, "CannotStart", "Kueue has taken no notice of the Job run-1: does it run?"),
        (QueueSeen("w", True, "LocalQueue typo doesn't exist"), "Queued", "LocalQueue typo"),
        (QueueSeen("w", True, ""), "Queued", "queued: the Job waits to be admitted"),
        (
            QueueSeen("w", False, "exceeded the limit of requeues"),
            "CannotStart",
            "Kueue has deactivated the Workload w (exceeded the limit of requeues): mend the cause",
        ),
    ],
)
def test_what_kueue_says_of_a_job_that_waits_is_told(
    queue: QueueSeen | None, reason: str, words: str
) -> None:
    world = started()
    world.stop_job(world.jobs[0])
    world.pods.clear()
    world.queue = queue
    world.wait(11)
    world.passes()
    assert words in world.status.message
    assert conditions(world)["Running"].reason == reason
    assert world.status.phase == "Queued"


def test_a_queue_that_the_run_did_not_name_is_told() -> None:
    world = started()
    world.stop_job(world.jobs[0])
    world.pods.clear()
    world.jobs[0]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "default"
    world.passes()
    assert world.status.message == (
        "queued in the LocalQueue default (the run names none, and the namespace has a default): "
        "the Job waits to be admitted"
    )


def test_a_job_stopped_by_its_queue_on_a_lost_node_is_left() -> None:
    world = started()
    world.train(10)
    world.passes()
    world.stop_job(world.jobs[0])
    world.wait(180 + 61)
    world.passes()
    assert world.status.restarts.by_cause == {"disruption": 1}
    assert [job["metadata"]["name"] for job in world.jobs] == ["run-2"]


def test_the_deadline_of_a_start_does_not_count_the_queue() -> None:
    world = World(manifest(startDeadlineSeconds=60))
    world.trainer_phase = "loading"
    world.passes()
    world.stop_job(world.jobs[0])
    world.end(world.pod, 75)
    world.settle()
    world.wait(1000)
    world.passes()
    world.start_job(world.jobs[0])
    world.passes()
    assert world.status.phase == "Starting"
    world.wait(61)
    world.passes()
    assert conditions(world)["Failed"].reason == "DeadlineExceeded"


def test_rates_are_shown_of_a_run_that_trains_alone() -> None:
    world = started()
    world.train(10)
    world.passes()
    progress = world.status.progress
    assert progress is not None
    assert progress.images_per_second == 100
    assert progress.eta == "1m30s"
    world.body["spec"]["suspend"] = True
    world.passes()
    progress = world.status.progress
    assert progress is not None
    assert (progress.step, progress.images_per_second, progress.eta) == (10, None, None)


def test_a_trainer_that_loads_takes_nothing_back_of_the_progress() -> None:
    world = started()
    world.train(10)
    world.passes()
    world.end(world.pod, 70)
    world.trainer_phase = "loading"
    world.passes()
    world.step = 0
    world.passes()
    assert world.status.phase == "Starting"
    assert world.status.message == "the trainer is loading"
    assert world.status.progress is not None
    assert (world.status.progress.step, world.status.progress.percent) == (10, 10.0)


def test_the_start_of_a_restarted_run_tells_why_it_was_restarted() -> None:
    world = started()
    world.end(world.pod, 74)
    world.reachable = False
    world.passes()
    world.wait(10)
    world.passes()
    assert world.status.phase == "Starting"
    assert world.status.message.startswith("the pods of attempt 2 start; the one before: ")
    assert world.status.restarts.last[0].message in world.status.message
    world.reachable = True
    world.train(10)
    world.passes()
    world.body["spec"]["suspend"] = True
    world.passes()
    world.end(world.pod, 75)
    world.settle()
    world.passes()
    world.wait(601)
    world.body["spec"]["suspend"] = False
    world.reachable = False
    world.passes()
    assert world.status.message == "the pods of attempt 3 start"


def test_a_pod_that_never_answers_is_told_with_what_to_do() -> None:
    world = World()
    world.reachable = False
    world.passes()
    assert world.status.message == "the pods start"
    world.wait(31)
    world.passes()
    assert world.status.phase == "Starting"
    assert "/status cannot be reached (no answer): add a NetworkPolicy" in world.status.message
    assert conditions(world)["Running"].reason == "Unreachable"
    assert world.status.restarts.total == 0


def test_a_run_that_is_made_invalid_in_the_moment_of_its_start_is_looked_after() -> None:
    world = World()
    world.write(world.decide())
    world.act(world.decide())
    world.body["spec"]["nodes"]["count"] = 2
    world.passes()
    assert world.status.attempt is not None
    assert world.status.attempt.job_uid == "job-1"
    assert conditions(world)["Validated"].status == "False"


def test_goodput_counts_training_that_is_kept_and_that_is_lost() -> None:
    world = World()
    world.trainer_phase = "loading"
    world.passes()
    world.wait(20)
    world.passes()
    world.trainer_phase = "training"
    world.train(10)
    world.passes()
    world.wait(100)
    world.train(10)
    world.passes()
    world.wait(30)
    world.train(5, save=False)
    world.passes()
    world.end(world.pod, 137, message=False)
    world.passes()
    goodput = world.status.goodput
    assert goodput is not None
    assert goodput.starting_seconds == 20
    assert (goodput.productive_seconds, goodput.lost_seconds) == (100, 30)


def test_a_run_that_no_node_takes_says_which_nodes_it_asks_for() -> None:
    world = started(nodes={"gpus": 8, "gpuProduct": "rtx-8000"})
    words = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
    scheduled = {"type": "PodScheduled", "status": "False", "message": words}
    world.pod["status"] = {
        "phase": "Pending",
        "conditions": [scheduled],
        "containerStatuses": [{"name": "trainer", "state": {"waiting": {}}}],
    }
    world.passes()
    assert world.status.message == (
        f"cannot start yet: no node takes the pod: {words} It asks for nodes labelled "
        "nvidia.com/gpu.product=Quadro-RTX-8000 whose GPUs are whole: neither shared "
        "(nvidia.com/gpu.sharing-strategy) nor cut by MIG (nvidia.com/gpu.slices.gi)."
    )
