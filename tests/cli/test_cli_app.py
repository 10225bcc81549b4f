"""How a command's failures end: one message on stderr, and an exit code."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from arlow_trainer.config import ArlowError, ExitCode, errors
from arlow_trainer.config.errors import Interrupted

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ArlowError) and kind is not ArlowError
]

# A command that fails as its argument says, run by the real `main`.
PROGRAM = """
import signal, sys, time
# A shell that started this in the background has switched Ctrl-C off.
signal.signal(signal.SIGINT, signal.default_int_handler)
from arlow_trainer.cli.app import app, main
from arlow_trainer.config import errors

@app.command()
def fail(how: str) -> None:
    if how == "wait":
        print("waiting", flush=True)
        time.sleep(60)
    if how == "bug":
        password = "hidden" + "-word"
        raise ValueError("two is not three")
    raise getattr(errors, how)("what was wrong [bold]in[/bold] /a/b\\nwhat to do " + "x" * 200)

main()
"""


def fail(how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "fail", how], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_that_a_user_can_fix(kind: type[ArlowError]) -> None:
    result = fail(kind.__name__)
    assert result.returncode == kind.exit_code
    assert result.stdout == ""
    level = "note" if kind is Interrupted else "error"
    assert result.stderr.splitlines() == [
        f"{level}: what was wrong [bold]in[/bold] /a/b",
        f"{level}: what to do " + "x" * 200,
    ]


def test_every_error_has_its_own_exit_code() -> None:
    codes = [kind.exit_code for kind in KINDS]
    assert len(codes) == len(set(codes))
    assert not {ExitCode.FINISHED, ExitCode.INTERNAL} & set(codes)


def test_an_internal_error_is_reported_on_one_line_and_logged_with_its_traceback() -> None:
    result = fail("bug")
    assert result.returncode == ExitCode.INTERNAL
    assert "error: internal error (a bug in Arlow): ValueError: two is not three" in result.stderr
    assert result.stderr.count("Traceback") == 1
    assert "hidden-word" not in result.stdout + result.stderr  # a local variable's value


def test_ctrl_c_ends_with_130_and_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "fail", "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip() == "error: interrupted"


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["train", "tiny", "--no-such-option"], {}, ["--no-such-option"]),
        (["-x", "train", "tiny"], {}, ["-x"]),
        (["train", "tiny", "--ranks", "0"], {}, ["--ranks", "1"]),
        (["train", "tiny", "--log", "loud"], {}, ["--log", "loud", "json"]),
        (["train"], {}, ["Missing argument"]),
        (["train", "tiny"], {"ARLOW_GRACE_SECONDS": "abc"}, ["ARLOW_GRACE_SECONDS=abc", "number"]),
        (["train", "tiny"], {"ARLOW_GRACE_SECONDS": "0"}, ["ARLOW_GRACE_SECONDS=0", "1"]),
    ],
)
def test_a_wrong_command_line_is_told_to_who_reads_the_message(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], words: list[str]
) -> None:
    message = tmp_path / "message.json"
    arlow = str(Path(sys.executable).with_name("arlow"))
    done = subprocess.run(
        [arlow, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"ARLOW_TERMINATION_LOG": str(message)} | environment,
    )
    assert done.returncode == 2
    found = json.loads(message.read_text())
    assert found["cause"] == "usage"
    problem, _, command = found["message"].partition("\n")
    for word in words:
        assert word in problem
    assert command == f"the command was: {shlex.join([arlow, *arguments])}"


@pytest.mark.parametrize("arguments", [["watch"], ["-x", "config"], ["config", "train", "-x"]])
def test_other_commands_write_no_termination_message(tmp_path: Path, arguments: list[str]) -> None:
    message = tmp_path / "message.json"
    message.write_text("of the run in this pod")
    done = subprocess.run(
        [Path(sys.executable).with_name("arlow"), *arguments],
        capture_output=True,
        timeout=60,
        env=os.environ | {"ARLOW_TERMINATION_LOG": str(message)},
    )
    assert done.returncode == 2
    assert message.read_text() == "of the run in this pod"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([b"\xff.yaml"], ExitCode.CONFIG, r"\udcff.yaml: no such file"),
        ([b"tiny", b"--set", b"data.images.path=/x\xff"], ExitCode.CONFIG, r"path=/x\udcff: not"),
        ([b"tiny", b"--set", b"\xff=1"], ExitCode.CONFIG, r"\udcff"),
        ([b"tiny", b"--bogus=\xff"], ExitCode.USAGE, r"\udcff"),
    ],
)
def test_arguments_that_are_not_utf_8(
    tmp_path: Path, arguments: list[bytes], code: ExitCode, words: str
) -> None:
    message = tmp_path / "message.json"
    done = subprocess.run(
        [os.fsencode(Path(sys.executable).with_name("arlow")), b"train", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=os.environ | {"ARLOW_TERMINATION_LOG": str(message)},
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    found = json.loads(message.read_bytes())
    assert found["exitCode"] == code
    assert words in found["message"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_is_reported() -> None:
    arlow = Path(sys.executable).with_name("arlow")
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [arlow, "config", "show"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert result.returncode == ExitCode.STORE
    assert result.stderr.startswith("error: the disk is full")
    assert "Traceback" not in result.stderr
