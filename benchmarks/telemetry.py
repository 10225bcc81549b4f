"""What metrics, status and read-outs cost a step."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean, median

from tests.support.ports import free_port

from arlow_trainer.checkpoint.training_state import Progress
from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.load import load_run
from arlow_trainer.data import StepBatch
from arlow_trainer.engine import (
    FiniteGuard,
    Ranks,
    StepRunner,
    build_autoencoder,
    initialize_engine,
)
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.run.reporting import StepReporter, telemetry_options
from arlow_trainer.storage.events import EventLog
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import Telemetry

from .ranks import on_ranks
from .result import Result, milliseconds
from .samples import micro_batch
from .timing import CPU, WALL, Times, side_by_side

MAX_SHARE_OF_STEP = 0.005
SCRAPE_EVERY_S = 15
SCRAPES = 50
DEMO = Path(__file__).parents[1] / "manifests" / "demo.yaml"
DEMO_RANKS = 2
"""Ranks of `make demo`."""

WITH, WITHOUT = "with", "without"
BLOCK = 10
"""Steps of a block."""

READ_EVERY = 2
"""Read-outs are made more often than in a run and counted as often as there: rare ones that cost
more are then met in few steps."""


@dataclass(frozen=True)
class Share:
    """One rank's share of a run: of the manifest or preset `source`, on `ranks` ranks.

    An attention logit comes with every tenth read-out: an even number of rounds holds its share of
    them.
    """

    name: str
    source: str
    ranks: int
    rounds: int
    overrides: tuple[str, ...] = ()

    def run(self, folder: str, *overrides: str) -> ArlowPretrain:
        """Returns the run, with its checkpoints in a folder."""
        return load_run(self.source, [f"checkpoint.url={folder}", *self.overrides, *overrides])


@dataclass(frozen=True)
class Size:
    """What is measured."""

    shares: tuple[Share, ...]


FULL = Size((Share("tiny preset", "tiny", 1, 2), Share("demo", str(DEMO), DEMO_RANKS, 6)))
TOY = Size((Share("toy", str(DEMO), DEMO_RANKS, 2, ("model.patchSize=10",)),))


@dataclass(frozen=True)
class Measured:
    """CPU seconds of blocks with and without telemetry, of reports without and with a read-out, of
    telemetry's own threads in a second, and of answering a scrape; and the wall time of a scrape.
    """

    blocks: Times
    reports: list[float]
    readouts: list[float]
    threads: float
    answer: float
    scrape: float

    def reporting(self, log_every: int) -> float:
        """Returns the mean seconds of a step's report where every so many steps are read out."""
        return fmean(self.reports) + (fmean(self.readouts) - fmean(self.reports)) / log_every


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Measures blocks of steps in turn, for one share after another."""
    columns, findings = [], []
    for share in size.shares:
        progress(f"{share.name}: {share.rounds} rounds of {BLOCK} steps with and without")
        with tempfile.TemporaryDirectory() as folder:
            run = share.run(folder)
            pictures = run.spec.global_batch_size // share.ranks
            measured = share.run(folder, f"logEverySteps={READ_EVERY}")
            got = on_ranks(1, _measure_quietly, measured, pictures, share.rounds)
        log_every = run.spec.training.log_every_steps
        steps = [seconds / BLOCK for seconds in got.blocks.seconds[WITHOUT]]
        aside = got.threads + got.answer / SCRAPE_EVERY_S
        least, of_a_step, most = (
            got.reporting(log_every) / step + aside
            for step in (max(steps), median(steps), min(steps))
        )
        columns.append(
            (
                f"{share.name}: {pictures} pictures",
                milliseconds(median(steps)),
                milliseconds(got.blocks.typical(WITH) / BLOCK),
                milliseconds(fmean(got.reports)),
                f"{milliseconds(median(got.readouts))} ({milliseconds(max(got.readouts))})",
                str(log_every),
                milliseconds(got.reporting(log_every)),
                f"{got.threads:.3%}",
                milliseconds(got.answer),
                milliseconds(got.scrape),
                f"**{of_a_step:.2%}**",
            )
        )
        ratios = got.blocks.ratios(WITH, WITHOUT)
        findings.append(
            f"{share.name}: **{of_a_step:.2%}** of a step ({least:.2%} of the slowest, {most:.2%} "
            f"of the fastest). Target: under {MAX_SHARE_OF_STEP:.1%}: "
            f"{'met' if of_a_step < MAX_SHARE_OF_STEP else 'missed'}. The blocks as a whole differ "
            f"by {min(ratios) - 1:+.1%} to {max(ratios) - 1:+.1%}, which is the noise of two "
            "blocks that do the same."
        )
    names = (
        "",
        "a step without telemetry",
        "a step with it",
        "a report without a read-out",
        "one with it (with the logit)",
        "steps a read-out",
        "reports, a step",
        "threads of server and store, of a second",
        "answering a scrape",
        "a scrape as the scraper sees it, wall time",
        f"all, with a scrape every {SCRAPE_EVERY_S} s, of a step",
    )
    header, *rows = zip(names, *columns, strict=True)
    return Result(
        "The cost of telemetry",
        f"Blocks of {BLOCK} steps on one rank's share of the pictures, with `StepReporter` and "
        "`Telemetry` and without: status and history are written to a local store, and every "
        f"{READ_EVERY} steps are read out, which is then counted as often as in the run (the mean, "
        f"as the attention logit comes with few of them). Then {SCRAPES} scrapes of `/metrics` and "
        "`/status` by another process. CPU time.",
        header,
        rows,
        findings,
    )


def _measure_quietly(ranks: Ranks, run: ArlowPretrain, pictures: int, rounds: int) -> Measured:
    """Measures with the run's log lines written to nowhere."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return _measure(ranks, run, pictures, rounds)


