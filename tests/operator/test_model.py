"""A model check: whatever happens, in whatever order, the invariants of a run hold.

Random steps of the operator (which may be killed between any two of its writes), the Job
controller, kubelets, trainers, users and the clock.
"""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from world import TOTAL_STEPS, World, manifest

from arlow_operator.policies.situation import CreateAttempt, Decision
from arlow_operator.status import Status

CODES = (3, 4, 5, 65, 70, 73, 74, 75, 77, 78)
DISRUPTIONS = ("EvictionByEvictionAPI", "PreemptionByScheduler", "DeletionByTaintManager", "")
LOST = "a node is lost"


class Runs(RuleBasedStateMachine):
    """One run; the operator's memory of a pass is lost when it is killed in the middle of one."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.pending: Decision | None = None
        self.highest = 0
        self.checkpoint = -1
        self.ended: str | None = None
        self.may_begin_again = False
        self.uids = 1

    # --- the operator: a pass is two steps, and between them anything may happen

    @rule()
    def decides_and_writes_the_status(self) -> None:
        self.pending = self.world.decide()
        self.world.write(self.pending)

    @precondition(lambda self: self.pending is not None)
    @rule()
    def acts(self) -> None:
        # The status is read anew before each pass, so that an action is as old as its status.
        decision = self.pending
        self.pending = None
        assert decision is not None
        if isinstance(decision.action, CreateAttempt):
            attempt = self.world.status.attempt
            assert attempt is not None
            assert attempt.number >= decision.action.number, "a Job that was not announced"
        self._act(decision)

    @rule()
    def is_killed_and_starts_again(self) -> None:
        self.pending = None
        self.world.seen_ends.clear()

    @rule()
    def makes_a_whole_pass(self) -> None:
        self.pending = None
        decision = self.world.decide()
        self.world.write(decision)
        self._act(decision)

    def _act(self, decision: Decision) -> None:
        before = self.world.created
        self.world.act(decision)
        if self.world.created > before:
            for pod in self.world.pods[:-1]:
                deleted = pod["metadata"].get("deletionTimestamp")
                assert not World.is_running(pod) or (deleted and self._is_lost(pod, deleted))

    def _is_lost(self, pod: dict[str, Any], deleted: str) -> bool:
        """Whether a pod was asked to end so long ago that its node must be lost."""
        overdue = self.world.now - datetime.fromisoformat(deleted)
        silent = pod["status"]["conditions"][0]["status"] == "False"
        return silent or overdue > timedelta(seconds=60)

    # --- the cluster

    @precondition(lambda self: any(map(World.is_running, self.world.pods)))
    @rule(steps=st.integers(1, 60), save=st.booleans())
    def trains(self, steps: int, save: bool) -> None:
        self.world.train(steps, save)

    @precondition(lambda self: any(map(World.is_running, self.world.pods)))
    @rule(data=st.data(), code=st.sampled_from(CODES), message=st.booleans())
    def a_trainer_ends(self, data: st.DataObject, code: int, message: bool) -> None:
        running = [pod for pod in self.world.pods if World.is_running(pod)]
        self.world.end(data.draw(st.sampled_from(running)), code, message=message)

    @precondition(lambda self: any(map(World.is_running, self.world.pods)))
    @rule()
    def the_training_is_done(self) -> None:
        self.world.train(TOTAL_STEPS)
        self.world.end(next(filter(World.is_running, self.world.pods)), 0)

    @precondition(lambda self: any(map(World.is_running, self.world.pods)))
    @rule(data=st.data(), disruption=st.sampled_from((*DISRUPTIONS, LOST)))
    def a_pod_is_asked_to_end(self, data: st.DataObject, disruption: str) -> None:
        running = [pod for pod in self.world.pods if World.is_running(pod)]
        pod = data.draw(st.sampled_from(running))
        if disruption == LOST:
            self.world.lose_node(pod)
        else:
            self.world.ask_to_end(pod, disruption)

    @precondition(lambda self: self.world.jobs)
    @rule()
    def a_queue_stops_or_starts_a_job(self) -> None:
        job = self.world.jobs[-1]
        own = [
            pod
            for pod in self.world.pods
            if pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
        ]
        if job["status"].get("conditions"):
            return
        if not job["spec"].get("suspend"):
            self.world.stop_job(job)
        elif not any(map(World.is_running, own)):
            self.world.wait(1)
            self.world.start_job(job)

    @rule()
    def the_cluster_catches_up(self) -> None:
        self.world.settle()

    @rule()
    def ended_pods_are_collected(self) -> None:
        self.world.pods = [pod for pod in self.world.pods if World.is_running(pod)]

    @precondition(lambda self: self.world.jobs)
    @rule()
    def a_person_deletes_a_job(self) -> None:
        self.world.delete_job(self.world.jobs[0]["metadata"]["uid"])

    @rule(seconds=st.integers(1, 400))
    def time_passes(self, seconds: int) -> None:
        self.world.wait(seconds)

    @rule(reachable=st.booleans())
    def the_network_changes(self, reachable: bool) -> None:
        self.world.reachable = reachable

    # --- the user

    @rule(suspend=st.booleans())
    def suspends(self, suspend: bool) -> None:
        self.world.body["spec"]["suspend"] = suspend
        self.world.body["metadata"]["generation"] += 1

    @rule()
    def retries(self) -> None:
        asked = (self.world.now + timedelta(seconds=1)).isoformat()
        self.world.wait(2)
        self.world.body["metadata"]["annotations"]["arlow.dev/retry"] = asked
        self.may_begin_again = self.world.status.phase == "Failed"

    @rule()
    def deletes_the_run_and_creates_it_anew(self) -> None:
        for job in list(self.world.jobs):
            self.world.delete_job(job["metadata"]["uid"])
        self.uids += 1
        self.world.body = manifest(f"run-{self.uids}")
        self.pending, self.ended = None, None
        self.highest, self.checkpoint = 0, -1

    # --- what always holds

    @invariant()
    def the_status_reads_back_as_it_was_written(self) -> None:
        document = self.world.body.get("status", {})
        assert Status.model_validate(document).document() == document or not document

    @invariant()
    def at_most_one_job_lives(self) -> None:
        own = [job for job in self.world.jobs if not job["status"].get("conditions")]
        assert len(own) <= 1

    @invariant()
    def no_two_pods_run_that_nobody_asked_to_end(self) -> None:
        running = [pod for pod in self.world.pods if World.is_running(pod)]
        assert sum("deletionTimestamp" not in pod["metadata"] for pod in running) <= 1

    @invariant()
    def the_number_of_attempts_and_the_checkpoint_never_fall(self) -> None:
        status = self.world.status
        number = status.attempt.number if status.attempt else 0
        assert number >= self.highest
        self.highest = number
        step = -1 if status.checkpoint_step is None else status.checkpoint_step
        assert step >= self.checkpoint
        self.checkpoint = step

    @invariant()
    def an_end_stays_one(self) -> None:
        phase = self.world.status.phase
        if self.ended not in (None, phase):
            assert self.may_begin_again
            self.may_begin_again = False
        self.ended = phase if self.world.status.finished else None

    @invariant()
    def conditions_do_not_contradict_each_other(self) -> None:
        true = {each.type for each in self.world.status.conditions if each.status == "True"}
        assert not {"Succeeded", "Failed"} <= true
        assert ("Finished" in true) == bool(true & {"Succeeded", "Failed"})
        assert not ("Running" in true and true & {"Finished", "Suspended"})

    @invariant()
    def budgets_are_kept(self) -> None:
        spent = self.world.status.restarts.spent
        assert spent.get("withoutProgress", 0) <= 3
        assert spent.get("crash", 0) <= 5

    def teardown(self) -> None:
        """Left alone, every run comes to rest in a bounded number of passes."""
        world = copy.deepcopy(self.world)
        world.trainer_phase = "loading"  # or no step for so long would be a stall
        for _ in range(4):
            world.passes(15)
            world.wait(301)
            for pod in world.pods:
                if "deletionTimestamp" in pod["metadata"] and World.is_running(pod):
                    world.end(pod, 75)
            world.settle()
        world.passes(15)
        status = world.status
        if not status.finished and not world.body["spec"].get("suspend"):
            assert len(world.jobs) == 1, status


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
