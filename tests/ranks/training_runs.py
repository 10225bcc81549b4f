"""Runs of the command `arlow train` as users start them, so that kills and signals are real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from support.s3_server import S3, S3Unavailable, running_s3

STEPS, EVERY = 40, 5
TIMEOUT_S = 240.0
# What tests read: lines as at a terminal, which none of them has.
PLAIN = ("--plain", "--log", "text")


@dataclass(frozen=True)
class Media:
    """Folders of photographs and videos."""

    images: Path
    videos: Path


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and everything that it wrote."""

    code: int
    log: str


class Process:
    """A command that may still run."""

    def __init__(
        self, command: list[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        with log.open("ab") as file:
            self._at = file.tell()
            self.popen = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                # Tests that run under nohup themselves would hand its deafness on.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
                env=os.environ
                | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
                | dict(environment or {}),
            )

    @property
    def log(self) -> str:
        return self._log.read_bytes()[self._at :].decode(errors="replace")

    def ended(self) -> Ended:
        """Waits for the end."""
        try:
            return Ended(self.popen.wait(TIMEOUT_S), self.log)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the command does not end:\n{self.log}") from None

    def family(self) -> list[psutil.Process]:
        """The processes under the command: its ranks, and theirs."""
        return psutil.Process(self.popen.pid).children(recursive=True)

    def catches(self, number: int) -> bool:
        """Whether the command has a handler for a signal by now."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)

    def rank(self, number: int) -> psutil.Process:
        """A rank's process."""
        for process in self.family():
            if process.environ().get("RANK") == str(number):
                return process
        raise AssertionError(f"no rank {number}:\n{self.log}")

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Waits until something is true, while the command runs."""
        deadline = time.monotonic() + TIMEOUT_S
        while not what():
            assert self.popen.poll() is None, f"ended with {self.popen.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"it does not happen:\n{self.log}"
            time.sleep(0.02)

    def kill(self) -> None:
        """Ends the command and all under it, as a power cut would."""
        if self.popen.poll() is None:
            for process in [*self.family(), psutil.Process(self.popen.pid)]:
                process.kill()
            self.popen.wait()


class TrainingRun:
    """A small run in a folder of its own."""

    def __init__(self, folder: Path, media: Media, **training: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "run.yaml"
        self.url = folder / "runs" / "small"
        self._log = folder / "log.txt"
        spec = {
            "checkpoint": {"url": str(self.url.parent), "everySteps": EVERY, "keepLast": 100},
            "training": {
                "preset": "tiny",
                "maxStepsPerEpoch": STEPS,
                "logEverySteps": 2,
                "model": {
                    "depth": 6,
                    "embedDim": 48,
                    "hiddenSize": 64,
                    "numHeads": 2,
                    "patchSize": 4,
                },
                "mae": {"decoderDim": 48, "decoderDepth": 1, "decoderHeads": 2},
                "batch": {"globalSize": 8},
                "optimizer": {"learningRate": 2e-3, "warmupSteps": 10},
                "data": {
                    "images": {"path": str(media.images)},
                    "videos": {"path": str(media.videos)},
                    "imageSize": 32,
                    "clipFrames": 4,
                    "workers": 0,
                },
            }
            | training,
        }
        manifest = {
            "apiVersion": "arlow.dev/v1alpha1",
            "kind": "ArlowPretrain",
            "metadata": {"name": self.url.name},
            "spec": spec,
        }
        self.file.write_text(yaml.safe_dump(manifest))

    def command(self, ranks: int, *overrides: str) -> list[str]:
        arlow = str(Path(sys.executable).with_name("arlow"))
        sets = [word for override in overrides for word in ("--set", override)]
        return [arlow, "train", str(self.file), "--ranks", str(ranks), *PLAIN, *sets]

    @contextmanager
    def running(self, ranks: int, *overrides: str) -> Iterator[Process]:
        """The run while it runs; nothing of it is left behind."""
        process = Process(self.command(ranks, *overrides), self._log)
        try:
            yield process
        finally:
            process.kill()

    def train(self, ranks: int, *overrides: str) -> Ended:
        """Runs the command to its end."""
        with self.running(ranks, *overrides) as process:
            return process.ended()

    def checkpoints(self) -> list[int]:
        """Steps with a manifest, in order."""
        found = self.url.glob("checkpoint-*/manifest.json")
        return sorted(int(path.parent.name.removeprefix("checkpoint-")) for path in found)

    def weights(self, step: int = STEPS) -> dict[str, torch.Tensor]:
        """The weights of tower and decoder that a checkpoint exports."""
        folder = self.url / f"checkpoint-{step}"
        found = {}
        for part in ("vision_encoder", "decoder"):
            for name, value in load_file(folder / part / "model.safetensors").items():
                found[f"{part}.{name}"] = value
        return found

    def events(self) -> list[dict[str, Any]]:
        return _lines(self.url / "events.jsonl")

    def losses(self) -> list[float]:
        return [line["loss"] for line in _lines(self.url / "history.jsonl")]

    def take_checkpoints(self, other: TrainingRun, last: int) -> None:
        """Begins where another run was after its step `last`."""
        for step in other.checkpoints():
            if step <= last:
                name = f"checkpoint-{step}"
                shutil.copytree(other.url / name, self.url / name)


@contextmanager
def run_on_s3(folder: Path, media: Media) -> Iterator[tuple[TrainingRun, S3]]:
    """A run whose URL is in a bucket of a server of its own; skips the test where none starts."""
    run = TrainingRun(folder, media)
    manifest = yaml.safe_load(run.file.read_text())
    try:
        with running_s3(folder / "server") as server:
            manifest["spec"]["checkpoint"]["url"] = server.url("models")
            run.file.write_text(yaml.safe_dump(manifest))
            yield run, server
    except S3Unavailable as error:
        pytest.skip(str(error))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def same(a: TrainingRun, b: TrainingRun, step: int = STEPS) -> bool:
    """Whether two runs have the same weights, bit by bit."""
    ours, theirs = a.weights(step), b.weights(step)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def distance(a: TrainingRun, b: TrainingRun, start: int, step: int) -> float:
    """How far two runs are apart at a step, relative to their way since step `start`."""
    first, ours, theirs = a.weights(start), a.weights(step), b.weights(step)
    apart = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours)
    way = sum(float((ours[name] - first[name]).square().sum()) for name in ours)
    return float((apart / way) ** 0.5)


def interrupt(process: Process, number: int = signal.SIGTERM) -> Ended:
    """Asks a run to stop, as Kubernetes and Ctrl-C do."""
    process.popen.send_signal(number)
    return process.ended()
