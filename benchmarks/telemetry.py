"""What metrics, status and read-outs cost a step."""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from statistics import median
from typing import Any

from arlow_trainer.checkpoint.events import EventLog
from arlow_trainer.checkpoint.store import Store
from arlow_trainer.config import ArlowPretrain
from arlow_trainer.data import StepBatch
from arlow_trainer.engine import (
    FiniteGuard,
    Ranks,
    StepRunner,
    build_autoencoder,
    initialize_engine,
)
from arlow_trainer.options import TrainOptions
from arlow_trainer.reporting import StepReporter, telemetry_options
from arlow_trainer.telemetry import Telemetry

from .ranks import on_ranks
from .result import Result, milliseconds
from .samples import TOY_TRAINING, build_run, micro_batch
from .timing import CPU, Times, side_by_side

MOST_OF_A_STEP = 0.005
SCRAPE_S = 1.0
WITH, WITHOUT = "with", "without"


@dataclass(frozen=True)
class Size:
    """What is measured."""

    batch: int = 32
    model: Mapping[str, Any] = field(default_factory=dict)
    log_every: int = 10
    rounds: int = 2


FULL = Size()
TOY = Size(4, TOY_TRAINING["model"], log_every=2)


@dataclass(frozen=True)
class Measured:
    """Seconds of blocks of steps with and without telemetry: CPU time of the process and of the
    training thread; of a block inside the reporter, CPU time too; and of a scrape."""

    process: Times
    thread: Times
    reporting: float
    scrape: float

    def other_threads(self, name: str) -> float:
        """Returns the median CPU seconds of a block's other threads."""
        pairs = zip(self.process.seconds[name], self.thread.seconds[name], strict=True)
        return median(process - thread for process, thread in pairs)


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Measures blocks of steps in turn."""
    progress(f"{size.rounds} rounds of {size.log_every} steps with and without")
    with tempfile.TemporaryDirectory() as folder:
        run = build_run(
            "tiny",
            {
                "model": dict(size.model),
                "batch": {"globalSize": size.batch},
                "logEverySteps": size.log_every,
            },
            checkpoint={"url": folder},
        )
        got = on_ranks(1, _measure_quietly, run, size)
    steps = size.log_every
    block = got.process.typical(WITHOUT)
    aside = max(0.0, got.other_threads(WITH) - got.other_threads(WITHOUT))
    share = (got.reporting + aside) / block
    ratios = sorted(got.process.ratios(WITH, WITHOUT))
    return Result(
        "The cost of telemetry",
        f"The tiny preset with {size.batch} pictures a step, one rank: blocks of {steps} steps "
        "with `StepReporter` and `Telemetry` (metrics and status on a port that another process "
        f"scrapes every {SCRAPE_S:.0f} s, status and history written to a local store, a read-out "
        f"with the largest attention logit every {steps} steps), and without. CPU time.",
        ("", "a step"),
        [
            ("a step without telemetry", milliseconds(block / steps)),
            ("a step with it", milliseconds(got.process.typical(WITH) / steps)),
            ("of it in the reporter, read-outs included", milliseconds(got.reporting / steps)),
            ("of it in other threads: server, store", milliseconds(aside / steps)),
            ("a scrape of both pages, as the scraper sees it", milliseconds(got.scrape)),
        ],
        [
            f"Reporter and threads: **{share:.2%}** of a step. Target: under {MOST_OF_A_STEP:.1%}: "
            f"{'met' if share < MOST_OF_A_STEP else 'missed'}.",
            f"The blocks as a whole differ by {ratios[0] - 1:+.2%} to {ratios[-1] - 1:+.2%}, which "
            "is the noise of two blocks that do the same.",
            "The time of `arlow probe` and `arlow report` is not measured here yet.",
        ],
    )


def _measure_quietly(ranks: Ranks, run: ArlowPretrain, size: Size) -> Measured:
    """Measures with the run's log lines written to nowhere."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return _measure(ranks, run, size)


def _measure(ranks: Ranks, run: ArlowPretrain, size: Size) -> Measured:
    training, batch_size = run.spec.training, run.spec.global_batch_size
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = Store(run.run_url)
    events = EventLog(store)
    options = TrainOptions(port=port, live=False, log_format="json")
    telemetry = Telemetry(run, 0, 1, telemetry_options(run, options, ranks, store, events))
    engine = initialize_engine(build_autoencoder(training), training, "fp32", ranks.device)
    runner = StepRunner(engine, training, batch_size, total_steps=10_000)
    guard = FiniteGuard(runner, ranks)
    reporter = StepReporter(run, telemetry, runner, guard, ranks, total_steps=10_000)
    samples = micro_batch(run, batch_size)
    telemetry.phase("training")
    step, reporting = 0, []

    def one_step() -> None:
        nonlocal step
        applied = runner.step(step, [samples])
        guard.after_step(step, applied, [samples])
        step += 1

    context = multiprocessing.get_context("spawn")
    scraping, ended = context.Event(), context.Event()
    receive, send = context.Pipe(duplex=False)
    scraper = context.Process(target=_scrape, args=(port, scraping, ended, send), daemon=True)
    scraper.start()

    def with_telemetry() -> None:
        scraping.set()
        inside = 0.0
        reporter.start()
        for _ in range(size.log_every):
            one_step()
            start = time.thread_time()
            reporter.after_step(StepBatch(step - 1, [samples], []))
            inside += time.thread_time() - start
        scraping.clear()
        reporting.append(inside)

    def without() -> None:
        for _ in range(size.log_every):
            one_step()

    work = {WITH: with_telemetry, WITHOUT: without}
    process, thread = side_by_side(work, size.rounds, (CPU, time.thread_time))
    ended.set()
    scraping.set()
    scrape = receive.recv()
    scraper.join()
    telemetry.close()
    events.close()
    return Measured(process, thread, median(reporting), scrape)


def _scrape(port: int, scraping: Event, ended: Event, send: Connection) -> None:
    """Scrapes while `scraping` is set, until `ended`; sends the median time of a scrape."""
    seconds = []
    while True:
        scraping.wait()
        start = time.perf_counter()
        for path in ("metrics", "status"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
                answer.read()
        seconds.append(time.perf_counter() - start)
        if ended.wait(SCRAPE_S):
            break
    send.send(median(seconds))
