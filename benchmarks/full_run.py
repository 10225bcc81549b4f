"""The full model on a GPU: speed, memory, and one train-save-resume."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from arlow_trainer.checkpoint.reader import newest_valid
from arlow_trainer.checkpoint.saver import CheckpointSaver, read_state, restore
from arlow_trainer.checkpoint.training_state import Progress, TrainingState
from arlow_trainer.checkpoint.writer import SaveEvent
from arlow_trainer.config import ArlowPretrain
from arlow_trainer.engine import (
    Ranks,
    StepRunner,
    build_autoencoder,
    device_memory,
    effective_precision,
    initialize_engine,
    peak_flops,
)
from arlow_trainer.plan.flops import image_training_flops
from arlow_trainer.plan.hardware import GIB
from arlow_trainer.plan.memory import largest_micro_batch
from arlow_trainer.storage.grace import DEFAULT_S, Grace
from arlow_trainer.storage.store import Store

from .checkpoint import SET_SIZES
from .ranks import on_ranks
from .result import Result, milliseconds
from .samples import TOY_TRAINING, build_run, micro_batch

TITLE = "The full model on a GPU"
STEPS = 1_000_000


@dataclass(frozen=True)
class Size:
    """What is measured: a preset with more said, and the pictures of a step."""

    preset: str = "arlow-vision-3072"
    training: Mapping[str, Any] = field(default_factory=dict)
    batches: tuple[int, ...] = (32, 256)
    steps: int = 5
    needs_gpu: bool = True


FULL = Size()
TOY = Size("tiny", TOY_TRAINING, batches=(2, 4), steps=2, needs_gpu=False)


@dataclass(frozen=True)
class Speed:
    """A step's median seconds on so many pictures, in micro-batches of so many."""

    batch: int
    micro_batch: int
    seconds: float


@dataclass(frozen=True)
class Trained:
    """What the first process measured."""

    precision: str
    parameters: int
    speeds: list[Speed]
    peak: float | None
    memory_bytes: int | None
    stall: float
    save: float
    bytes: int
    loss: float
    """Of the step after the checkpoint."""


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Trains and saves in one process, resumes in another."""
    if size.needs_gpu and not torch.cuda.is_available():
        return Result(TITLE, "Not run: this machine has no GPU. The same script measures it there.")
    with tempfile.TemporaryDirectory() as folder:
        run = build_run(
            size.preset,
            {
                **size.training,
                "batch": {"globalSize": size.batches[-1]},
                "data": {"videoProbability": 0.0},
                # So that the few steps made here change the weights that a resume restores.
                "optimizer": {"warmupSteps": 1},
            },
            checkpoint={"url": folder},
        )
        progress(f"{size.preset}: steps of {', '.join(map(str, size.batches))} pictures, a save")
        trained = on_ranks(1, _train, run, size)
        progress("resuming in another process")
        resume_seconds, loss = on_ranks(1, _resume, run)
    flops = image_training_flops(run.spec.training)
    rows = []
    for speed in trained.speeds:
        rate = speed.batch / speed.seconds
        used = "unknown" if trained.peak is None else f"{rate * flops / trained.peak:.1%}"
        rows.append(
            (
                f"{speed.batch}, micro-batch {speed.micro_batch}",
                milliseconds(speed.seconds),
                f"{rate:.1f}",
                used,
            )
        )
    memory = trained.memory_bytes
    held = "" if memory is None else f" Peak memory {memory / GIB:.1f} GiB."
    same = "the same" if loss == trained.loss else f"{abs(loss / trained.loss - 1):.1e} apart"
    return Result(
        TITLE,
        f"`{size.preset}` in {trained.precision}, {trained.parameters / 1e6:,.1f} M parameters "
        f"with its decoder, ZeRO-2 on one device, photographs held in memory, medians of "
        f"{size.steps} steps. MFU counts matrix products of the visible and the decoder's tokens "
        "against the data sheet's dense peak (on a CPU: against a matrix product's).",
        ("pictures a step", "step", "images/s", "MFU"),
        rows,
        [
            f"A checkpoint is {trained.bytes / 1e9:.1f} GB; training stands still for "
            f"{milliseconds(trained.stall)}, the save takes {milliseconds(trained.save)}.{held}",
            f"Resumed in a new process in {milliseconds(resume_seconds)}: the next step's loss is "
            f"{loss:.6f}, without the interruption {trained.loss:.6f} ({same}).",
        ],
    )


def _train(ranks: Ranks, run: ArlowPretrain, size: Size) -> Trained:
    training = run.spec.training
    precision = effective_precision(training.precision, ranks.device)
    module = build_autoencoder(training)
    parameters = sum(p.numel() for p in module.parameters())
    engine = initialize_engine(module, training, precision, ranks.device)
    fits = largest_micro_batch(run, 1, device_memory(ranks.device, 1), precision)
    step, speeds = 0, []
    for batch in size.batches:
        runner = StepRunner(engine, training, batch, STEPS)
        most = min(fits, batch)
        batches = [micro_batch(run, min(most, batch - i), i) for i in range(0, batch, most)]
        seconds = []
        for _ in range(size.steps + 2):  # two to warm up
            start = time.perf_counter()
            runner.step(step, batches)
            _wait(ranks)
            seconds.append(time.perf_counter() - start)
            step += 1
        speeds.append(Speed(batch, most, median(seconds[2:])))
    cuda = ranks.device.type == "cuda"
    memory = torch.cuda.max_memory_allocated(ranks.device) if cuda else None
    events: list[tuple[SaveEvent, float]] = []
    with CheckpointSaver(
        store=Store(run.run_url),
        run=run,
        engine=engine,
        ranks=ranks,
        attempt=uuid.uuid4().hex,
        start=TrainingState.start(
            run, ranks=1, total_steps=STEPS, set_sizes=SET_SIZES, precision=precision
        ),
        on_event=lambda event, stall: events.append((event, stall)),
        grace=Grace(DEFAULT_S),
    ) as saver:
        saver.save(Progress(step))
        saver.finish(None)
    event, stall = events[0]
    if event.error:
        raise RuntimeError(event.error)
    return Trained(
        precision,
        parameters,
        speeds,
        peak_flops(ranks.device, precision),
        memory,
        stall,
        event.duration_s,
        event.bytes,
        _next_loss(runner, ranks, run, step),
    )


def _resume(ranks: Ranks, run: ArlowPretrain) -> tuple[float, float]:
    """Returns the seconds of restoring, and the next step's loss."""
    training = run.spec.training
    precision = effective_precision(training.precision, ranks.device)
    engine = initialize_engine(build_autoencoder(training), training, precision, ranks.device)
    store = Store(run.run_url)
    start = time.perf_counter()
    newest = newest_valid(store, on_skip=lambda info, reason: None)
    if newest is None:
        raise RuntimeError(f"{run.run_url} holds no checkpoint")
    state = read_state(store, newest.step)
    restore(store, state, engine, ranks)
    _wait(ranks)
    seconds = time.perf_counter() - start
    runner = StepRunner(engine, training, run.spec.global_batch_size, STEPS)
    return seconds, _next_loss(runner, ranks, run, state.step)


def _next_loss(runner: StepRunner, ranks: Ranks, run: ArlowPretrain, step: int) -> float:
    """Makes two more steps on a few pictures; the second's loss shows what the first changed."""
    samples = micro_batch(run, 2)
    for number in (step, step + 1):
        runner.step(number, [samples])
    return runner.last_sums.means(ranks)[0]


def _wait(ranks: Ranks) -> None:
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)
