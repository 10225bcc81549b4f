"""Signals at moments when a run has nothing to save yet, and those that are no wish to stop."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
from training_runs import TIMEOUT_S, Media, Process, TrainingRun, interrupt


@pytest.mark.parametrize("ranks", [1, 2])
def test_sigusr1_dumps_stacks_from_the_first_moment_on(
    media: Media, tmp_path: Path, ranks: int
) -> None:
    run = TrainingRun(tmp_path, media)
    with run.running(ranks) as process:
        process.wait_for(lambda: process.catches(signal.SIGUSR1))
        process.popen.send_signal(signal.SIGUSR1)
        process.wait_for(lambda: "building the model" in process.log)
        process.popen.send_signal(signal.SIGUSR1)
        process.wait_for(lambda: process.log.count("most recent call first") >= 1)
        ended = interrupt(process)
    assert ended.code == 75, ended.log


def test_nohup_outlives_its_terminal(media: Media, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, media)
    process = Process(["nohup", *run.command(2)], tmp_path / "nohup.txt")
    try:
        process.wait_for(lambda: bool(run.checkpoints()))
        for member in [*process.family(), process.popen]:
            member.send_signal(signal.SIGHUP)
        ended = process.ended()
    finally:
        process.kill()
    assert ended.code == 0, ended.log


def test_a_hang_up_saves_like_sigterm(media: Media, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, media)
    with run.running(2) as process:
        process.wait_for(lambda: bool(run.checkpoints()))
        ended = interrupt(process, signal.SIGHUP)
    assert ended.code == 75, ended.log
    assert "note: stopped at step" in ended.log
    assert "arlow: stopping after a checkpoint is saved" in ended.log
    assert "error" not in ended.log


def test_a_stop_is_heard_while_blocks_are_compiled(
    media: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    run = TrainingRun(tmp_path, media)
    with run.running(2, "compile=always") as process:
        process.wait_for(lambda: "waiting for the blocks to be compiled" in process.log)
        family = process.family()
        compiling = [of for of in family if "arlow_trainer.engine.ahead" in of.cmdline()]
        ended = interrupt(process)
        _, alive = psutil.wait_procs(family, 5)
    # The ranks' code is the same on a CPU.
    assert len(compiling) == 1
    assert ended.code == 75, ended.log
    assert "stopped as asked while loading" in ended.log
    assert not alive


def test_a_stop_is_heard_while_samples_do_not_come(media: Media, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, media)
    with run.running(2, "data.workers=1") as process:
        process.wait_for(lambda: bool(run.checkpoints()))
        for decoding in process.family():
            if "spawn_main" in " ".join(decoding.cmdline()):
                decoding.suspend()
        time.sleep(1)
        ended = interrupt(process)
    assert ended.code == 75, ended.log
    step = run.checkpoints()[-1]
    assert f"stopped at step {step} of" in ended.log
    assert "everything is saved" in ended.log


def test_a_stop_while_data_is_opened_is_heard_at_once(media: Media, tmp_path: Path) -> None:
    """One rank waits for a server that says nothing, and the other for that rank."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/images"
        run = TrainingRun(tmp_path, media)
        with run.running(2, f"data.images.path={url}") as process:
            mute.settimeout(TIMEOUT_S)
            connection, _ = mute.accept()
            before = time.monotonic()
            ended = interrupt(process)
            connection.close()
    assert ended.code == 75, ended.log
    assert "stopped as asked while loading" in ended.log
    assert time.monotonic() - before < 60, "the server's time-outs are minutes"
    assert run.checkpoints() == []
