"""From a kill to the next step: a run that is killed after a checkpoint and started again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from arlow_trainer.config import load_run
from arlow_trainer.plan.parameters import total_parameters

from .result import Result
from .samples import write_jpegs

TITLE = "From a kill to the next step"
_LAUNCH = """
import sys
from arlow_trainer.config import load_run
from arlow_trainer.run.launch import launch
from arlow_trainer.run.options import TrainOptions
launch(load_run(sys.argv[1]), 1, TrainOptions(live=False))
"""
_STEP = re.compile(r"\bstep \d+/")
_IMPORTS = "import torch, deepspeed, transformers"


@dataclass(frozen=True)
class Size:
    """A model, and how often the run is killed."""

    model: dict[str, int]
    kills: int


FULL = Size({"depth": 12, "embedDim": 768, "numHeads": 12, "hiddenSize": 768}, kills=3)
TOY = Size({"depth": 6, "embedDim": 48, "numHeads": 2, "hiddenSize": 64}, kills=1)


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Kills a run after each of its checkpoints and starts it again."""
    with tempfile.TemporaryDirectory() as folder:
        file = _manifest(Path(folder), size)
        run = load_run(str(file))
        parameters = total_parameters(run.spec.training)
        url = Path(run.run_url)
        walls, parts = [], []
        for kill in range(size.kills + 1):
            progress(f"start {kill} of {size.kills}")
            walls.append(_start_and_kill(file, url, Path(folder, "log.txt")))
            parts.append(_started(url))
        progress("imports that the launcher does without")
        imports = _seconds(lambda: subprocess.run([sys.executable, "-c", _IMPORTS], check=True))
    resumed = parts[1:]
    rows = [
        (part, f"{parts[0].get(part, 0.0):.2f}", f"{median(p.get(part, 0.0) for p in resumed):.2f}")
        for part in resumed[-1]
    ]
    rows.append(("command to step", f"{walls[0]:.2f}", f"{median(walls[1:]):.2f}"))
    return Result(
        TITLE,
        f"`arlow train` on one rank, {parameters / 1e6:,.1f} M parameters with the decoder, killed "
        f"by SIGKILL after a checkpoint and started again {size.kills} times (medians); seconds, "
        "as the `started` event and `/status` tell them.",
        ("part", "fresh run", "after a kill"),
        rows,
        [f"The launcher imports none of torch, DeepSpeed and transformers: {imports:.2f} s less."],
    )


def _manifest(folder: Path, size: Size) -> Path:
    write_jpegs(folder / "images", 16)
    manifest = {
        "apiVersion": "arlow.dev/v1alpha1",
        "kind": "ArlowPretrain",
        "metadata": {"name": "killed"},
        "spec": {
            "checkpoint": {"url": str(folder / "runs"), "everySteps": 1, "keepLast": 2},
            "training": {
                "preset": "tiny",
                "maxStepsPerEpoch": 1000,
                "logEverySteps": 1,
                "picturesEverySteps": 0,
                "model": size.model,
                "batch": {"globalSize": 2},
                "data": {
                    "images": {"path": str(folder / "images")},
                    "videoProbability": 0.0,
                    "workers": 1,
                },
            },
        },
    }
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(manifest))
    return file


def _start_and_kill(file: Path, url: Path, log: Path) -> float:
    """Starts the run and kills it after its next checkpoint; returns the seconds to its step."""
    before = _saved(url)
    start, stepped = time.perf_counter(), 0.0
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(file)], stdout=out, stderr=out, env=os.environ
        )
        try:
            while _saved(url) == before:
                if process.poll() is not None:
                    raise RuntimeError(log.read_text())
                if not stepped and _STEP.search(log.read_text()):
                    stepped = time.perf_counter() - start
                time.sleep(0.02)
            # Its events are written every few seconds.
            time.sleep(6)
        finally:
            process.kill()
            process.wait()
    time.sleep(1)
    return stepped


def _saved(url: Path) -> int:
    steps = [int(path.parent.name.split("-")[1]) for path in url.glob("checkpoint-*/manifest.json")]
    return max(steps, default=0)


def _started(url: Path) -> dict[str, float]:
    events: list[dict[str, Any]] = _lines(url / "events.jsonl")
    seconds: dict[str, float] = next(e for e in reversed(events) if e["kind"] == "started")[
        "seconds"
    ]
    return seconds


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
