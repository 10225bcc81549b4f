"""Stacks at a signal: of a process that answers, of one that cannot, and at any moment."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from arlow_trainer.storage.stacks import ANSWER_S

TIMEOUT_S = 60

RANK = """
import ctypes, signal, sys, time
from pathlib import Path
from arlow_trainer.storage.process_log import keep_output, log_name
from arlow_trainer.storage.stacks import write_stacks_at

mutex = ctypes.create_string_buffer(64)  # No signal ends the wait for it.
ctypes.CDLL(None).pthread_mutex_lock(mutex)

def in_a_library_that_keeps_the_lock():
    ctypes.PyDLL(None).pthread_mutex_lock(mutex)

def in_a_library_that_gives_it_back():
    ctypes.CDLL(None).pthread_mutex_lock(mutex)

folder, number, function = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
keep_output(folder / log_name(number))
write_stacks_at(signal.SIGUSR1)
(folder / f"ready-{number}").touch()
globals()[function]()
"""

LAUNCHER = """
import signal, subprocess, sys, time
from pathlib import Path
from arlow_trainer.storage.stacks import write_stacks_at

folder, functions = Path(sys.argv[1]), sys.argv[2:]
write_stacks_at(signal.SIGUSR1, folder)
ranks = [
    subprocess.Popen([sys.executable, folder / "rank.py", folder, str(number), function])
    for number, function in enumerate(functions)
]
try:
    while len(list(folder.glob("ready-*"))) < len(functions):
        time.sleep(0.05)
    signal.raise_signal(signal.SIGUSR1)
    sys.stdin.read()
finally:
    for rank in ranks:
        rank.kill()
        rank.wait()
"""


def test_a_process_whose_library_keeps_the_lock_is_seen_too(tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(RANK)
    functions = ("in_a_library_that_gives_it_back", "in_a_library_that_keeps_the_lock")
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path), *functions],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as launcher:
        deadline = time.monotonic() + TIMEOUT_S + ANSWER_S
        seen = [False, False]
        while not all(seen) and time.monotonic() < deadline:
            time.sleep(0.1)
            for rank, function in enumerate(functions):
                log = tmp_path / f"rank-{rank}.log"
                seen[rank] = log.is_file() and f"in {function}" in log.read_text()
        _, err = launcher.communicate()
    assert seen == [True, True]
    assert launcher.returncode == 0, err
    # Those that could answer did so on the shared stderr, too.
    assert err.count("stacks of process") == 2, err
    assert f"in {functions[0]}" in err


def test_a_process_survives_signals_at_any_moment(tmp_path: Path) -> None:
    """Frames may be half made: reading them without the interpreter's lock can crash."""
    script = """
import os, signal, sys, time
from pathlib import Path
from arlow_trainer.storage.process_log import keep_output
from arlow_trainer.storage.stacks import write_stacks_at
keep_output(Path(sys.argv[1]) / "rank-0.log")
write_stacks_at(signal.SIGUSR1)
print("ready", flush=True)
def deeper(levels):
    return [deeper(levels - 1) for _ in range(2)] if levels else exec("pass")
end = time.monotonic() + 5
while time.monotonic() < end:
    deeper(8)
print("done", flush=True)
os._exit(0)  # The interpreter's own end gives signals back to the system.
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        while process.poll() is None:
            process.send_signal(signal.SIGUSR1)
            time.sleep(0.0001)
        assert process.stdout.read() == "done\n"
    assert process.returncode == 0
