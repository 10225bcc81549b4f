"""Log lines as a pod's collector and a person read them, from real processes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap

import pytest
from child_process import child_process

PRELUDE = """
import logging, math, sys, time
from arlow_trainer.config import load_run
from arlow_trainer.telemetry import StepReport, Telemetry, TelemetryOptions

def start(rank=0, **options):
    run = load_run("tiny", ["metadata.name=quick"])
    return Telemetry(run, rank, 2, TelemetryOptions(**options))

def step(telemetry, number, loss=0.5, **more):
    readout = {"loss": loss, "learning_rate": 1e-4, "grad_norm": 0.8, **more}
    telemetry.step(StepReport(number, 100, 0.5, 24, 8, 2000, 1e9, {"data": 0.1}, readout))
"""


def output(script: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_json_lines_carry_run_and_rank() -> None:
    lines = output(
        """
        telemetry = start(rank=1, log_format="json")
        telemetry.skipped("a.jpg", "truncated")
        logging.getLogger("datasets").warning("cache is %s", "full")
        """
    )
    first, second = (json.loads(line) for line in lines)
    assert list(first)[:5] == ["timestamp", "level", "run", "rank", "event"]
    assert (first["run"], first["rank"], first["level"]) == ("quick", 1, "warning")
    assert (first["event"], first["name"]) == ("skipped", "a.jpg")
    assert (second["event"], second["run"]) == ("cache is full", "quick"), "libraries too"


def test_step_line_in_json() -> None:
    (line,) = output('step(start(log_format="json"), 10, loss=math.nan)')
    step = json.loads(line)
    assert (step["event"], step["step"], step["eta_seconds"]) == ("step", 10, 45.0)
    assert step["loss"] == "nan", "JSON has no NaN"


def test_auto_is_text_at_a_terminal_and_json_elsewhere() -> None:
    script = 'start(live=False).warning("hello")'
    (line,) = output(script)
    assert json.loads(line)["event"] == "hello"
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script], stdout=theirs, check=True, timeout=60
    )
    assert done.returncode == 0
    os.close(theirs)
    (shown,) = os.read(ours, 4096).decode().splitlines()
    os.close(ours)
    assert "hello" in shown
    assert not shown.startswith("{")


def test_step_line_for_people() -> None:
    (line,) = output('step(start(log_format="text"), 10)')
    assert line.endswith(
        "step 10/100  loss 0.5000  learning rate 0.0001  gradient norm 0.8  48.0 images/s  "
        "16.0 clips/s  ETA 45 s"
    )


def test_reasons_are_sentences_for_people() -> None:
    lines = output(
        """
        telemetry = start(log_format="text")
        telemetry.phase("loading", "opening the data")
        telemetry.skipped("a.jpg", "truncated")
        """
    )
    assert lines[0].endswith("loading: opening the data")
    assert lines[1].endswith("skipped a.jpg: truncated")


def test_failure_is_an_error_with_its_reason() -> None:
    (line,) = output('start(log_format="json").phase("failed", "disk full; free some")')
    failed = json.loads(line)
    assert (failed["level"], failed["event"]) == ("error", "failed")
    assert failed["reason"] == "disk full; free some"


def test_a_second_run_in_the_process_does_not_double_the_lines() -> None:
    assert len(output("start().close(); start().warning('once')")) == 1


def test_sigusr1_dumps_every_thread_and_the_run_goes_on() -> None:
    script = PRELUDE + textwrap.dedent(
        """
        import signal
        from arlow_trainer.storage.stacks import write_stacks_at
        write_stacks_at(signal.SIGUSR1)
        telemetry = start(port=None)
        print("ready", flush=True)
        sys.stdin.readline()
        telemetry.warning("still here")
        """
    )
    with child_process(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.stderr is not None
        process.send_signal(signal.SIGUSR1)
        # A thread writes them, which ends with the process.
        err = ""
        while "most recent call first" not in err and (line := process.stderr.readline()):
            err += line
        out, _ = process.communicate("\n", timeout=20)
    assert process.returncode == 0
    assert "most recent call first" in err
    assert "still here" in out


def test_a_reader_that_has_gone_ends_nothing() -> None:
    script = PRELUDE + textwrap.dedent(
        """
        telemetry = start()
        for number in range(100):
            step(telemetry, number)
            time.sleep(0.001)
        print("reached the end", file=sys.stderr)
        """
    )
    with child_process(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert err.startswith("reached the end\n"), err


FOREIGN = r"""
import logging, sys
from arlow_trainer.telemetry.logs import configure_logging, logger
configure_logging("run", 0, sys.argv[1])
logger().warning("skipped", name="a\x1b[2Jb\udcff.jpg", reason="http://user:SECRET@host refused")
logging.getLogger("fsspec").warning("GET https://host/x?X-Amz-Signature=%s", "SECRET")
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_credentials_and_escape_sequences_reach_no_log(log_format: str) -> None:
    command = [sys.executable, "-c", FOREIGN, log_format]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SECRET" not in done.stdout
    assert done.stdout.count("***") == 2
    assert "\x1b[2J" not in done.stdout
    assert r"a\x1b[2Jb\udcff.jpg" in done.stdout.replace(r"\\", "\\")


TRACEBACKS = """
import logging, sys
from arlow_trainer.telemetry.logs import configure_logging, logger

def fail(password):
    raise ValueError("http://user:SECRET-1@host refused, " + "\\x1b[2J\\udcff")

configure_logging("run", 0, sys.argv[1])
# Written by parts, as a traceback shows the lines of the source.
environment = {"TOKEN": "SECRET" + "-2"}
try:
    fail("SECRET" + "-3")
except ValueError:
    logging.getLogger("arlow").exception("internal error")
    logging.getLogger("library").warning("went wrong", exc_info=True)
    logger().error("our own", exc_info=True)
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_tracebacks_show_neither_variables_nor_credentials(log_format: str) -> None:
    command = [sys.executable, "-c", TRACEBACKS, log_format]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Traceback (most recent call last)") == 3
    assert done.stdout.count("http://***@host refused") == 3
    assert "SECRET" not in done.stdout.replace('"SECRET" + ', "")
    assert "\x1b[2J" not in done.stdout
