"""Seeded faults over tiny runs; ends with a table, and with 1 where anything is wrong."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

# Before torch is imported; the runs inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from training_runs import Media

from arlow_trainer.storage.store import Store
from support.s3_server import S3, running_s3

from ..result import say
from .faults import GRACE_S, RunPlan, Shape, plan_runs
from .page import Soak, commit, to_lines, to_markdown, write_between_markers
from .proxy import FaultyProxy, faulty_proxy
from .runs import SoakRun, Weights, write_media
from .supervisor import Row, Supervisor

MAX_EXTRA_RUNS = 4
"""A run may be done before it has met all its faults; others are made for those."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="other faults, in another order")
    parser.add_argument("--faults", type=int, default=60, help="how many (60)")
    parser.add_argument(
        "--out", type=Path, help="write the table between the markers of this page, too"
    )
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="arlow-soak-"))
    began, load, checked_out = time.monotonic(), os.getloadavg()[0], commit()
    rows, problems, runs, attempts = soak(folder, plan_runs(options.seed, options.faults))
    result = Soak(
        checked_out,
        options.seed,
        rows,
        problems,
        runs,
        attempts,
        time.monotonic() - began,
        _cpu_seconds(),
        (load, os.getloadavg()[0]),
    )
    print("\n".join(to_lines(rows)))
    if options.out is not None:
        write_between_markers(options.out, to_markdown(result))
    minutes = result.seconds / 60
    print(f"{len(rows)} faults, {runs} runs, {attempts} attempts, {minutes:.1f} minutes")
    if problems or len(rows) != options.faults:
        print("\n".join(f"PROBLEM: {problem}" for problem in problems))
        raise SystemExit(f"soak: not as it must be; logs and stores are left in {folder}")
    print("all weights are those of runs that were never cut")
    shutil.rmtree(folder)


def soak(folder: Path, plans: list[RunPlan]) -> tuple[list[Row], list[str], int, int]:
    """Carries runs out; returns the faults' rows, the problems, the runs and their attempts."""
    rows: list[Row] = []
    problems: list[str] = []
    attempts = runs = 0
    media = write_media(folder / "media")
    references: dict[int, Weights] = {}
    waiting, most = list(plans), len(plans) + MAX_EXTRA_RUNS
    total = sum(len(plan.faults) for plan in plans)
    with ExitStack() as stack:
        server = stack.enter_context(running_s3(folder / "s3"))
        proxy = stack.enter_context(faulty_proxy(server.endpoint))
        while waiting and runs < most:
            plan = waiting.pop(0)
            shape = plan.shape
            if shape.ranks not in references:
                say("soak", f"a run that is never cut, ranks: {shape.ranks}")
                references[shape.ranks] = never_cut(folder, media, shape.ranks)
            runs += 1
            say("soak", f"run {runs}: {shape}, {len(plan.faults)} faults")
            run = make_run(folder / f"run-{runs}", media, shape, server, proxy)
            met = len(rows)
            supervisor = Supervisor(
                runs,
                run,
                proxy if shape.remote else None,
                references[shape.ranks],
                shown(met, total),
            )
            outcome = supervisor.work(plan.faults)
            rows += outcome.rows
            problems += outcome.problems
            attempts += outcome.attempts
            if outcome.left:
                waiting.append(RunPlan(shape, outcome.left))
    left = sum(len(plan.faults) for plan in waiting)
    if left:
        problems.append(f"{left} faults were not met in {runs} runs")
    return rows, problems, runs, attempts


def shown(before: int, total: int) -> Callable[[str], None]:
    """Returns what shows a run's faults with their number among all."""
    began, count = time.monotonic(), [before]

    def show(words: str) -> None:
        count[0] += not words.startswith("PROBLEM")
        say(f"[{count[0]}/{total}] {time.monotonic() - began:.0f} s", words)

    return show


def make_run(folder: Path, media: Media, shape: Shape, server: S3, proxy: FaultyProxy) -> SoakRun:
    """Returns a new run of a shape, in a bucket behind the proxy or in a folder."""
    if not shape.remote:
        url = str(folder / "runs")
        return SoakRun(folder, media, shape, url, Store(f"{url}/small"), {})
    url = server.url(folder.name)
    environment = server.environment | {"AWS_ENDPOINT_URL": proxy.endpoint}
    return SoakRun(folder, media, shape, url, Store(f"{url}/small", server.options), environment)


def never_cut(folder: Path, media: Media, ranks: int) -> Weights:
    """Returns the weights of a run that nothing disturbed. Raises SystemExit where that fails."""
    folder = folder / f"never-cut-{ranks}"
    url = str(folder / "runs")
    shape = Shape(remote=False, ranks=ranks, workers=0)
    run = SoakRun(folder, media, shape, url, Store(f"{url}/small"), {})
    attempt = run.start(GRACE_S)
    try:
        while attempt.alive:
            time.sleep(0.1)
        ended = attempt.ended()
    finally:
        attempt.kill()
    if ended.code:
        raise SystemExit(f"soak: a run that is never cut ended with {ended.code}:\n{ended.log}")
    return run.weights()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
