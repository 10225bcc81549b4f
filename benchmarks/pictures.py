"""What pictures cost a step of the demo, and the time of probe and report on a run like it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.load import load_run
from arlow_trainer.data import open_sources
from arlow_trainer.data.demo import write_demo_set
from arlow_trainer.engine import Ranks, StepRunner, build_autoencoder, initialize_engine
from arlow_trainer.pictures.writer import PictureWriter
from arlow_trainer.storage.store import Store

from .ranks import on_ranks
from .result import Result, milliseconds
from .samples import micro_batch, photographs
from .telemetry import DEMO, DEMO_RANKS
from .timing import CPU, WALL, Times, Work, side_by_side

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
SHORTER = 10
"""The run that is probed has so many times fewer steps than the demo, and as many read-outs,
pictures and checkpoints."""

BLOCK = 5
"""Steps of a block."""

STEPS, PICTURES, REPORT = "steps", "pictures", "report"


@dataclass(frozen=True)
class Size:
    """What is measured: the demo with more of its training section said, and how many pictures of
    each split of a labelled set are probed, few and more."""

    overrides: tuple[str, ...] = ()
    rounds: int = 6
    limits: tuple[int, int] = (20, 100)
    command_rounds: int = 2


FULL = Size()
TOY = Size(("model.patchSize=10",), rounds=1, limits=(20, 40), command_rounds=1)


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Measures reconstructing between steps, then the commands in turn on a short run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_demo_set(folder / "data")
        overrides = (
            f"data.images.path={folder}/data/images",
            f"data.videos.path={folder}/data/videos",
            f"checkpoint.url={folder}/runs",
            *size.overrides,
        )
        run = load_run(str(DEMO), overrides)
        share = run.spec.global_batch_size // DEMO_RANKS
        progress(f"{size.rounds} rounds of {BLOCK} steps and of reconstructing")
        cpu, thread = on_ranks(1, _measure_quietly, run, share, size.rounds)
        progress(f"training a {SHORTER}th of the demo")
        _arlow("train", DEMO, "--plain", "--ranks", DEMO_RANKS, *_set(*overrides, *_shorter(run)))
        labelled, data = _labelled_set(folder / "labelled")
        url, page = run.run_url, folder / "report.html"
        few, more = (f"{limit} + {limit} pictures" for limit in size.limits)
        commands = {
            words: _command("probe", url, "--data", labelled, "--limit", limit)
            for words, limit in zip((few, more), size.limits, strict=True)
        } | {REPORT: _command("report", url, "--out", page)}
        ours, wall = _timed(commands, size.command_rounds, progress)
        megabytes = page.stat().st_size / 1e6

    every = run.spec.training.pictures_every_steps
    assert every is not None
    steps = [seconds / BLOCK for seconds in cpu.seconds[STEPS]]
    rests = [a - b for a, b in zip(cpu.seconds[PICTURES], thread.seconds[PICTURES], strict=True)]
    waits = [s / (every * step) for s, step in zip(thread.seconds[PICTURES], steps, strict=True)]
    whole = [s / (every * step) for s, step in zip(cpu.seconds[PICTURES], steps, strict=True)]
    each = (ours.typical(more) - ours.typical(few)) / (2 * (size.limits[1] - size.limits[0]))
    return Result(
        "Pictures, probe and report",
        f"The demo's tower. Its share of {share} pictures a step on one of {DEMO_RANKS} ranks, in "
        "turn with reconstructions of an image and a video, from the forward pass to the PNG in a "
        f"local store. Then the commands, in turn, on a run of a {SHORTER}th of the demo's steps "
        f"with as many read-outs, pictures and checkpoints; the probe on {data}.",
        ("", "CPU time", "least to most", "wall time"),
        [
            _row("a step", steps),
            _row("pictures: the training thread", thread.seconds[PICTURES]),
            _row("pictures: drawn, encoded, stored beside it", rests),
            *(
                _row(f"`arlow probe`, {words}", ours.seconds[words], wall.seconds[words])
                for words in (few, more)
            ),
            _row("`arlow report`", ours.seconds[REPORT], wall.seconds[REPORT]),
        ],
        [
            f"Pictures every {every} steps: **{median(waits):.2%}** of a step is waited for "
            f"({min(waits):.2%} to {max(waits):.2%} over the rounds), **{median(whole):.2%}** "
            f"with the thread beside it ({min(whole):.2%} to {max(whole):.2%}).",
            f"The probe: {milliseconds(each)} a picture, seen by the tower and by random weights; "
            f"the rest is the start. The report is {megabytes:.1f} MB.",
        ],
    )


def _row(name: str, seconds: list[float], wall: list[float] | None = None) -> tuple[str, ...]:
    return (
        name,
        milliseconds(median(seconds)),
        f"{milliseconds(min(seconds))} to {milliseconds(max(seconds))}",
        "" if wall is None else milliseconds(median(wall)),
    )


def _measure_quietly(
    ranks: Ranks, run: ArlowPretrain, share: int, rounds: int
) -> tuple[Times, Times]:
    """Returns the times of blocks and of reconstructing: of all threads, of the training thread."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return _measure(ranks, run, share, rounds)


