"""`status` of an `ArlowPretrain`: what the operator knows of a run, and all that it remembers.

Times are UTC and never in the future: `kubectl get` shows those as invalid. Everything is optional,
since a status that an earlier version wrote lacks what came later.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Phase = Literal[
    "Pending",
    "Queued",
    "Starting",
    "Running",
    "Restarting",
    "Suspended",
    "Succeeded",
    "Failed",
]
TERMINAL: tuple[Phase, ...] = ("Succeeded", "Failed")

ConditionType = Literal[
    "Validated",
    "Running",
    "Checkpointed",
    "TrainingStalled",
    "Suspended",
    "Finished",
    "Succeeded",
    "Failed",
]

Reason = Literal[
    "Valid",
    "Invalid",
    "Pending",
    "Queued",
    "Starting",
    "CannotStart",
    "Training",
    "Unreachable",
    "Restarting",
    "Stopping",
    "Suspended",
    "NotSuspended",
    "NoCheckpoint",
    "CheckpointVerified",
    "NoStep",
    "Stepping",
    "NotTraining",
    "NotFinished",
    "Finished",
    "RunCannotSucceed",
    "BudgetSpent",
    "DeadlineExceeded",
]


class StatusSection(BaseModel):
    """Base of the status's sections: frozen, and readers ignore keys that they do not know."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )


class Condition(StatusSection):
    """One aspect of the run, as `kubectl wait` reads it."""

    type: ConditionType
    """The aspect."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Reason
    """Why, in a word for programs."""
    message: str = ""
    """Why, in words for people."""
    last_transition_time: AwareDatetime
    """When status changed last."""
    observed_generation: int
    """The generation of the object that this was judged by."""


class AttemptStatus(StatusSection):
    """The attempt that runs, or is about to: one Job."""

    number: Annotated[int, Field(ge=1)]
    """Number of the attempt; it never falls."""
    job_name: str
    """Name of the Job."""
    job_uid: str | None = None
    """The Job's uid; unset until the Job was made."""
    generation: int | None = None
    """The generation of the object that the Job was made from."""
    image: str | None = None
    """The trainer's image."""
    nodes: list[str] | None = None
    """Nodes of its pods."""
    start_time: AwareDatetime | None = None
    """When the Job was made."""


class ProgressStatus(StatusSection):
    """How far the training is, as the trainer told last."""

    step: int | None = None
    """Optimisation steps that are done."""
    total_steps: int | None = None
    """Optimisation steps of the run."""
    percent: float | None = None
    """Share of the steps that are done."""
    loss: float | None = None
    """Loss of the newest logged step."""
    images_per_second: float | None = None
    """Samples per second over all devices."""
    mfu: float | None = None
    """Share of the devices' peak that the model's operations make up."""
    eta_seconds: float | None = None
    """Seconds that remain."""
    eta: str | None = None
    """Time that remains, such as 3h12m."""
    step_time: AwareDatetime | None = None
    """When this step was first seen, or the trainer was last seen to load or save."""
    last_update_time: AwareDatetime | None = None
    """When the trainer was last heard."""


class CheckpointStatus(StatusSection):
    """The newest verified checkpoint."""

    url: str | None = None
    """URL of its folder."""
    step: int | None = None
    """Its step."""
    time: AwareDatetime | None = None
    """When it was committed."""


class Restart(StatusSection):
    """One restart."""

    time: AwareDatetime
    """When the operator decided on it."""
    cause: str
    """Its cause, as spec.failurePolicy.maxRestarts names it, or `disruption`."""
    node: str | None = None
    """Where it happened."""
    rank: int | None = None
    """The rank that failed first."""
    exit_code: int | None = None
    """Exit code of the trainer."""
    message: str = ""
    """What happened."""


class RestartsStatus(StatusSection):
    """Restarts of the run."""

    total: int = 0
    """Restarts in all."""
    by_cause: dict[str, int] = {}
    """Restarts in all, by their cause."""
    spent: dict[str, int] = {}
    """What is spent of each budget of spec.failurePolicy.maxRestarts."""
    checkpoint_step: int | None = None
    """Step of the newest checkpoint at the last restart; progress is a checkpoint above it."""
    last: list[Restart] = []
    """The last five, newest first."""


class GoodputStatus(StatusSection):
    """Where the run's time went, in seconds."""

    productive_seconds: int = 0
    """Training whose steps were kept."""
    lost_seconds: int = 0
    """Training that restarts threw away."""
    queued_seconds: int = 0
    """Waiting for a queue."""
    starting_seconds: int = 0
    """From an attempt's beginning to its first step."""
    as_of: AwareDatetime | None = None
    """When these were counted last."""


class Status(StatusSection):
    """What the operator knows of the run."""

    observed_generation: int | None = None
    """The generation of the object that this status was judged by."""
    phase: Phase = "Pending"
    """Where the run is in its life."""
    conditions: list[Condition] = []
    """The run's aspects."""
    message: str = ""
    """What happens now, and what to do about it where something is wrong."""
    run_url: str | None = None
    """URL of the run's folder."""
    start_time: AwareDatetime | None = None
    """When the first attempt was begun."""
    completion_time: AwareDatetime | None = None
    """When the run succeeded or failed."""
    attempt: AttemptStatus | None = None
    progress: ProgressStatus | None = None
    last_checkpoint: CheckpointStatus | None = None
    restarts: RestartsStatus = RestartsStatus()
    goodput: GoodputStatus | None = None

    @property
    def finished(self) -> bool:
        """Whether the run has ended, in either way."""
        return self.phase in TERMINAL

    @property
    def checkpoint_step(self) -> int | None:
        """Step of the newest checkpoint; None where there is none."""
        return self.last_checkpoint.step if self.last_checkpoint else None

    def condition(self, kind: ConditionType) -> Condition | None:
        """Returns the condition of a type; None where there is none yet."""
        return next((each for each in self.conditions if each.type == kind), None)

    def document(self) -> dict[str, Any]:
        """Returns the status as it is sent to the API."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def timestamp(moment: datetime) -> str:
    """Returns a time as the API writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def whole_second(moment: datetime) -> datetime:
    """Returns a time as the API stores it."""
    return moment.replace(microsecond=0)