def _measure(ranks: Ranks, run: ArlowPretrain, pictures: int, rounds: int) -> Measured:
    training = run.spec.training
    port = free_port()
    store = Store(run.run_url)
    events = EventLog(store)
    options = TrainOptions(port=port, live=False, log_format="json")
    telemetry = Telemetry(run, 0, 1, telemetry_options(run, options, ranks, store, events))
    engine = initialize_engine(build_autoencoder(training), training, "fp32", ranks.device)
    runner = StepRunner(engine, training, pictures, total_steps=10_000)
    guard = FiniteGuard(runner, ranks, telemetry.lost_step)
    reporter = StepReporter(
        run, telemetry, runner, ranks, Progress(), total_steps=10_000, samples=10_000
    )
    samples = micro_batch(run, pictures)
    telemetry.phase("training")
    step = 0
    reports: list[float] = []

    def one_step() -> None:
        nonlocal step
        applied = runner.step(step, [samples])
        guard.after_step(step, applied, [samples])
        step += 1

    def with_telemetry() -> None:
        reporter.start()
        for _ in range(BLOCK):
            one_step()
            start = time.thread_time()
            reporter.after_step(StepBatch(step - 1, [samples], []))
            reports.append(time.thread_time() - start)

    def without() -> None:
        for _ in range(BLOCK):
            one_step()

    start, before = WALL(), _threads_cpu()
    (blocks,) = side_by_side({WITH: with_telemetry, WITHOUT: without}, rounds, (CPU,))
    threads = (_threads_cpu() - before) / (WALL() - start)
    answer, scrape = _scraped(port)
    telemetry.close()
    events.close()
    warm = reports[BLOCK:]
    plain = [seconds for number, seconds in enumerate(warm, 1) if number % READ_EVERY]
    readouts = warm[READ_EVERY - 1 :: READ_EVERY]
    return Measured(blocks, plain, readouts, threads, answer, scrape)


def _threads_cpu() -> float:
    """Returns the CPU seconds of Python's other threads, which are telemetry's."""
    others = {thread.ident for thread in threading.enumerate() if thread.ident is not None}
    others.remove(threading.get_ident())
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in others)


def _scraped(port: int) -> tuple[float, float]:
    """Returns the CPU seconds of answering a scrape, and the scraper's median wall time."""
    context = multiprocessing.get_context("spawn")
    pipe, end = context.Pipe()
    scraper = context.Process(target=_scrape, args=(port, end), daemon=True)
    scraper.start()
    pipe.recv()
    start = CPU()
    pipe.send("go")
    seconds = pipe.recv()
    answer = (CPU() - start) / SCRAPES
    scraper.join()
    return answer, median(seconds)


def _scrape(port: int, pipe: Connection) -> None:
    """Says that it is there, waits for the word, and sends the wall times of scrapes."""
    pipe.send("ready")
    pipe.recv()
    seconds = []
    for _ in range(SCRAPES):
        start = WALL()
        for path in ("metrics", "status"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
                answer.read()
        seconds.append(WALL() - start)
    pipe.send(seconds)
