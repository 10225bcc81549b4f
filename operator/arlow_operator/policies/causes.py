"""From how a trainer ended to the cause, and to the budget that it spends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from arlow_operator.observation import ContainerEnd, PodSeen
from arlow_trainer.config import ExitCode

DISRUPTION = "disruption"
UNKNOWN = "unknown"
# The run can never succeed as it is written.
FATAL = frozenset({ExitCode.CONFIG, ExitCode.DATA, ExitCode.OUT_OF_MEMORY})
BUDGETS = {
    ExitCode.NON_FINITE: "nonFiniteLoss",
    ExitCode.KILLED: "outOfMemory",
    ExitCode.LEASE_LOST: "store",
    ExitCode.INTERNAL: "crash",
    ExitCode.LEASE: "store",
    ExitCode.STORE: "store",
    ExitCode.CREDENTIALS: "store",
}
# SIGKILL and SIGTERM of a process that could write no message.
KILLED_CODES = (137, 143)


@dataclass(frozen=True)
class Cause:
    """Why an attempt ended.

    Attributes:
        name: of the budget that it spends, `disruption`, or the exit code's own cause.
        message: what happened, in words.
        fatal: whether no restart can help.
        node, rank, exit_code: where, if that is known.
    """

    name: str
    message: str
    fatal: bool = False
    node: str | None = None
    rank: int | None = None
    exit_code: int | None = None

    @property
    def is_free(self) -> bool:
        """Whether the run is not to blame: it spends no budget of its own."""
        return self.name == DISRUPTION


def cause_of(pods: Sequence[PodSeen], lost: Sequence[PodSeen], has_checkpoint: bool) -> Cause:
    """Returns why an attempt ended whose pods have ended, or are lost with their node.

    A pod that nobody asked to end is the culprit; others are its victims, whatever their code.

    Args:
        pods: of the attempt, of which at least one has ended.
        lost: those of them that are on a node that does not answer.
        has_checkpoint: whether the run has one to go on from.
    """
    ended = [pod for pod in pods if pod.end is not None or pod.evicted]
    for pod in sorted(ended, key=_order):
        return _cause_of_pod(pod, has_checkpoint)
    if lost:
        node = lost[0].node
        return Cause(DISRUPTION, f"node {node} does not answer", node=node)
    for pod in pods:
        if pod.deleted or pod.disruption:
            return Cause(DISRUPTION, _disrupted(pod), node=pod.node or None)
    return Cause(UNKNOWN, "the pods are gone and left no sign of why")


def _order(pod: PodSeen) -> tuple[bool, float]:
    time = pod.end.time if pod.end else None
    return pod.deleted is not None, time.timestamp() if time else float("inf")


def _cause_of_pod(pod: PodSeen, has_checkpoint: bool) -> Cause:
    node = pod.node or None
    if pod.evicted and not pod.disruption:
        return Cause("cacheFull", f"the pod exceeded a limit of its own: {pod.evicted}", node=node)
    end = pod.end
    if end is None:
        return Cause(DISRUPTION, _disrupted(pod), node=node)
    if end.reason == "OOMKilled":
        told = f" ({end.ending.message})" if end.ending and end.ending.message else ""
        message = f"the pod ran out of memory{told}; raise spec.nodes.memory or lower data.workers"
        return Cause("outOfMemory", message, node=node, exit_code=end.exit_code)
    asked = pod.deleted is not None or pod.disruption != ""
    if asked and _ended_as_asked(end):
        return Cause(DISRUPTION, _disrupted(pod), node=node, exit_code=end.exit_code)
    return _cause_of_code(end, node, has_checkpoint)


def _ended_as_asked(end: ContainerEnd) -> bool:
    if end.ending is not None:
        return end.ending.exit_code == ExitCode.INTERRUPTED
    return end.exit_code in (0, ExitCode.INTERRUPTED, *KILLED_CODES)


def _cause_of_code(end: ContainerEnd, node: str | None, has_checkpoint: bool) -> Cause:
    ending = end.ending
    number = ending.exit_code if ending else end.exit_code
    code = next((each for each in ExitCode if each == number), None)
    rank = ending.rank if ending else None
    message = ending.message if ending else ""
    if not message:
        message = f"the trainer ended with code {number} and said nothing ({end.reason})"
        if number == 0:
            message = "the trainer ended without saying that the run is finished"
    hopeless = code in FATAL or (code is ExitCode.CREDENTIALS and not has_checkpoint)
    if code is not None and hopeless:
        return Cause(code.cause, message, True, node, rank, number)
    name = BUDGETS.get(code, UNKNOWN) if code is not None else UNKNOWN
    return Cause(name, message, False, node, rank, number)


def _disrupted(pod: PodSeen) -> str:
    words = {
        "EvictionByEvictionAPI": "was evicted, as by a drain",
        "PreemptionByScheduler": "was preempted by one of a higher priority",
        "DeletionByTaintManager": "was evicted since its node does not answer or is tainted",
        "DeletionByPodGC": "was on a node that is gone",
        "TerminationByKubelet": "was ended by its node, which shuts down or lacks resources",
    }
    what = words.get(pod.disruption, "was deleted")
    return f"pod {pod.name} on node {pod.node or '(none)'} {what}"
