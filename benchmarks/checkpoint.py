"""How long a step waits for a checkpoint, on a local folder and on a real S3 server."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tests.support.s3_server import S3Unavailable, running_s3

from arlow_trainer.checkpoint.saver import CheckpointSaver
from arlow_trainer.checkpoint.training_state import Progress, TrainingState
from arlow_trainer.checkpoint.writer import SaveEvent
from arlow_trainer.config import ArlowPretrain
from arlow_trainer.engine import (
    Ranks,
    StepRunner,
    build_autoencoder,
    initialize_engine,
    optimizer_shard,
)
from arlow_trainer.storage.grace import DEFAULT_S, Grace
from arlow_trainer.storage.store import Store

from .ranks import on_ranks
from .result import Result, milliseconds
from .samples import MEDIUM, TOY_TRAINING, build_run, micro_batch

SET_SIZES = {"image": 1_281_167}  # as a data set of ImageNet's size would be recorded


@dataclass(frozen=True)
class Size:
    """What is measured."""

    training: Mapping[str, dict[str, Any]] = field(
        default_factory=lambda: {"tiny": {}, "6 x 384": {**MEDIUM, "batch": {"globalSize": 16}}}
    )
    saves: int = 3
    steps: int = 2


FULL = Size()
TOY = Size({"toy": TOY_TRAINING}, saves=1, steps=1)


@dataclass(frozen=True)
class Measured:
    """Median seconds of a step, of a step while a save is under way (None: none ended in time), of
    a copy of all that is saved into new memory, of standing still for a save, and of a save; a
    checkpoint's bytes, and those of the buffer that it is copied into."""

    step: float
    step_beside: float | None
    at_once: float
    stall: float
    save: float
    bytes: int
    copy_bytes: int


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Measures every model on every store."""
    rows, findings, shares = [], [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stores = {"local folder": str(folder / "runs")}
        environment: dict[str, str] = {}
        try:
            server = stack.enter_context(running_s3(folder / "s3"))
            stores["S3"], environment = server.url("runs"), server.environment
        except S3Unavailable as reason:
            findings.append(f"S3 was not measured: {reason}.")
        for name, training in size.training.items():
            for kind, url in stores.items():
                progress(f"{name}, {kind}")
                run = build_run(
                    "tiny", training, checkpoint={"url": f"{url}/{name}".replace(" ", "")}
                )
                got = on_ranks(1, _measure, run, size, environment)
                shares.append(got.stall / got.step)
                beside = "-" if got.step_beside is None else f"{got.step_beside / got.step:.2f}"
                rows.append(
                    (
                        f"{name}, {kind}",
                        f"{got.bytes / 1e6:,.0f} MB",
                        f"{got.copy_bytes / 1e6:,.0f} MB",
                        milliseconds(got.step),
                        milliseconds(got.at_once),
                        milliseconds(got.stall),
                        f"**{got.stall / got.step:.3f}**",
                        milliseconds(got.save),
                        beside,
                    )
                )
    findings.append(
        f"Training stands still for {min(shares):.3f} to {max(shares):.3f} of a step; with a "
        "checkpoint every 1,000 steps that is at most "
        f"{max(shares) / 1000:.4%} of the run."
    )
    return Result(
        "Checkpoints",
        "One rank. The stall is what a save takes of the training thread: `CheckpointSaver.save`, "
        "and what the next update waits until weights, masters and moments are copied, beside the "
        "step's forward and backward, into one buffer. At once: the same copied in the training "
        "thread into new memory, beside the copy before it. The save is from there to the "
        "manifest, on a thread beside "
        "training: writing, hashing, uploading, to a local folder and to SeaweedFS's S3 server on "
        "loopback, which takes cores of the same machine. The last column is a step while a save "
        f"is under way over one without. Medians of {size.saves} saves.",
        (
            "model, store",
            "checkpoint",
            "buffer",
            "step",
            "at once",
            "stall",
            "stall / step",
            "save",
            "step beside it",
        ),
        rows,
        findings,
    )


def _measure(
    ranks: Ranks, run: ArlowPretrain, size: Size, environment: Mapping[str, str]
) -> Measured:
    os.environ.update(environment)
    training, batch = run.spec.training, run.spec.global_batch_size
    engine = initialize_engine(build_autoencoder(training), training, "fp32", ranks.device)
    runner = StepRunner(engine, training, batch, total_steps=1000, ranks=ranks)
    batches = [micro_batch(run, batch)]
    events: list[tuple[SaveEvent, float]] = []
    step, alone, beside, at_once, held = 0, [], [], [], None

    def timed_step() -> float:
        nonlocal step
        start = time.perf_counter()
        runner.step(step, batches)
        step += 1
        return time.perf_counter() - start

    with CheckpointSaver(
        store=Store(run.run_url),
        run=run,
        engine=engine,
        ranks=ranks,
        attempt=uuid.uuid4().hex,
        start=TrainingState.start(
            run, ranks=1, total_steps=1000, set_sizes=SET_SIZES, precision="fp32"
        ),
        on_event=lambda event, stall: events.append((event, stall)),
        grace=Grace(DEFAULT_S),
    ) as saver:
        timed_step()
        for number in range(size.saves + 1):
            alone += [timed_step() for _ in range(size.steps)]
            start = time.perf_counter()
            held = copied(engine)
            at_once.append(time.perf_counter() - start)
            saver.save(Progress(step))
            while len(events) == number:
                seconds = timed_step()
                if len(events) == number:
                    beside.append(seconds)
            saver.finish(None)
        copy_bytes = saver.copy_bytes
    assert held
    for event, _ in events:
        if event.error:
            raise RuntimeError(event.error)
    # The first save also starts the writer and finds its memory.
    kept = events[1:]
    return Measured(
        median(alone),
        median(beside) if beside else None,
        median(at_once[1:]),
        median(stall for _, stall in kept),
        median(event.duration_s for event, _ in kept),
        events[-1][0].bytes,
        copy_bytes,
    )


def copied(engine: Any) -> list[torch.Tensor]:
    """Copies all that a checkpoint holds into new memory."""
    state = [*optimizer_shard(engine).tensors.values(), *engine.module.state_dict().values()]
    return [tensor.detach().clone() for tensor in state]
