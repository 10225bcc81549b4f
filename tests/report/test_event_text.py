"""Descriptions of events."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from arlow_trainer.report.event_text import describe_event
from arlow_trainer.storage.events import Event

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "fields", "description"),
    [
        ("start", {"ranks": 1}, "started on 1 rank"),
        ("start", {"ranks": 16}, "started on 16 ranks"),
        ("resume", {"step": 1450, "url": "/r/c-1450"}, "resumed from step 1,450: /r/c-1450"),
        ("phase", {"phase": "finished", "message": "450 steps done"}, "finished: 450 steps done"),
        ("phase", {"phase": "saving", "message": ""}, "saving"),
        ("checkpoint", {"step": 450, "url": "/r/c-450"}, "checkpoint of step 450: /r/c-450"),
        ("checkpoint", {"step": 450, "uri": "/r/c-450"}, "checkpoint of step 450: /r/c-450"),
        ("probe", {"step": 5, "method": "knn", "accuracy": 0.7}, "probe of step 5: knn 70.0%"),
        ("skip", {"name": "a.png", "reason": "truncated"}, "skipped a.png: truncated"),
        ("warning", {"message": "slow"}, "warning: slow"),
        (
            "started",
            {"seconds": {"imports": 25.37, "first_step": 1.5}},
            "started after 26.9 s: imports 25.4 s, first step 1.5 s",
        ),
        ("started", {"seconds": 3}, "started: seconds 3"),
        ("end", {"phase": "finished"}, "ended: finished"),
        ("later", {"a": 1, "b": None, "c": "d"}, "later: a 1, c d"),
        ("later", {}, "later"),
        ("start", {}, "start"),
        ("checkpoint", {"step": "many"}, "checkpoint: step many"),
    ],
)
def test_events_are_described(kind: str, fields: dict[str, object], description: str) -> None:
    assert describe_event(Event(NOW, kind, fields)) == description
