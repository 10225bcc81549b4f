"""The policies, in order: from a run, its status and what is seen of it to what is to be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from arlow_operator.conditions import conditions_of
from arlow_operator.goodput import account
from arlow_operator.observation import Observation
from arlow_operator.policies.admission import refuse_invalid
from arlow_operator.policies.deadline import deadline
from arlow_operator.policies.finish import stay_finished, succeed
from arlow_operator.policies.progress import follow, remember, shown_progress
from arlow_operator.policies.restart import restart_ended
from arlow_operator.policies.situation import Decision, Situation
from arlow_operator.policies.stall import judge_stall
from arlow_operator.policies.start import choose_number, delete_others, make_attempt
from arlow_operator.policies.suspend import suspend
from arlow_operator.resource import Run
from arlow_operator.settings import Settings
from arlow_operator.status import Status

# The first that has something to say decides; `follow` always has.
POLICIES: tuple[Callable[[Situation], Decision | None], ...] = (
    stay_finished,
    succeed,
    refuse_invalid,
    restart_ended,
    suspend,
    deadline,
    choose_number,
    delete_others,
    make_attempt,
    judge_stall,
    follow,
)


def decide(
    run: Run, status: Status, seen: Observation, now: datetime, settings: Settings
) -> Decision:
    """Returns what is to be done for a run. Pure."""
    run_url = run.parsed.run_url if run.parsed else status.run_url
    before = status
    if not status.finished:
        status = remember(status, seen, run.uid, run_url)
    situation = Situation(run, status, seen, now, settings)
    decision = next(filter(None, (policy(situation) for policy in POLICIES)))
    decided = decision.status.model_copy(
        update={
            "observed_generation": run.generation,
            "run_url": run_url,
            "conditions": conditions_of(run, decision, now),
            "goodput": before.goodput if before.finished else account(before, decision.status, now),
            "progress": shown_progress(decision.status),
        }
    )
    return replace(decision, status=decided)