def _measure(ranks: Ranks, run: ArlowPretrain, share: int, rounds: int) -> tuple[Times, Times]:
    training = run.spec.training
    engine = initialize_engine(build_autoencoder(training), training, "fp32", ranks.device)
    runner = StepRunner(engine, training, share, total_steps=10_000)
    samples = micro_batch(run, share)
    store, sources = Store(run.run_url), open_sources(training.data)
    # One a round, as closing it is how to wait for its thread; the first is for the warm-up.
    writers = [PictureWriter(run, store, sources) for _ in range(rounds + 1)]
    step = 0

    def make_steps() -> None:
        nonlocal step
        for _ in range(BLOCK):
            runner.step(step, [samples])
            step += 1

    def reconstruct() -> None:
        writer = writers.pop()
        writer.submit(engine.module, step)
        writer.close()

    cpu, thread = side_by_side(
        {STEPS: make_steps, PICTURES: reconstruct}, rounds, (CPU, time.thread_time)
    )
    return cpu, thread


def _shorter(run: ArlowPretrain) -> list[str]:
    """Returns overrides for a run of fewer steps that leaves as much behind."""
    training = run.spec.training
    intervals = {
        "maxStepsPerEpoch": training.max_steps_per_epoch,
        "logEverySteps": training.log_every_steps,
        "picturesEverySteps": training.pictures_every_steps,
        "checkpoint.everySteps": run.spec.checkpoint.every_steps,
    }
    return [f"{name}={steps // SHORTER}" for name, steps in intervals.items() if steps]


def _set(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def _labelled_set(folder: Path) -> tuple[Path, str]:
    """Writes a labelled set for probes; returns its folder and what it is."""
    if FASHION_MNIST.is_dir():
        _arlow("data", "prepare", "idx", FASHION_MNIST, "--out", folder)
        return folder, "Fashion-MNIST"
    noise = np.random.default_rng(0)
    for number, photograph in enumerate(photographs()):
        for split in ("train", "test"):
            place = folder / split / f"photograph-{number}"
            place.mkdir(parents=True)
            for crop in range(20):
                side = 200
                left, top = (int(noise.integers(length - side)) for length in photograph.size)
                box = (left, top, left + side, top + side)
                photograph.crop(box).resize((96, 96), Image.Resampling.BICUBIC).save(
                    place / f"{crop}.jpg"
                )
    return folder, "crops of photographs, a class each (Fashion-MNIST is not installed)"


def _timed(
    commands: Mapping[str, Work], rounds: int, progress: Callable[[str], None]
) -> tuple[Times, Times]:
    """Runs commands in turn, which as processes of their own need no warm-up; returns CPU and wall
    time."""
    cpu: dict[str, list[float]] = {name: [] for name in commands}
    wall: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds} of probes and report")
        for name, run in commands.items():
            starts = _children_cpu(), WALL()
            run()
            cpu[name].append(_children_cpu() - starts[0])
            wall[name].append(WALL() - starts[1])
    return Times(cpu), Times(wall)


def _command(*words: object) -> Work:
    return lambda: _arlow(*words)


def _arlow(*words: object) -> None:
    """Runs `arlow`. Raises SystemExit with what it said when it fails."""
    command = [str(Path(sys.executable).with_name("arlow")), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"benchmarks: {' '.join(command)}: {done.stdout}{done.stderr}")


def _children_cpu() -> float:
    """Returns the CPU seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
