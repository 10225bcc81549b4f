"""Runs whose output nobody can take: they train, save and end as others do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from training_runs import TIMEOUT_S, Media, TrainingRun

FULL = Path("/dev/full")


@contextmanager
def started(
    run: TrainingRun, ranks: int, output: int, message: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The run, with stdout and stderr written to a descriptor."""
    process = subprocess.Popen(
        run.command(ranks, "maxStepsPerEpoch=40000"),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        env=os.environ | {"ARLOW_TERMINATION_LOG": str(message)},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            for member in psutil.Process(process.pid).children(recursive=True):
                member.kill()
            process.kill()
            process.wait()


def wait_for_a_checkpoint(run: TrainingRun, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not run.checkpoints():
        assert process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ending(message: Path) -> dict[str, Any]:
    return json.loads(message.read_text())


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("how", ["the reader has ended", "the disk is full"])
def test_a_stop_saves_when_nothing_can_be_written(
    media: Media, tmp_path: Path, ranks: int, how: str
) -> None:
    if how == "the disk is full":
        if not FULL.exists():
            pytest.skip("no /dev/full on this system")
        reader, output = None, os.open(FULL, os.O_WRONLY)
    else:
        reader, output = os.pipe()
    run, message = TrainingRun(tmp_path, media), tmp_path / "message.json"
    with started(run, ranks, output, message) as process:
        os.close(output)
        if reader is not None:
            os.close(reader)
        wait_for_a_checkpoint(run, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 75
    found = ending(message)
    assert found["cause"] == "interrupted"
    assert found["saved"] == found["step"] == run.checkpoints()[-1]


def test_a_second_signal_ends_a_run_when_nothing_can_be_written(
    media: Media, tmp_path: Path
) -> None:
    reader, output = os.pipe()
    run, message = TrainingRun(tmp_path, media), tmp_path / "message.json"
    with started(run, 2, output, message) as process:
        os.close(output)
        os.close(reader)
        wait_for_a_checkpoint(run, process)
        # Frozen ranks can neither save nor end.
        for member in psutil.Process(process.pid).children(recursive=True):
            member.suspend()
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
    assert "ended at once by a second signal (SIGTERM)" in ending(message)["message"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_without_streams_trains(media: Media, tmp_path: Path, ranks: int) -> None:
    run, message = TrainingRun(tmp_path, media), tmp_path / "message.json"
    command = run.command(ranks, "maxStepsPerEpoch=4", "data.workers=1")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command],
        env=os.environ | {"ARLOW_TERMINATION_LOG": str(message)},
        timeout=TIMEOUT_S,
    )
    assert ending(message)["cause"] == "finished", ending(message)["message"]
    assert done.returncode == 0
    assert run.checkpoints() == [4]
