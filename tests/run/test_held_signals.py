"""Signals that come while the command is being imported, and when it has ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# What the command imports first is made slow, and says when it is reached.
SLOW = """
import sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            print("importing", flush=True)
            time.sleep(2)

sys.meta_path.insert(0, Slow())
sys.argv[0] = "arlow"
from arlow_trainer.cli import main
main()
"""

# The time after the end was written is made long.
SLOW_END = """
import time
import arlow_trainer.run.launch as launch
from arlow_trainer.config import errors
from arlow_trainer.run.termination import write_ending

def end(*_):
    write_ending(errors.ExitCode.FINISHED, "")
    print("written", flush=True)
    time.sleep(2)

launch.launch = end
from arlow_trainer.cli import main
main()
"""


def arlow(script: str, message: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=message.parent,
        env=os.environ | {"ARLOW_TERMINATION_LOG": str(message)},
        # A shell that started this in the background has switched Ctrl-C off.
        preexec_fn=lambda: [
            signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)
        ],
    )


def signalled(process: subprocess.Popen[str], after: str, number: signal.Signals) -> str:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{after}\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_is_stopped_while_it_is_imported(tmp_path: Path, number: signal.Signals) -> None:
    message = tmp_path / "message.json"
    message.write_text("of the attempt before")
    process = arlow(SLOW, message, "train", "tiny")
    errors = signalled(process, "importing", number)
    assert process.returncode == 75, errors
    assert errors == (
        "note: stopped as asked while loading; the same command starts or resumes the run\n"
    )
    assert json.loads(message.read_text())["cause"] == "interrupted"


@pytest.mark.parametrize(("option", "code"), [("USR1", 75), ("TERM", 78)])
def test_the_stop_signal_of_slurm_is_held_too(tmp_path: Path, option: str, code: int) -> None:
    command = ["train", "no-such.yaml", "--stop-signal", option]
    process = arlow(SLOW, tmp_path / "message.json", *command)
    errors = signalled(process, "importing", signal.SIGUSR1)
    assert process.returncode == code, errors


def test_other_commands_end_by_the_signal(tmp_path: Path) -> None:
    process = arlow(SLOW, tmp_path / "message.json", "config", "show")
    signalled(process, "importing", signal.SIGTERM)
    assert process.returncode == -signal.SIGTERM
    process = arlow(SLOW, tmp_path / "message.json", "config", "show")
    errors = signalled(process, "importing", signal.SIGINT)
    assert (process.returncode, errors) == (130, "error: interrupted\n")


def test_a_manifest_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "run.yaml"
    os.mkfifo(fifo)
    process = arlow(SLOW, tmp_path / "message.json", "train", str(fifo))
    assert process.stdout is not None
    process.stdout.readline()
    with fifo.open("w"):
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors


def test_a_signal_changes_no_end_that_is_written(tmp_path: Path) -> None:
    process = arlow(SLOW_END, tmp_path / "message.json", "train", "tiny")
    errors = signalled(process, "written", signal.SIGTERM)
    assert process.returncode == 0, errors
    assert json.loads((tmp_path / "message.json").read_text())["finished"]


HANDED_OVER = """
import signal, time
from arlow_trainer.run.held_signals import held_since, hold_signals
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.run.signals import StopSignal

hold_signals()
before = time.monotonic()
signal.raise_signal(signal.SIGTERM)
after = time.monotonic()
time.sleep(0.1)
forwarded = []
with StopSignal(TrainOptions()) as stop:
    assert stop.raised
    assert before <= stop.grace.begun <= after, "the grace period runs since the signal"
    stop.forward_to(lambda: forwarded.append(1))
assert forwarded == [1]
assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
signal.raise_signal(signal.SIGTERM)
"""


def test_a_held_signal_is_handed_over() -> None:
    done = subprocess.run([sys.executable, "-c", HANDED_OVER], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
