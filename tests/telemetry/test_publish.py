"""Writing status and history to a store that may be slow or refuse."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from telemetry_reports import make_readout, make_report

from arlow_trainer.config import RunStatus
from arlow_trainer.config.errors import StoreError
from arlow_trainer.telemetry import Telemetry, TelemetryOptions
from arlow_trainer.telemetry.publish import Publisher
from support.waiting import wait_until

Start = Callable[..., Telemetry]


def test_status_and_history_reach_the_store(telemetry: Start) -> None:
    statuses: list[bytes] = []
    lines: list[dict[str, Any]] = []
    started = telemetry(publish_status=statuses.append, append_history=lines.extend)
    time.sleep(0.1)
    assert statuses == [], "the store keeps the last process's status until this one says more"
    started.phase("loading")
    wait_until(lambda: statuses)
    for step in range(1, 31):
        started.step(make_report(step, readout=make_readout() if step % 10 == 0 else None))
    started.phase("finished")
    started.close()
    assert len(statuses) == 2, "at most every 15 seconds, and once at the end"
    last = RunStatus.model_validate_json(statuses[-1])
    assert (last.phase, last.step) == ("finished", 30)
    assert [one["step"] for one in lines] == [10, 20, 30]
    assert lines[0]["images_per_second"] == pytest.approx(48.0)
    json.dumps(lines, allow_nan=False)


def test_trackers_are_given_the_whole_table(telemetry: Start) -> None:
    given: list[tuple[int, dict[str, float]]] = []
    started = telemetry()
    started.track(lambda step, values: given.append((step, dict(values))))
    started.step(make_report(1))
    started.step(make_report(2, readout=make_readout(grad_norm=math.inf, loss_scale=None)))
    started.probe(2, "knn", 0.5)
    (step, values), probe = given
    assert step == 2
    assert values["loss"] == 0.5
    assert values["max_attention_logit"] == 12.0, "also what history leaves out"
    assert values["images_per_second"] == pytest.approx(48.0)
    assert values["phase_seconds/backward"] == pytest.approx(0.2)
    assert not {"grad_norm", "loss_scale"} & values.keys()
    assert all(map(math.isfinite, values.values()))
    assert probe == (2, {"probe_accuracy/knn": 0.5})


def test_events_are_recorded_in_order(telemetry: Start) -> None:
    kinds: list[str] = []
    started = telemetry(record_event=lambda kind, **fields: kinds.append(kind))
    started.phase("training")
    started.skipped("a.jpg", "truncated")
    started.warning("slow store")
    started.checkpoint_failed(3, "refused")
    started.close()
    assert kinds == ["start", "phase", "skip", "warning", "warning", "end"]


def test_a_step_does_not_wait_for_a_store_that_hangs(telemetry: Start) -> None:
    release = threading.Event()
    started = telemetry(publish_status=lambda status: release.wait(10) and None)
    begin = time.perf_counter()
    for step in range(100):
        started.step(make_report(step, readout=make_readout()))
    assert time.perf_counter() - begin < 1.0
    release.set()


def test_refused_lines_are_tried_again_and_warned_about_once() -> None:
    taken: list[dict[str, Any]] = []
    warnings: list[str] = []
    refusals = iter([True, True, True])

    def append(lines: list[dict[str, Any]]) -> None:
        if next(refusals, False):
            raise StoreError("the bucket is gone")
        taken.extend(lines)

    publisher = Publisher(
        TelemetryOptions(append_history=append),
        lambda: RunStatus(run="quick"),
        warnings.append,
        interval=0.02,
    )
    for step in range(3):
        publisher.history({"step": step})
    wait_until(lambda: taken)
    publisher.close()
    assert [line["step"] for line in taken] == [0, 1, 2]
    assert warnings == ["history lines cannot be written to the store: the bucket is gone"]


def test_lines_are_written_once_and_at_once_though_the_status_is_refused() -> None:
    taken: list[dict[str, Any]] = []
    statuses: list[bytes] = []
    refusals = iter([True, True])

    def publish(status: bytes) -> None:
        if next(refusals, False):
            raise StoreError("the server is busy")
        statuses.append(status)

    publisher = Publisher(
        TelemetryOptions(publish_status=publish, append_history=taken.extend),
        lambda: RunStatus(run="quick"),
        lambda text: None,
        interval=0.02,
    )
    publisher.history({"step": 0})
    wait_until(lambda: taken and statuses)
    publisher.history({"step": 1})
    publisher.close()
    assert [line["step"] for line in taken] == [0, 1]
    assert len(statuses) == 1, "the same status is not written again"


def test_history_is_written_though_the_status_is_always_refused() -> None:
    taken: list[dict[str, Any]] = []
    warnings: list[str] = []

    def refuse(status: bytes) -> None:
        raise StoreError("not allowed")

    publisher = Publisher(
        TelemetryOptions(publish_status=refuse, append_history=taken.extend),
        lambda: RunStatus(run="quick"),
        warnings.append,
        interval=0.02,
    )
    for step in range(5):
        publisher.history({"step": step})
    publisher.close()
    assert [line["step"] for line in taken] == [0, 1, 2, 3, 4]
    assert set(warnings) == {"status cannot be written to the store: not allowed"}
