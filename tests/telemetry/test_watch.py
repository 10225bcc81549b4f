"""Watching a run from outside: over its restarts, without an answer, to its end."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from child_process import child_process
from telemetry_reports import make_readout, make_report

from arlow_trainer.config import ExitCode, RunStatus
from arlow_trainer.config.status import LossPoint
from arlow_trainer.storage.jsonl import StoredLines
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import HISTORY_FILE, STATUS_FILE, Telemetry
from arlow_trainer.telemetry.status_source import NoAnswer, from_endpoint, is_endpoint, parse_status
from arlow_trainer.telemetry.watch import (
    MAX_LOSSES,
    WatchState,
    after_answer,
    after_no_answer,
    ended,
    remark,
    status_line,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
Start = Callable[..., Telemetry]


def status(**changes: Any) -> RunStatus:
    values = {"run": "quick", "phase": "training", "started_at": NOW, "step": 5, "total_steps": 10}
    return RunStatus(**{**values, **changes})


def points(*steps: int, loss: float = 0.5) -> list[LossPoint]:
    return [LossPoint(step=step, loss=loss) for step in steps]


def test_the_curve_continues_over_a_restart() -> None:
    watched = WatchState(losses=tuple(points(1, 2, 3)))
    watched = after_answer(watched, status(recent_losses=points(3, 4, 5)))
    watched = after_answer(watched, status(started_at=NOW + timedelta(hours=1)))
    assert [point.step for point in watched.losses] == [1, 2, 3, 4, 5]
    watched = after_answer(
        watched, status(started_at=NOW + timedelta(hours=1), recent_losses=points(4, loss=9))
    )
    assert [(point.step, point.loss) for point in watched.losses][2:] == [(3, 0.5), (4, 9)]
    assert watched.restarts == 1


def test_a_long_curve_is_thinned() -> None:
    watched = WatchState(losses=tuple(points(*range(MAX_LOSSES))))
    watched = after_answer(watched, status(recent_losses=points(MAX_LOSSES)))
    assert len(watched.losses) == MAX_LOSSES // 2 + 1


@pytest.mark.parametrize(
    ("watched", "is_ended", "expected"),
    [
        pytest.param(WatchState(), False, "", id="no answer yet"),
        pytest.param(WatchState(status=status()), False, "", id="training"),
        pytest.param(WatchState(status=status(phase="finished")), True, "", id="finished"),
        pytest.param(
            after_no_answer(WatchState(status=status(step=10)), "refused", NOW),
            True,
            "",
            id="no answer after its last step",
        ),
        pytest.param(
            after_no_answer(WatchState(status=status()), "refused", NOW - timedelta(seconds=90)),
            False,
            "no answer for 1 min 30 s (refused); waiting for the run to come back",
            id="no answer before its last step",
        ),
        pytest.param(
            WatchState(status=status(phase="failed")),
            False,
            "waiting for its restart; Ctrl-C ends the watch",
            id="failed",
        ),
        pytest.param(
            after_no_answer(WatchState(status=status(phase="stopped")), "refused", NOW),
            False,
            "no answer for 0 s (refused); waiting for the run to come back",
            id="stopped as asked, then no answer",
        ),
        pytest.param(
            WatchState(status=status(last_step_time=NOW - timedelta(minutes=5))),
            False,
            "no step for 5 min: it may hang or have been ended",
            id="no step",
        ),
        pytest.param(
            WatchState(
                status=status(last_step_time=NOW - timedelta(minutes=5), median_step_seconds=60)
            ),
            False,
            "",
            id="no step, but its steps are long",
        ),
        pytest.param(
            WatchState(status=status(), restarts=2),
            False,
            "restarted 2 x while watched",
            id="restarted",
        ),
    ],
)
def test_end_and_remark(watched: WatchState, is_ended: bool, expected: str) -> None:
    assert ended(watched) is is_ended
    assert remark(watched, NOW) == expected


def test_no_answer_is_timed_from_the_first_one_missing() -> None:
    watched = after_no_answer(
        after_no_answer(WatchState(), "refused", NOW), "refused", NOW + timedelta(seconds=5)
    )
    assert watched.missing_since == NOW
    assert after_answer(watched, status()).missing_since is None


def test_a_status_as_a_line() -> None:
    full = status(loss=0.25, images_per_second=48.0, eta_seconds=65.0, message="resumed")
    assert (
        status_line(full)
        == "training  step 5/10  loss 0.2500  48.0 images/s  ETA 1 min 5 s  resumed"
    )


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("localhost:9400", True),
        ("10.0.0.7:9400", True),
        ("[::1]:9400", True),
        ("http://localhost:9400", True),
        ("https://host/status", True),
        ("s3://runs/quick", False),
        ("runs/quick", False),
        ("manifests/pretrain.yaml", False),
        ("tiny", False),
    ],
)
def test_targets(target: str, expected: bool) -> None:
    assert is_endpoint(target) is expected


def test_a_process_answers(telemetry: Start, free_port: int) -> None:
    telemetry().step(make_report(7, readout=make_readout()))
    for target in (f"localhost:{free_port}", f"http://127.0.0.1:{free_port}/"):
        assert from_endpoint(target)().step == 7


def test_no_answer_says_why(telemetry: Start, free_port: int) -> None:
    with pytest.raises(NoAnswer, match="Connection refused"):
        from_endpoint(f"127.0.0.1:{free_port}")()
    telemetry()
    with pytest.raises(NoAnswer, match="404 Not Found"):
        from_endpoint(f"http://127.0.0.1:{free_port}/other")()
    with pytest.raises(NoAnswer, match="does not hold the status of a run"):
        from_endpoint(f"http://127.0.0.1:{free_port}/healthz")()


def test_another_object_is_no_status() -> None:
    with pytest.raises(NoAnswer, match=r"s3://a/status\.json does not hold"):
        parse_status(b'{"phase": "asleep"}', "s3://a/status.json")


ARLOW = """
from arlow_trainer.cli.app import app, main
from arlow_trainer.cli.watch import watch
app.command()(watch)
main()
"""
WATCH = [sys.executable, "-c", ARLOW, "watch"]

RUN = """
import sys, time
from arlow_trainer.config import load_run
from arlow_trainer.telemetry import *

