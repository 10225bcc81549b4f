"""Probing checkpoints during training, in a process of its own that no step waits for."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import psutil

from arlow_trainer.config import ArlowPretrain, ProbeSection
from arlow_trainer.config.errors import ExitCode
from arlow_trainer.storage.options import STORE_OPTIONS_VARIABLE, access_by
from arlow_trainer.storage.outbox import Closeable

# One core, and no GPU: the ranks need theirs.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
LOWEST_PRIORITY = 19
_START = "from arlow_trainer.cli import main; main()"
FINISH_TIMEOUT_S = 600.0
TERMINATE_TIMEOUT_S = 5.0
_POLL_S = 0.2


class BackgroundProbe(Closeable):
    """Probes committed checkpoints with `arlow probe`, one after another, at the lowest priority.

    For rank 0. The command writes its results to the run's `probe.jsonl`; `report(step, method,
    accuracy)` and `warn(text)` are called on a thread. A checkpoint that comes while another is
    being probed waits, and is replaced by a newer one. A probe that fails is a warning and never
    ends the run. Without `training.probe` nothing is done.
    """

    def __init__(
        self,
        run: ArlowPretrain,
        report: Callable[[int, str, float], None],
        warn: Callable[[str], None],
    ) -> None:
        self._url, self._section = run.run_url, run.spec.training.probe
        self._options = json.dumps(
            access_by(run.spec.checkpoint.options, run.run_url).of(run.run_url)
        )
        self._report, self._warn = report, warn
        self._changed = threading.Condition()
        self._last: int | None = None
        self._waiting: int | None = None
        self._process: subprocess.Popen[str] | None = None
        self._busy = self._closing = False
        self._thread: threading.Thread | None = None

    def start(self, step: int) -> None:
        """Has a committed checkpoint probed, if one is due. From any thread; returns at once."""
        section = self._section
        if section is None:
            return
        with self._changed:
            every = section.every_steps or 1
            if self._closing or (self._last is not None and step - self._last < every):
                return
            self._last = self._waiting = step
            if self._thread is None:
                # A daemon: a process that is ending for another reason must not wait for it.
                self._thread = threading.Thread(
                    target=self._work, args=(section,), name="probe", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def finish(
        self, stopped: Callable[[], bool] = lambda: False, timeout_s: float = FINISH_TIMEOUT_S
    ) -> None:
        """Returns when all that was started is probed, at the latest after `timeout_s` seconds or
        when `stopped` says so."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while (self._busy or self._waiting is not None) and time.monotonic() < deadline:
                if stopped():
                    return
                self._changed.wait(_POLL_S)

    def close(self) -> None:
        """Ends a probe that is still running; its checkpoint can be probed later by the command."""
        with self._changed:
            self._closing = True
            process = self._process
            self._changed.notify_all()
        if process is not None:
            process.terminate()
            try:
                process.wait(TERMINATE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        if self._thread is not None:
            self._thread.join(TERMINATE_TIMEOUT_S)

    def _work(self, section: ProbeSection) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closing)
                if self._closing or self._waiting is None:
                    return
                step, self._waiting, self._busy = self._waiting, None, True
            try:
                self._probe(section, step)
            except Exception as error:
                self._warn(f"checkpoint of step {step} is not probed: {error}")
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _probe(self, section: ProbeSection, step: int) -> None:
        arguments = probe_command(self._url, step, section)
        with self._changed:
            if self._closing:
                return
            self._process = process = subprocess.Popen(
                [sys.executable, "-c", _START, *arguments, "--json"],
                env=os.environ | ENVIRONMENT | {STORE_OPTIONS_VARIABLE: self._options},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        psutil.Process(process.pid).nice(LOWEST_PRIORITY)
        results, errors = process.communicate()
        if process.returncode == ExitCode.FINISHED:
            for line in results.splitlines():
                record = json.loads(line)
                self._report(step, record["method"], record["accuracy"])
        elif self._closing:
            self._warn(
                f"the run ends before the checkpoint of step {step} is probed; "
                f"`{shlex.join(['arlow', *arguments])}` does it"
            )
        else:
            prefix = "error: "
            lines = [line for line in errors.splitlines() if line.startswith(prefix)]
            message = " ".join(line.removeprefix(prefix) for line in lines)
            raise RuntimeError(message or f"exit code {process.returncode}: {errors}")


def probe_command(url: str, step: int, section: ProbeSection) -> list[str]:
    """Returns the arguments of `arlow` that probe a checkpoint as the section says."""
    data = section.data
    options = {
        "--data": data.path,
        "--name": data.name,
        "--train-split": data.split,
        "--test-split": section.test_split,
        "--column": data.column,
        "--label": section.label,
        "--limit": section.limit,
        "--step": step,
    }
    # `=`, so that a value may begin with a dash.
    values = [f"{option}={value}" for option, value in options.items() if value is not None]
    return ["probe", url, *values]
