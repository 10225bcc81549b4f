"""What a run's processes wrote is in its URL when they have ended, and their stacks when asked."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from training_runs import Ended, Media, Process, TrainingRun, interrupt

from support.ports import free_port

ARLOW = str(Path(sys.executable).with_name("arlow"))


def arlow_logs(run: TrainingRun, *options: str) -> Ended:
    done = subprocess.run(
        [ARLOW, "logs", str(run.url), *options], capture_output=True, text=True, check=False
    )
    return Ended(done.returncode, done.stdout + done.stderr)


def test_a_killed_rank_leaves_its_log(media: Media, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, media)
    with run.running(2) as process:
        process.wait_for(lambda: bool(run.checkpoints()))
        process.rank(0).kill()
        ended = process.ended()
    assert ended.code == 5, ended.log
    first = arlow_logs(run, "--rank", "0")
    assert first.code == 0
    assert "==> attempt 1, rank-0.log <==" in first.log
    assert "step 2/40" in first.log
    assert run.train(2, "maxStepsPerEpoch=4000", "batch.globalSize=4").code == 78
    assert "==> attempt 2, rank-0.log <==" in arlow_logs(run).log
    assert "step 2/40" in arlow_logs(run, "--attempt", "1").log
    assert arlow_logs(run, "--attempt", "3").code == 74


# The function that each rank's main thread is in, and each decoding process's.
MAIN_THREAD = re.compile(r'run/train\.py", line \d+ in train\b|in _worker_loop\b')


def stacks_in(log: str) -> int:
    return len(MAIN_THREAD.findall(log))


@pytest.mark.parametrize("ranks", [1, 2])
def test_stacks_of_all_processes(media: Media, tmp_path: Path, ranks: int) -> None:
    run = TrainingRun(tmp_path, media)
    port = free_port()
    overrides = ("data.workers=1", "maxStepsPerEpoch=4000")
    process = Process([*run.command(ranks, *overrides), "--port", str(port)], tmp_path / "l.txt")
    try:
        process.wait_for(lambda: bool(run.checkpoints()))
        url = f"http://127.0.0.1:{port}/stacks"
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="429"):
            urllib.request.urlopen(url, timeout=30)
        process.wait_for(lambda: stacks_in(process.log) >= 2 * ranks)
        before = stacks_in(process.log)
        process.popen.send_signal(signal.SIGUSR1)
        process.wait_for(lambda: stacks_in(process.log) >= before + 2 * ranks)
        ended = interrupt(process)
    finally:
        process.kill()
    assert ended.code == 75, ended.log
    # Twice by the launcher, the ranks and the decoding processes.
    assert ended.log.count("stacks of process") == 2 * (1 + 2 * ranks), ended.log
    for rank in range(ranks):
        found = arlow_logs(run, "--rank", str(rank)).log
        assert f"rank-{rank}-worker-0.log" in found
        assert stacks_in(found) == 4, found


DEFECT = """
from arlow_trainer.run import checkpoint_times

def fail(self, *_):
    raise RuntimeError("a defect of the test")

checkpoint_times.CheckpointTimes.__init__ = fail
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_defect_is_logged_without_the_values_of_variables(
    media: Media, tmp_path: Path, ranks: int
) -> None:
    """The manifest is a local variable of many frames."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sitecustomize.py").write_text(DEFECT)
    path = os.pathsep.join([str(tmp_path / "code"), *sys.path[1:]])
    run = TrainingRun(tmp_path / "run", media)
    command = run.command(ranks, "env=[{name: TOKEN, value: SECRET-VALUE}]")
    process = Process(command, tmp_path / "log.txt", {"PYTHONPATH": path})
    try:
        end = process.ended()
    finally:
        process.kill()
    assert end.code == 70, end.log
    assert "RuntimeError: a defect of the test" in end.log
    stored = [file.read_text() for file in (run.url / "logs").rglob("rank-*.log")]
    assert any("Traceback" in text for text in stored)
    assert all("SECRET-VALUE" not in text for text in [end.log, *stored])