port, first, last, pause = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
run = load_run("tiny", ["metadata.name=quick"])
telemetry = Telemetry(run, 0, 1, TelemetryOptions(port=port))
telemetry.phase("training", f"resumed from step {first - 1}" if first > 1 else "")
for step in range(first, last + 1):
    readout = {"loss": 1 / step, "learning_rate": 1e-4, "grad_norm": 0.8}
    telemetry.step(StepReport(step, last, pause, 24, 8, 2000, 1e9, {"data": 0.1}, readout))
    time.sleep(pause)
telemetry.checkpoint(CheckpointReport(last, f"runs/quick/checkpoint-{last}", 1.0, 100, 0.1))
telemetry.phase("finished")
time.sleep(60)
"""


def start_run(port: int, first: int, last: int) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Starts a run that answers until it is killed."""
    arguments = [str(port), str(first), str(last), "0.05"]
    return child_process([sys.executable, "-c", RUN, *arguments], stdout=subprocess.DEVNULL)


class Output:
    """What a process has written so far, collected beside the test."""

    def __init__(self, descriptor: int) -> None:
        self.text = ""
        self._descriptor = descriptor
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def wait_for(self, part: str) -> None:
        end = time.monotonic() + 30
        while part not in self.text:
            assert time.monotonic() < end, f"no {part!r} within 30 s in: {self.text}"
            time.sleep(0.02)

    def all(self) -> str:
        self._thread.join(30)
        assert not self._thread.is_alive(), f"no end within 30 s of: {self.text}"
        return self.text

    def _collect(self) -> None:
        while True:
            try:
                chunk = os.read(self._descriptor, 65_536)
            except OSError:  # a terminal's answer when the other side is closed
                return
            if not chunk:
                return
            self.text += chunk.decode(errors="replace")


def test_watch_continues_over_a_kill_and_a_resume(free_port: int) -> None:
    """One run, watched through a pipe and at a terminal."""
    command = [*WATCH, f"127.0.0.1:{free_port}"]
    reader, terminal = pty.openpty()
    at_terminal = {**os.environ, "TERM": "xterm", "COLUMNS": "110", "LINES": "30"}
    with (
        child_process(command, stdout=subprocess.PIPE) as piped,
        child_process(command, stdout=terminal, stderr=terminal, env=at_terminal) as shown,
    ):
        os.close(terminal)
        assert piped.stdout is not None
        lines, panel = Output(piped.stdout.fileno()), Output(reader)
        panel.wait_for("no status yet")
        with start_run(free_port, 1, 1000) as process:
            lines.wait_for("training  step")
            panel.wait_for("quick")
            process.send_signal(signal.SIGKILL)
        lines.wait_for("Connection refused")
        panel.wait_for("waiting for the run to come back")
        with start_run(free_port, 10, 40) as process:
            lines.wait_for("finished  step")
            panel.wait_for("finished")
            process.kill()
        assert lines.all().splitlines()[-1].startswith("finished  step 40/40  loss 0.0250")
        screen = panel.all()
    os.close(reader)
    assert (piped.returncode, shown.returncode) == (0, 0)
    assert "resumed from step 9" in lines.text
    for part in ("restarted 1 x while watched", "step 40 / 40", "runs/quick/checkpoint-40"):
        assert part in screen


@pytest.fixture
def finished_run(telemetry: Start, tmp_path: Path) -> Path:
    """The folder of checkpoints in which a finished run left its status and history."""
    store = Store(str(tmp_path / "runs" / "quick"))
    started = telemetry(
        publish_status=lambda content: store.write_bytes(STATUS_FILE, content),
        append_history=StoredLines(store, HISTORY_FILE).append_json,
    )
    for step in range(1, 101):
        readout = make_readout(loss=1 / step) if step % 10 == 0 else None
        started.step(make_report(step, readout=readout))
    started.phase("finished", "100 steps made")
    started.close()
    return tmp_path / "runs"


def run_watch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*WATCH, *arguments], capture_output=True, text=True, timeout=30)


def test_a_finished_run_by_its_folder_and_by_its_manifest(
    finished_run: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "run.yaml"
    manifest.write_text(
        "apiVersion: arlow.dev/v1alpha1\nkind: ArlowPretrain\nmetadata: {name: quick}\n"
        f"spec:\n  training: {{preset: tiny}}\n  checkpoint: {{url: {finished_run}}}\n"
    )
    for target in (str(finished_run / "quick"), str(manifest)):
        done = run_watch(target)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("finished  step 100/100  loss 0.0100")
    panel = run_watch(str(finished_run / "quick"), "--once").stdout
    assert "quick · finished" in panel
    assert "█" in panel
    assert "100 steps made" in panel


def test_once_without_a_run_is_a_store_error(tmp_path: Path) -> None:
    done = run_watch(str(tmp_path), "--once")
    assert done.returncode == ExitCode.STORE
    assert "there is no such object" in done.stderr
