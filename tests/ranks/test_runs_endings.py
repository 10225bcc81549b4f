"""What a supervisor learns of a run's end: the exit code and the termination message."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from training_runs import Ended, Media, Process, TrainingRun, interrupt


class Watched:
    """A run whose termination message is read."""

    def __init__(self, folder: Path, media: Media) -> None:
        self.run = TrainingRun(folder, media)
        self.message = folder / "termination.json"
        self._log = folder / "watched.txt"

    def start(self, ranks: int, *overrides: str, **environment: str) -> Process:
        variables = {"ARLOW_TERMINATION_LOG": str(self.message), "ARLOW_NODE_NAME": "node-1"}
        return Process(self.run.command(ranks, *overrides), self._log, variables | environment)

    def ending(self) -> dict[str, Any]:
        content = self.message.read_text()
        assert content.count("\n") == 1
        return json.loads(content)


@pytest.fixture
def watched(media: Media, tmp_path: Path) -> Watched:
    return Watched(tmp_path, media)


def ended(process: Process) -> Ended:
    try:
        return process.ended()
    finally:
        process.kill()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_finished_run(watched: Watched, ranks: int) -> None:
    end = ended(watched.start(ranks, "maxStepsPerEpoch=4"))
    assert end.code == 0, end.log
    found = watched.ending()
    assert (found["contract"], found["cause"], found["finished"]) == (1, "finished", True)
    assert (found["step"], found["saved"], found["node"]) == (4, 4, "node-1")
    again = ended(watched.start(ranks, "maxStepsPerEpoch=4"))
    assert again.code == 0, again.log
    assert watched.ending() == found, "also of a run that was finished before"


@pytest.mark.parametrize(("ranks", "killed"), [(1, 0), (2, 0), (2, 1)])
def test_a_killed_rank_is_out_of_memory_and_not_a_bug(
    watched: Watched, ranks: int, killed: int
) -> None:
    """The kernel kills the process with most memory, which is a rank and never the launcher."""
    process = watched.start(ranks, "maxStepsPerEpoch=4000")
    # What is saved counts when the run has read it back, a little after it is in the store.
    process.wait_for(lambda: "] checkpoint step=" in process.log)
    process.rank(killed).kill()
    end = ended(process)
    assert end.code == 5, end.log
    assert f"rank {killed} was killed by SIGKILL" in end.log
    found = watched.ending()
    assert (found["cause"], found["exitCode"]) == ("outOfMemory", 5)
    assert (found["rank"], found["finished"]) == (killed, False)
    assert found["saved"] in watched.run.checkpoints()
    assert found["saved"] <= found["step"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_decoding_process(watched: Watched, ranks: int) -> None:
    process = watched.start(ranks, "data.workers=1")
    process.wait_for(lambda: bool(watched.run.checkpoints()))
    for decoding in decoding_processes(process)[:1]:
        decoding.kill()
    end = ended(process)
    assert end.code == 5, end.log
    assert "a decoding process was killed by SIGKILL" in end.log
    assert "lower data.workers" in end.log
    assert "Traceback" not in end.log
    assert watched.ending()["cause"] == "outOfMemory"


def test_a_stopped_run(watched: Watched) -> None:
    process = watched.start(1)
    process.wait_for(lambda: bool(watched.run.checkpoints()))
    end = interrupt(process)
    assert end.code == 75, end.log
    found = watched.ending()
    assert found["cause"] == "interrupted"
    assert found["saved"] == found["step"] == watched.run.checkpoints()[-1]


def test_a_broken_image_whose_name_is_not_utf_8(
    watched: Watched, media: Media, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(media.images, images)
    Path(os.fsdecode(os.fsencode(images) + b"/b\xfe.png")).write_bytes(b"no image")
    process = watched.start(1, "data.maxSkipped=0", f"data.images.path={images}")
    end = ended(process)
    assert end.code == 65, end.log
    assert r"b\udcfe.png" in watched.ending()["message"]
    status = (watched.run.url / "status.json").read_text()
    assert r"b\udcfe.png" in json.loads(status)["message"]
    assert "cannot be written" not in end.log


def test_a_wrong_manifest(watched: Watched) -> None:
    end = ended(watched.start(1, "batch.nonsense=1"))
    assert end.code == 78, end.log
    found = watched.ending()
    assert (found["exitCode"], found["cause"]) == (78, "config")
    assert "nonsense" in found["message"]
    assert (found["step"], found["saved"]) == (None, None)


def test_a_run_that_another_holds(watched: Watched) -> None:
    first = watched.start(1, "maxStepsPerEpoch=4000")
    try:
        first.wait_for(lambda: bool(watched.run.checkpoints()))
        end = ended(watched.start(1, "maxStepsPerEpoch=4000"))
        assert end.code == 73, end.log
        assert watched.ending()["cause"] == "leaseHeld"
    finally:
        first.kill()


def test_a_lost_lease(watched: Watched) -> None:
    process = watched.start(1, "maxStepsPerEpoch=4000")
    lease = watched.run.url / "lease.json"
    process.wait_for(lambda: bool(watched.run.checkpoints()))
    time.sleep(0.5)
    record = json.loads(lease.read_text()) | {"token": "0" * 32, "host": "elsewhere"}
    lease.write_text(json.dumps(record))
    end = ended(process)
    assert end.code == 6, end.log
    assert watched.ending()["cause"] == "leaseLost"


def decoding_processes(process: Process) -> list[psutil.Process]:
    return [each for each in process.family() if "spawn_main" in " ".join(each.cmdline())]


def test_a_crashed_rank_is_a_bug(watched: Watched) -> None:
    process = watched.start(2)
    process.wait_for(lambda: bool(watched.run.checkpoints()))
    process.rank(1).send_signal(signal.SIGABRT)
    end = ended(process)
    assert end.code == 70, end.log
    assert watched.ending()["cause"] == "crash"
