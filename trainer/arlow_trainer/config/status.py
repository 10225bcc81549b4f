"""The run's status: what `/status` answers, and what the operator and `arlow watch` read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from arlow_trainer.config.shown_text import shown

Phase = Literal["starting", "loading", "training", "saving", "finished", "stopped", "failed"]
"""`stopped` is a run that ended as asked before its last step; the same command resumes it."""
ENDED: tuple[Phase, ...] = ("finished", "stopped", "failed")
"""Phases of a process that makes no more steps."""


class LastCheckpoint(BaseModel):
    """The newest committed checkpoint."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    # Statuses of earlier versions have `uri`.
    url: Annotated[str, Field(validation_alias=AliasChoices("url", "uri"))]
    step: int
    time: AwareDatetime


class LossPoint(BaseModel):
    """The loss read at a step."""

    step: int
    loss: float


class RunStatus(BaseModel):
    """A run at a moment, as rank 0 sees it. Times are UTC, durations in seconds.

    Rates, the median and the phases' seconds are those of the recent steps. `start_seconds` are the
    parts of this process's start so far: imports, checkpoint (found and checked), data, model,
    restore, compile (what was waited for it), first_step. The fields are the
    contract; other scalars (`learningRate`, `gradNorm`) are extra values, read with `scalar`, so
    that a new one needs no field here.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")

    run: str
    phase: Phase = "starting"
    started_at: AwareDatetime | None = None
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    recent_losses: list[LossPoint] = []
    images_per_second: float | None = None
    step_phase_seconds: dict[str, float] = {}
    start_seconds: dict[str, float] = {}
    eta_seconds: float | None = None
    last_step_time: AwareDatetime | None = None
    median_step_seconds: float | None = None
    last_checkpoint: LastCheckpoint | None = None
    message: Annotated[str, AfterValidator(shown)] = ""

    def scalar(self, name: str) -> float | None:
        """Returns a scalar by its name (`grad_norm`); None where the status has no such number."""
        extra = self.model_extra or {}
        value = (
            getattr(self, name) if name in type(self).model_fields else extra.get(to_camel(name))
        )
        return value if isinstance(value, int | float) else None
