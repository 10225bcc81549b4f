"""A cluster on paper: the objects as JSON, a Job controller, kubelets and trainers, and a clock.

Only what policies go by is modelled, as it was measured on a real cluster: the end of a deleted pod
is seen and then the pod is gone; a deleted Job is gone at once and its pods end in their own time.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from arlow_operator.decide import decide
from arlow_operator.observation import (
    Observation,
    PodSeen,
    QueueSeen,
    Reported,
    job_seen,
    pod_seen,
    with_ends,
)
from arlow_operator.policies.situation import (
    CreateAttempt,
    Decision,
    DeleteJob,
    StopPods,
    WriteStacks,
)
from arlow_operator.render import render_job
from arlow_operator.resource import read_run
from arlow_operator.settings import Settings
from arlow_operator.status import Condition, Status
from arlow_trainer.config import ExitCode
from arlow_trainer.config.ending import Ending
from arlow_trainer.config.object_names import RUN_LABEL
from arlow_trainer.config.status import LastCheckpoint, Phase, RunStatus
from support.run_body import run_body

SETTINGS = Settings(image="trainer:1")
TOTAL_STEPS = 100
SPEC: Mapping[str, Any] = {
    "training": {"preset": "tiny"},
    "checkpoint": {"url": "s3://bucket/runs"},
    "nodes": {"gpus": 0},
}


def manifest(uid: str = "run-1", **spec: Any) -> dict[str, Any]:
    """Returns a run as the API has it."""
    return run_body({**copy.deepcopy(dict(SPEC)), **spec}, uid)


def timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class World:
    """One run and what is there of it."""

    body: dict[str, Any] = field(default_factory=manifest)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    pods: list[dict[str, Any]] = field(default_factory=list)
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    step: int = 0
    saved: int | None = None
    saved_at: datetime | None = None
    reachable: bool = True
    seen_ends: dict[str, PodSeen] = field(default_factory=dict)
    created: int = 0
    pods_made: int = 0
    queue: QueueSeen | None = None
    stacks: int = 0
    stopped: int = 0
    trainer_phase: Phase = "training"

    # --- the operator

    @property
    def status(self) -> Status:
        return read_run(self.body)[1]

    def observe(self) -> Observation:
        for pod in self.pods:
            self._watch(pod)
        pods = with_ends([pod_seen(pod) for pod in self.pods], list(self.seen_ends.values()))
        jobs = [job_seen(job) for job in self.jobs]
        return Observation(jobs, pods, "", self._reported(), self.queue)

    def decide(self) -> Decision:
        run, status = read_run(self.body)
        return decide(run, status, self.observe(), self.now, SETTINGS)

    def write(self, decision: Decision) -> None:
        self.body["status"] = decision.status.document()

    def act(self, decision: Decision) -> None:
        run, _ = read_run(self.body)
        match decision.action:
            case CreateAttempt(number, image, avoided):
                assert run.parsed is not None
                job = render_job(run, run.parsed, number, image, SETTINGS, avoided)
                if all(each["metadata"]["name"] != job["metadata"]["name"] for each in self.jobs):
                    self.create_job(job)
            case DeleteJob(_, uid):
                self.delete_job(uid)
            case StopPods(pods):
                self.stopped += 1
                names = {name for name, _ in pods}
                for pod in self.pods:
                    if pod["metadata"]["name"] in names:
                        self.ask_to_end(pod)
            case WriteStacks():
                self.stacks += 1

    def passes(self, most: int = 12) -> Decision:
        """Makes passes until nothing changes any more; returns the last decision."""
        for _ in range(most):
            before = copy.deepcopy((self.body, self.jobs, self.pods))
            decision = self.decide()
            self.write(decision)
            self.act(decision)
            if before == (self.body, self.jobs, self.pods):
                return decision
        raise AssertionError(f"no rest after {most} passes: {self.status}")

    def _watch(self, pod: dict[str, Any]) -> None:
        seen = pod_seen(pod)
        if seen.end or seen.disruption or seen.evicted:
            self.seen_ends[seen.uid] = seen

    def _reported(self) -> Reported | None:
        for pod in self.pods:
            if self.is_running(pod) and pod["metadata"]["uid"] == self.live_pod_uid():
                if not self.reachable:
                    return Reported(self.now, problem="no answer")
                last = None
                if self.saved is not None:
                    url = f"s3://bucket/runs/run/checkpoint-{self.saved}"
                    last = LastCheckpoint(url=url, step=self.saved, time=self.saved_at)
                told = RunStatus(
                    run="run",
                    phase=self.trainer_phase,
                    step=self.step,
                    total_steps=TOTAL_STEPS,
                    last_step_time=self.now,
                    median_step_seconds=1.0,
                    images_per_second=100.0,
                    eta_seconds=TOTAL_STEPS - self.step,
                    last_checkpoint=last,
                )
                return Reported(self.now, told)
        return None

    def live_pod_uid(self) -> str | None:
        job_uid = self.status.attempt.job_uid if self.status.attempt else None
        for pod in self.pods:
            if self.is_running(pod) and pod["metadata"]["ownerReferences"][0]["uid"] == job_uid:
                return str(pod["metadata"]["uid"])
        return None

    # --- the cluster

    def create_job(self, job: dict[str, Any]) -> None:
        self.created += 1
        job = copy.deepcopy(job)
        uid = f"job-{self.created}"
        job["metadata"] |= {"uid": uid, "creationTimestamp": timestamp(self.now)}
        self.jobs.append(job)
        self.start_job(job)

    def start_job(self, job: dict[str, Any]) -> None:
        """The Job controller makes the Job's pod, and the pod begins."""
        self.pods_made += 1
        job["spec"].pop("suspend", None)
        job["status"] = {"startTime": timestamp(self.now)}
        running = {"startedAt": timestamp(self.now)}
        self.pods.append(
            {
                "metadata": {
                    "name": f"{job['metadata']['name']}-0-{self.pods_made:05}",
                    "uid": f"pod-{self.pods_made}",
                    "creationTimestamp": timestamp(self.now),
                    "labels": dict(job["spec"]["template"]["metadata"]["labels"]),
                    "ownerReferences": [{"kind": "Job", "uid": job["metadata"]["uid"]}],
                },
                "spec": {"nodeName": f"node-{self.pods_made % 2}"},
                "status": {
                    "phase": "Running",
                    "podIP": "10.0.0.1",
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [{"name": "trainer", "state": {"running": running}}],
                },
            }
        )
        assert self.pods[-1]["metadata"]["labels"][RUN_LABEL] == "run"
        # A new trainer resumes from the newest checkpoint.
        self.step = self.saved or 0

    def delete_job(self, uid: str) -> None:
        self.jobs = [job for job in self.jobs if job["metadata"]["uid"] != uid]
        for pod in self.pods:
            if pod["metadata"]["ownerReferences"][0]["uid"] == uid:
                self.ask_to_end(pod)

    def ask_to_end(self, pod: dict[str, Any], disruption: str = "") -> None:
        if disruption:
            self.set_condition(pod, "DisruptionTarget", disruption)
        grace = timedelta(seconds=180)
        pod["metadata"].setdefault("deletionTimestamp", timestamp(self.now + grace))

    def stop_job(self, job: dict[str, Any]) -> None:
        """A queue stops the Job: its pods are asked to end, and it waits."""
        job["spec"]["suspend"] = True
        for pod in self.pods:
            if pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]:
                self.ask_to_end(pod)

    def lose_node(self, pod: dict[str, Any]) -> None:
        """The pod's node goes silent for longer than the pod tolerates."""
        pod["status"]["conditions"][0]["status"] = "False"
        self.ask_to_end(pod, "DeletionByTaintManager")

    @staticmethod
    def set_condition(pod: dict[str, Any], kind: str, reason: str) -> None:
        pod["status"]["conditions"].append({"type": kind, "status": "True", "reason": reason})

    @staticmethod
    def is_running(pod: Mapping[str, Any]) -> bool:
        return "running" in pod["status"]["containerStatuses"][0]["state"]

    def end(
        self, pod: dict[str, Any], code: int, *, message: bool = True, reason: str = ""
    ) -> None:
        """The trainer's container ends, and says why unless it was killed."""
        terminated = {
            "exitCode": code,
            "reason": reason or ("Error" if code else "Completed"),
            "finishedAt": timestamp(self.now),
        }
        if message:
            ending = Ending.of(ExitCode(code), "why", step=self.step, saved=self.saved)
            terminated["message"] = ending.line()
        pod["status"]["containerStatuses"][0]["state"] = {"terminated": terminated}
        pod["status"]["phase"] = "Failed" if code else "Succeeded"
        self._watch(pod)

    def settle(self) -> None:
        """The Job controller and the kubelets catch up: Jobs end, deleted pods that ended go."""
        for pod in self.pods:
            if not self.is_running(pod):
                for job in self.jobs:
                    own = job["metadata"]["uid"] == pod["metadata"]["ownerReferences"][0]["uid"]
                    if own and not self._stopped_by_queue(job, pod):
                        kind = "Complete" if pod["status"]["phase"] == "Succeeded" else "Failed"
                        job["status"]["conditions"] = [{"type": kind, "status": "True"}]
        self.pods = [
            pod
            for pod in self.pods
            if self.is_running(pod) or "deletionTimestamp" not in pod["metadata"]
        ]

    @staticmethod
    def _stopped_by_queue(job: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
        """Whether a Job's controller has forgotten a pod, which it counts neither way."""
        begun = job["status"]["startTime"] > pod["metadata"]["creationTimestamp"]
        stopped = job["spec"].get("suspend") or begun
        return bool(stopped and "deletionTimestamp" in pod["metadata"])

    @property
    def pod(self) -> dict[str, Any]:
        """The newest pod."""
        return self.pods[-1]

    def train(self, steps: int, save: bool = True) -> None:
        self.step = min(TOTAL_STEPS, self.step + steps)
        if save:
            self.saved, self.saved_at = self.step, self.now

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def started(**spec: object) -> World:
    """Returns a world whose run has started."""
    world = World(manifest(**spec))
    world.passes()
    return world


def conditions(world: World) -> dict[str, Condition]:
    """Returns the conditions of the run by their type."""
    return {each.type: each for each in world.status.conditions}
