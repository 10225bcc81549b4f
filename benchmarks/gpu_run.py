"""A run of the full model on a GPU: waits for data, two saves, a kill, and the start after it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import yaml
from tests.support.ports import free_port

from arlow_trainer.config import ArlowPretrain, load_run
from arlow_trainer.plan.hardware import GIB
from arlow_trainer.plan.host import start_seconds
from arlow_trainer.plan.parameters import total_parameters

from .result import NOT_RUN, Result, milliseconds
from .samples import TOY_TRAINING, write_drawn_films, write_drawn_jpegs

TITLE = "A run of the full model on a GPU"
_COMMAND = "from arlow_trainer.cli import main; main()"
_METRIC = re.compile(r"^(arlow_\w+?)(?:_total)?(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_PARTS = ("imports", "checkpoint", "data", "model", "restore", "compile", "first_step")
_POLL_S = 0.1


@dataclass(frozen=True)
class Size:
    """What is measured: a preset with more said, its files, and the steps between two saves."""

    preset: str = "arlow-vision-3072"
    training: Mapping[str, Any] = field(default_factory=dict)
    files: int = 512
    films: int = 32
    film_frames: int = 180
    steps: int = 30
    read_out_every: int = 5
    deadline_s: float = 400.0
    needs_gpu: bool = True


FULL = Size()
TOY = Size(
    "tiny",
    {**TOY_TRAINING, "data": {"workers": 1, "clipFrames": 4}},
    files=8,
    films=2,
    film_frames=30,
    steps=4,
    read_out_every=1,
    needs_gpu=False,
)


@dataclass(frozen=True)
class Save:
    """Of one checkpoint: seconds that training stood still and that the save took, bytes."""

    stall: float
    seconds: float
    bytes: float


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Trains with the command, kills it after its second checkpoint, and starts it again."""
    if size.needs_gpu and not torch.cuda.is_available():
        return Result(TITLE, NOT_RUN)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        progress(f"{size.files} pictures and {size.films} films are drawn")
        write_drawn_jpegs(folder / "images", size.files)
        write_drawn_films(folder / "videos", size.films, size.film_frames)
        file = _manifest(folder, size)
        run = load_run(str(file))
        progress(f"trains until its second checkpoint, at step {2 * size.steps}")
        with _Command(file, folder / "first.txt", size) as first:
            saves = [first.next_save(), first.next_save()]
            # Made before the kill, and again after it.
            step = 2 * size.steps + size.read_out_every
            first.wait_for(lambda status: status.get("step", 0) >= step)
            fresh, scalars = first.status(), first.metrics()
        began = time.monotonic()
        progress("was killed, and is started again")
        with _Command(file, folder / "second.txt", size) as second:
            second.wait_for(lambda status: "first_step" in status.get("startSeconds", {}))
            to_step = time.monotonic() - began
            second.wait_for(lambda status: status.get("step", 0) >= step)
            resumed = second.status()
    losses = (_loss(fresh, step), _loss(resumed, step))
    return _result(size, run, saves, fresh, resumed, scalars, to_step, losses)


def _result(
    size: Size,
    run: ArlowPretrain,
    saves: list[Save],
    fresh: Mapping[str, Any],
    resumed: Mapping[str, Any],
    scalars: Mapping[str, float],
    to_step: float,
    losses: tuple[float, float],
) -> Result:
    starts = [status["startSeconds"] for status in (fresh, resumed)]
    planned = start_seconds(run)
    of_plan = {
        "imports": f"{planned.imports:.1f} s",
        "data": f"{planned.data:.1f} s",
        "model": f"{planned.model:.1f} s",
        "restore": f"{planned.restore:.1f} s",
        "first_step": f"{planned.first_step:.1f} s",
    }
    rows = [
        (f"start: {part.replace('_', ' ')}", *(_told(start, part) for start in starts),
         of_plan.get(part, "-"))
        # Where nothing is compiled, no start has that part.
        for part in _PARTS if any(part in start for start in starts)
    ]  # fmt: skip
    rows.append(
        (
            "start: all, from the command to the first step",
            *(f"{sum(start.values()):.1f} s" for start in starts),
            f"{planned.total:.1f} s",
        )
    )
    phases = [status.get("stepPhaseSeconds", {}) for status in (fresh, resumed)]
    rows += [
        (f"a step: {phase}", *(milliseconds(each.get(phase, 0.0)) for each in phases), "-")
        for phase in phases[0]
    ]
    steps = [status.get("medianStepSeconds") or 0.0 for status in (fresh, resumed)]
    rows.append(("a step: all, median", *(milliseconds(step) for step in steps), "-"))
    data, whole = phases[0].get("data", 0.0), steps[0]
    return Result(
        TITLE,
        f"`arlow train`, `{size.preset}`, {total_parameters(run.spec.training) / 1e6:,.1f} M "
        f"parameters with the decoder, one rank, {run.spec.global_batch_size} samples a step from "
        f"{size.files} drawn JPEGs of 500 x 375 and {size.films} films of 320 x 240, checkpoints "
        f"on a local disk every {size.steps} steps. Killed by SIGKILL after its second, and "
        "started again. Planned: `arlow plan`'s start after a kill.",
        ("seconds of", "fresh run", "after the kill", "planned"),
        rows,
        [
            f"From the kill to the next step **{to_step:.1f} s**.",
            f"The wait for data is {milliseconds(data)} a step, {data / whole:.1%} of it."
            if whole
            else "No step was timed.",
            *(
                f"Save {number}: {save.bytes / 1e9:.2f} GB; training stands still for "
                f"{milliseconds(save.stall)}, the save takes {milliseconds(save.seconds)}."
                for number, save in enumerate(saves, 1)
            ),
            _memory(scalars),
            "Steps that were made before the kill and again after it: mean loss "
            f"{losses[0]:.6f} and {losses[1]:.6f}, {abs(losses[1] / losses[0] - 1):.1e} apart.",
        ],
    )


