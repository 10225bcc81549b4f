"""What a real run on two ranks tells and shows: status, pictures, probes, events."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from training_runs import EVERY, STEPS, Ended, Media, Process, TrainingRun, interrupt

from support.class_folders import write_folders
from support.ports import free_port

PICTURES = 20
GLOBAL_BATCH = 8


@dataclass
class Seen:
    """A run stopped and continued, and the statuses that it answered after it came back."""

    run: TrainingRun
    stopped_at: int
    back: list[dict[str, Any]] = field(default_factory=list)
    last: Ended | None = None
    stored_meanwhile: dict[str, Any] = field(default_factory=dict)

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run.url / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def seen(media: Media, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("seen")
    probe = {"data": {"path": str(write_folders(folder / "labelled"))}, "everySteps": PICTURES}
    run = TrainingRun(folder, media, picturesEverySteps=PICTURES, probe=probe)
    port = free_port()
    with run.running(2) as first:
        first.wait_for(lambda: bool(run.checkpoints()))
        interrupt(first)
    seen = Seen(run, run.checkpoints()[-1])
    command = [*run.command(2), "--port", str(port)]
    again = Process(command, folder / "again.txt")
    ends: list[dict[str, Any]] = []
    try:
        again.wait_for(lambda: _answer(port, seen.back))
        seen.stored_meanwhile = json.loads((run.url / "status.json").read_text())
        again.wait_for(lambda: _answer(port, seen.back) and seen.back[-1]["step"] > STEPS - EVERY)
        # Who reads a run sees how it ends.
        again.wait_for(lambda: _answer(port, ends) and ends[-1]["phase"] == "finished")
        seen.last = again.ended()
    finally:
        again.kill()
    return seen


def _answer(port: int, answers: list[dict[str, Any]]) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
            answers.append(json.load(answer))
    except OSError:
        return False
    return True


def test_the_run_ends_well(seen: Seen) -> None:
    assert seen.last is not None
    assert seen.last.code == 0, seen.last.log


def test_a_resumed_run_says_at_once_where_it_stands(seen: Seen) -> None:
    statuses = [status for status in seen.back if status["phase"] in ("loading", "training")]
    assert {status["phase"] for status in statuses} == {"loading", "training"}
    for status in statuses:
        assert status["step"] >= seen.stopped_at
        assert status["totalSteps"] == STEPS
        assert status["loss"] is not None
        assert status["lastCheckpoint"]["url"].startswith(f"{seen.run.url}/checkpoint-")
    assert seen.stored_meanwhile["step"] >= seen.stopped_at


def test_a_finished_run_that_is_started_again_keeps_its_status(seen: Seen) -> None:
    ended = seen.run.train(1)
    assert ended.code == 0, ended.log
    status = json.loads((seen.run.url / "status.json").read_text())
    assert (status["phase"], status["step"], status["totalSteps"]) == ("finished", STEPS, STEPS)
    assert status["lastCheckpoint"]["step"] == STEPS


def test_pictures_are_drawn_at_the_interval_and_at_the_end(seen: Seen) -> None:
    found = sorted((seen.run.url / "pictures").rglob("*.png"))
    names = {str(path.relative_to(seen.run.url / "pictures")) for path in found}
    for step in (PICTURES, STEPS):
        for modality in ("image", "video"):
            assert any(str(step) in name and modality in name for name in names), names
    assert len(found) == 4
    for path in found:
        with Image.open(path) as picture:
            assert picture.width > 3 * 32


def test_checkpoints_are_probed_and_reported(seen: Seen) -> None:
    events = [event for event in seen.run.events() if event["kind"] == "probe"]
    assert {event["method"] for event in events} == {"knn", "linear"}
    assert all(0 <= event["accuracy"] <= 1 for event in events)
    probed = {(line["step"], line["method"]) for line in seen.lines("probe.jsonl")}
    assert {(event["step"], event["method"]) for event in events} <= probed
    assert all(step % EVERY == 0 or step == seen.stopped_at for step, _ in probed)


def test_events_tell_the_run_s_life(seen: Seen) -> None:
    kinds = [event.get("phase") or event["kind"] for event in seen.run.events()]
    cut = kinds.index("stopped")
    assert kinds[0] == "start"
    assert kinds[cut + 1 : cut + 3] == ["stopped", "start"], "the end's own event, then the next"
    resumes = [event for event in seen.run.events() if event["kind"] == "resume"]
    assert resumes[0]["step"] == seen.stopped_at
    assert resumes[0]["url"] == f"{seen.run.url}/checkpoint-{seen.stopped_at}"


def test_phases_are_the_whole_step(seen: Seen) -> None:
    """Nothing that ranks spend their time on, their communication included, is left out."""
    status = seen.back[-1]
    phases = status["stepPhaseSeconds"]
    step_seconds = GLOBAL_BATCH / (status["imagesPerSecond"] + status["clipsPerSecond"])
    assert phases["reduce"] > 0
    assert 0.8 * step_seconds < sum(phases.values()) <= step_seconds


def test_a_lost_step_names_module_and_samples(media: Media, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, media)
    ended = run.train(
        2, "optimizer.learningRate=1e9", "optimizer.weightDecay=1e9", "optimizer.warmupSteps=0"
    )
    assert ended.code == 3, ended.log
    warnings = [event["message"] for event in run.events() if event["kind"] == "warning"]
    lost = [text for text in warnings if "was skipped" in text]
    assert len(lost) == 10
    assert all("module tower." in text and "on samples [" in text for text in lost)
    step = int(lost[0].split()[1])
    assert f"the samples {GLOBAL_BATCH * step} to {GLOBAL_BATCH * step + 7})" in lost[0]
