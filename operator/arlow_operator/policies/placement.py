"""Which nodes the next attempt had better not run on."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

from arlow_operator.policies.causes import DISRUPTION
from arlow_operator.status import RestartsStatus

LATELY = timedelta(minutes=30)
TOO_OFTEN = 2


def nodes_to_avoid(restarts: RestartsStatus, now: datetime) -> tuple[str, ...]:
    """Returns the nodes on which several of the latest attempts failed within minutes.

    Evictions and preemptions are no fault of a node's.
    """
    lately = [
        each.node
        for each in restarts.last
        if each.node and each.cause != DISRUPTION and now - each.time < LATELY
    ]
    return tuple(sorted(node for node, times in Counter(lately).items() if times >= TOO_OFTEN))
