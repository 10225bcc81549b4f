"""Streams whose reader has ended, is stuck, or has no room."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

FULL = Path("/dev/full")

WRITES = """
import sys
from arlow_trainer.storage.streams import lasting, write_stderr

sys.stdout, sys.stderr = lasting(sys.stdout), lasting(sys.stderr)
for stream in (sys.stdout, sys.stderr):
    print("x" * 100_000, file=stream, flush=True)
    print("waits in a buffer", end="", file=stream)
write_stderr("from a handler\\n")
"""


@pytest.fixture(params=["reader ended", "disk full"])
def broken(request: pytest.FixtureRequest) -> Iterator[int]:
    """A descriptor that nothing can be written to."""
    if request.param == "disk full":
        if not FULL.exists():
            pytest.skip("no /dev/full on this system")
        number = os.open(FULL, os.O_WRONLY)
    else:
        reader, number = os.pipe()
        os.close(reader)
    yield number
    os.close(number)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_writing_never_fails(broken: int, unbuffered: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITES],
        stdout=broken,
        stderr=broken,
        timeout=60,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    assert done.returncode == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_can_be_written_is(unbuffered: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITES],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    assert done.returncode == 0
    text = "x" * 100_000 + "\nwaits in a buffer"
    assert done.stdout == text
    assert sorted(done.stderr) == sorted(text + "from a handler\n")


def test_a_stuck_reader_is_not_waited_for() -> None:
    script = """
import os
from arlow_trainer.storage.streams import write_stderr
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(2, True)
write_stderr("no room for this")
print("went on")
"""
    reader, writer = os.pipe()
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=writer, text=True, timeout=60
    )
    os.close(reader)
    os.close(writer)
    assert done.stdout == "went on\n"
    assert time.monotonic() - began < 30


CLOSED = """
import os, subprocess, sys
from arlow_trainer.storage.streams import open_closed_streams

open_closed_streams()
open_closed_streams()
assert (sys.stdin.fileno(), sys.stdout.fileno(), sys.stderr.fileno()) == (0, 1, 2)
assert sys.stdin.read() == ""
print("lost")
print("lost", file=sys.stderr)
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2
    os.write(2, b"of a library")
    subprocess.run(["sh", "-c", "echo lost && echo lost >&2"], check=True)
"""


def test_streams_that_are_closed_take_no_file_of_the_process(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    command = [sys.executable, "-c", CLOSED, str(file)]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    assert subprocess.run(closed, timeout=60).returncode == 0
    assert file.read_bytes() == b""