def _told(start: Mapping[str, float], part: str) -> str:
    return f"{start[part]:.1f} s" if part in start else "-"


def _memory(scalars: Mapping[str, float]) -> str:
    allocated = scalars.get("arlow_gpu_memory_bytes")
    if allocated is None:
        return "No GPU memory is reported: it ran on a CPU."
    return (
        f"GPU memory at its peak {allocated / GIB:.1f} GiB allocated, "
        f"{scalars['arlow_gpu_memory_reserved_bytes'] / GIB:.1f} reserved, "
        f"{scalars['arlow_gpu_allocator_retries']:.0f} retries of the allocator; micro-batches of "
        f"{scalars['arlow_image_micro_batch']:.0f} images and "
        f"{scalars['arlow_clip_micro_batch']:.0f} clips."
    )


class _Command:
    """`arlow train` on one rank, killed at the end."""

    def __init__(self, file: Path, log: Path, size: Size) -> None:
        port = free_port()
        self._url, self._log = f"http://127.0.0.1:{port}", log
        self._deadline_s = size.deadline_s
        self._saved = 0.0
        arguments = ["train", str(file), "--plain", "--ranks", "1", "--port", str(port)]
        with log.open("w") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, *arguments], stdout=out, stderr=out
            )

    def __enter__(self) -> _Command:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def next_save(self) -> Save:
        """Waits until the next checkpoint is in the store; returns what is told of it."""
        name = "arlow_checkpoints"
        self._until(lambda: self.metrics().get(name, 0.0) > self._saved)
        told = self.metrics()
        self._saved = told[name]
        return Save(
            told["arlow_checkpoint_stall_seconds"],
            told["arlow_checkpoint_duration_seconds"],
            told["arlow_checkpoint_bytes"],
        )

    def wait_for(self, reached: Callable[[dict[str, Any]], bool]) -> None:
        """Waits until the run's status is as asked for."""
        self._until(lambda: reached(self.status()))

    def status(self) -> dict[str, Any]:
        """Returns what /status tells; nothing where it does not answer."""
        answer: dict[str, Any] = json.loads(self._get("/status") or "{}")
        return answer

    def metrics(self) -> dict[str, float]:
        """Returns the run's metrics by name, the last of those with several labels."""
        return {name: float(value) for name, value in _METRIC.findall(self._get("/metrics"))}

    def _get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(self._url + path, timeout=10) as answer:
                return str(answer.read().decode())
        except (URLError, OSError):
            return ""

    def _until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + self._deadline_s
        while not reached():
            if self._process.poll() is not None or time.monotonic() > end:
                lines = self._log.read_text().splitlines()[-20:]
                raise RuntimeError("\n".join(["the run came to no good end:", *lines]))
            time.sleep(_POLL_S)


def _manifest(folder: Path, size: Size) -> Path:
    training = dict(size.training)
    data = {
        "images": {"path": str(folder / "images")},
        "videos": {"path": str(folder / "videos")},
        "repeat": True,
    }
    training |= {
        "preset": size.preset,
        "data": {**training.get("data", {}), **data},
        "maxStepsPerEpoch": 1_000,
        "logEverySteps": size.read_out_every,
        "picturesEverySteps": 0,
        # So that the steps made here change the weights that a resume restores.
        "optimizer": {"warmupSteps": 10},
    }
    manifest = {
        "apiVersion": "arlow.dev/v1alpha1",
        "kind": "ArlowPretrain",
        "metadata": {"name": "measured"},
        "spec": {
            # One is kept beside the one that is written: 46 GB of the full model.
            "checkpoint": {
                "url": str(folder / "runs"),
                "everySteps": size.steps,
                "keepLast": 1,
            },
            "nodes": {"gpus": 1},
            "training": training,
        },
    }
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(manifest))
    return file


def _loss(status: Mapping[str, Any], step: int) -> float:
    """Returns the loss that a status tells of the read-out at a step."""
    return float(next(one["loss"] for one in status["recentLosses"] if one["step"] == step))
