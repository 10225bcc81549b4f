"""What is kept of a process's output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from arlow_trainer.storage.process_log import ProcessLog, read_log


def test_a_short_log_is_kept_whole(tmp_path: Path) -> None:
    log = ProcessLog(tmp_path / "rank-0.log")
    log.write("one\n")
    log.write("two ü\n")
    assert read_log(tmp_path / "rank-0.log") == "one\ntwo ü\n".encode()


@pytest.mark.parametrize("lines", [10, 99, 100, 1000, 12345])
def test_the_last_lines_are_kept(tmp_path: Path, lines: int) -> None:
    log = ProcessLog(tmp_path / "rank-0.log", max_bytes=1000)
    for number in range(lines):
        log.write(f"{number:09d}\n")
    kept = read_log(tmp_path / "rank-0.log", max_bytes=1000).decode().splitlines()
    assert [int(line) for line in kept] == list(range(lines - len(kept), lines))
    assert min(lines, 50) <= len(kept) <= 100


def test_what_holds_the_descriptor_writes_to_the_log_that_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.log"
    log = ProcessLog(path, max_bytes=1000)
    held = log.fileno()
    for number in range(60):
        log.write(f"{number:09d}\n")
        if number in (49, 50, 51):
            os.write(held, b"by another\n")
    kept = read_log(path, max_bytes=1000).decode().splitlines()
    numbers = [int(line) for line in kept if line != "by another"]
    assert (log.fileno(), kept.count("by another")) == (held, 3)
    assert numbers == list(range(60 - len(numbers), 60))


def test_no_log_is_empty(tmp_path: Path) -> None:
    assert read_log(tmp_path / "rank-0.log") == b""


def test_output_is_kept_and_still_written(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.log"
    script = (
        "import logging, sys; from pathlib import Path;"
        "from arlow_trainer.storage.process_log import keep_output;"
        "keep_output(Path(sys.argv[1])); print('to stdout');"
        "print('to stderr', file=sys.stderr); logging.warning('logged'); 1 / 0"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "to stdout\n"
    assert "ZeroDivisionError" in done.stderr
    kept = read_log(path).decode()
    assert [line in kept for line in ("to stdout", "to stderr", "logged")] == [True] * 3
    assert "ZeroDivisionError" in kept
