"""A run's events over resumes, outages and rotation, in every kind of store."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage import jsonl
from arlow_trainer.storage.events import EventLog, read_events
from arlow_trainer.storage.store import Store


def test_events_are_kept_over_resumes(store: Store) -> None:
    assert read_events(store) == []
    with EventLog(store) as log:
        log.record("start", step=0)
        log.record("checkpoint", step=5, uri="x")
    with EventLog(store) as log:
        log.record("resume", step=5)
    found = read_events(store)
    assert [(event.kind, event.fields) for event in found] == [
        ("start", {"step": 0}),
        ("checkpoint", {"step": 5, "uri": "x"}),
        ("resume", {"step": 5}),
    ]
    assert datetime.now(UTC) - found[-1].time < timedelta(minutes=5)
    lines = store.read_bytes("events.jsonl").splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["start", "checkpoint", "resume"]


def test_events_arrive_while_the_run_lives(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    log = EventLog(store, flush_s=0.05)
    for step in range(20):
        log.record("skip", step=step)
    assert log.flush()
    assert [event.fields["step"] for event in read_events(store)] == list(range(20))
    log.close()


def test_a_killed_run_loses_only_its_last_line(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with EventLog(store) as log:
        log.record("start")
    store.write_bytes("events.jsonl", store.read_bytes("events.jsonl") + b'{"time": "2026-')
    with EventLog(store) as log:
        log.record("resume")
    assert [event.kind for event in read_events(store)] == ["start", "resume"]


class Unreachable(Store):
    """A store that does not answer while it is `away`."""

    away = False

    def read_bytes(self, key: str) -> bytes:
        if self.away:
            raise StoreError(f"Cannot read {self.url_of(key)}: nobody answers.")
        return super().read_bytes(key)


def test_an_outage_delays_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Unreachable(str(tmp_path / "run"))
    with EventLog(store) as log:
        log.record("start")
    store.away = True
    log = EventLog(store, flush_s=60)
    with caplog.at_level(logging.WARNING):
        log.record("resume")
        assert not log.flush()
        assert not log.flush()
    # Once, until the store answers again.
    [warning] = caplog.messages
    assert warning.startswith(f"events cannot be written to the store: Cannot read {store.url}")
    store.away = False
    log.record("end")
    log.close()
    assert [event.kind for event in read_events(store)] == ["start", "resume", "end"]


def test_a_store_that_hangs_does_not_hold_the_end_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends = threading.Event()

    class Hanging(Store):
        def write_bytes(self, key: str, data: bytes) -> None:
            ends.wait(60)

    log = EventLog(Hanging(str(tmp_path)))
    log.record("start")
    with caplog.at_level(logging.WARNING):
        log.close(timeout_s=0.2)
    assert "the last events (1) did not reach the store within 0 s" in caplog.text
    ends.set()


def test_what_cannot_be_json_does_not_stop_the_log(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with EventLog(store) as log:
        log.record("odd", where=Path("/x"), when=datetime(2026, 1, 1, tzinfo=UTC))
        log.record("broken", fields={(1, 2): 3})
        log.record("end")
    assert [event.kind for event in read_events(store)] == ["odd", "end"]


def test_a_long_log_is_rotated_in_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "ROTATE_BYTES", 500)
    for attempt in range(3):
        with EventLog(store) as log:
            for step in range(10):
                log.record("step", attempt=attempt, step=step)
                assert log.flush()
    names = store.list_files()
    assert "events-1.jsonl" in names
    assert "events-2.jsonl" in names
    assert store.size("events.jsonl") < 1000
    found = [(event.fields["attempt"], event.fields["step"]) for event in read_events(store)]
    assert found == [(attempt, step) for attempt in range(3) for step in range(10)]


def test_an_unreadable_store_raises_for_the_reader(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="Not a directory"):
        read_events(Store(str(tmp_path / "file" / "run")))
