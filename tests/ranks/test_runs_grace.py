"""A stop is obeyed within the grace period, whatever the store does."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import s3fs
from training_runs import Ended, Media, Process, TrainingRun, run_on_s3

from support.s3_server import S3
from support.waiting import wait_until

GRACE_S = 20.0
# The machine that runs the tests may be busy; the watch over the grace period is not.
TOLERANCE_S = 2.0
# The store may hold a checkpoint before the run has read that it does.
SAVED = "] checkpoint step="


@dataclass
class Stored:
    """A long run whose URL is in a bucket."""

    run: TrainingRun
    server: S3
    folder: Path

    def start(self, ranks: int, *options: str) -> Process:
        command = [*self.run.command(ranks, "maxStepsPerEpoch=4000"), *options]
        message = {"ARLOW_TERMINATION_LOG": str(self.folder / "message.json")}
        return Process(command, self.folder / "s3.txt", self.server.environment | message)

    def ending(self) -> dict[str, Any]:
        return json.loads((self.folder / "message.json").read_text())

    def saved(self) -> list[int]:
        files = s3fs.S3FileSystem(
            **self.server.options, use_listings_cache=False, skip_instance_cache=True
        )
        found = files.glob(self.server.url("models/small/checkpoint-*/manifest.json"))
        return sorted(int(path.split("/")[-2].removeprefix("checkpoint-")) for path in found)


@pytest.fixture
def stored(media: Media, tmp_path: Path) -> Iterator[Stored]:
    with run_on_s3(tmp_path, media) as (run, server):
        yield Stored(run, server, tmp_path)


def stopped(process: Process, *pauses: float) -> tuple[Ended, float]:
    """Sends SIGTERM, and again after each pause; how it ended and the seconds since the first."""
    began = time.monotonic()
    process.popen.send_signal(signal.SIGTERM)
    for pause in pauses:
        time.sleep(pause)
        process.popen.send_signal(signal.SIGTERM)
    try:
        return process.ended(), time.monotonic() - began
    finally:
        process.kill()


def last_step(log: str) -> int:
    """The last step that the log tells of."""
    return max(int(step.replace(",", "")) for step in re.findall(r"\] step ([\d,]+)/", log))


def last_saved(log: str) -> int:
    """The step of the last checkpoint that the log tells of."""
    return max(int(step) for step in re.findall(re.escape(SAVED) + r"(\d+)", log))


def dead(process: psutil.Process) -> bool:
    """Whether a process has ended, also where nothing reaps it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_silent_store(stored: Stored, ranks: int) -> None:
    process = stored.start(ranks, "--grace", str(GRACE_S))
    process.wait_for(lambda: SAVED in process.log)
    stored.server.fall_silent()
    # Nothing is saved any more, and a step that only the run's memory has is what the stop loses.
    process.wait_for(lambda: last_step(process.log) > last_saved(process.log))
    ended, seconds = stopped(process)
    stored.server.process.send_signal(signal.SIGCONT)
    assert ended.code == 75, ended.log
    assert seconds < GRACE_S + TOLERANCE_S, ended.log
    assert "Traceback" not in ended.log
    ending = stored.ending()
    assert (ending["cause"], ending["finished"]) == ("interrupted", False)
    assert ending["saved"] in stored.saved()
    assert ending["saved"] < ending["step"]
    # On a busy machine the launcher's watch may be what ends it, which also says so.
    notes = ("without its checkpoint", "the grace period was over before all was saved")
    assert any(note in ending["message"] for note in notes)


def test_a_second_sigterm_ends_it_at_once(stored: Stored) -> None:
    process = stored.start(2)
    process.wait_for(lambda: SAVED in process.log)
    stored.server.fall_silent()
    family = process.family()
    ended, seconds = stopped(process, 1.0)
    stored.server.process.send_signal(signal.SIGCONT)
    assert ended.code == 75, ended.log
    assert seconds < 4, ended.log
    wait_until(lambda: all(map(dead, family)), 10)
    assert "a second signal (SIGTERM)" in stored.ending()["message"]
    assert stored.ending()["saved"] in stored.saved()


def test_a_store_away_for_a_while_costs_nothing(stored: Stored) -> None:
    """Saves are retried for minutes; the step after the next save waits meanwhile."""
    process = stored.start(1)
    process.wait_for(lambda: SAVED in process.log)
    stored.server.kill()
    process.wait_for(lambda: "trying again" in process.log)
    time.sleep(15)
    stored.server.restart()
    before = len(process.log)
    process.wait_for(lambda: process.log[before:].count("checkpoint step=") >= 2)
    ended, _ = stopped(process)
    assert ended.code == 75, ended.log
    assert "is not saved" not in ended.log
    assert "everything is saved" in ended.log
    assert stored.ending()["saved"] == stored.ending()["step"] == stored.saved()[-1]


@pytest.mark.parametrize("ranks", [1, 2])
def test_usr1_stops_where_it_is_the_stop_signal(media: Media, tmp_path: Path, ranks: int) -> None:
    """SLURM sends it to every process of a job's step, decoding ones too, and stacks move."""
    run = TrainingRun(tmp_path, media)
    command = [*run.command(ranks, "data.workers=1"), "--stop-signal", "USR1"]
    process = Process(command, tmp_path / "usr1.txt")
    try:
        process.wait_for(lambda: bool(run.checkpoints()))
        process.popen.send_signal(signal.SIGUSR2)
        process.wait_for(lambda: "most recent call first" in process.log)
        for member in [*process.family(), process.popen]:
            member.send_signal(signal.SIGUSR1)
        ended = process.ended()
    finally:
        process.kill()
    assert ended.code == 75, ended.log
    assert "everything is saved" in ended.log
