"""What a rank spends on its samples, and waits for them, whatever OMP_NUM_THREADS says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, count, tee
from pathlib import Path
from statistics import median

import torch
from torch.utils.data import DataLoader

from arlow_trainer.config import TrainingSection
from arlow_trainer.data import StepLoader, deal, open_source, token_costs
from arlow_trainer.data.decode import Source
from arlow_trainer.data.decoder import Decoder, Job, share_slots
from arlow_trainer.plan.cores import share_cores
from arlow_trainer.plan.micro_batches import micro_batch_sizes
from arlow_trainer.run.cores import threads_asked, usable_cores

from .loader import wait_for_children
from .result import Result, milliseconds
from .samples import FILM_SIZE, PICTURE_SIZE, build_run, write_films, write_jpegs

PLAIN, OURS = "copied by torch on the rank's thread", "`StepLoader`"
OTHER_WORK_S = 1.5
MAX_WAIT = 0.01
JOBS_AHEAD = 3
MICRO_BATCH = 96


@dataclass(frozen=True)
class Size:
    """What is measured."""

    files: int = 96
    films: int = 16
    film_frames: int = 120
    small: int = 32
    large: int = 256
    steps: int = 10
    large_steps: int = 3
    settings: tuple[str, ...] = ("unset", "1", "all")


FULL = Size()
TOY = Size(
    files=8, films=2, film_frames=20, small=4, large=8, steps=2, large_steps=1, settings=("1",)
)


@dataclass(frozen=True)
class Measured:
    """Seconds a step: of this process's CPUs, of its main thread alone, of `next`."""

    cpu: float
    own: float
    wait: float


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Measures both loaders under every setting, in processes of their own."""
    rows, waits = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jpegs(folder / "images", size.files)
        write_films(folder / "videos", size.films, size.film_frames)
        for batch, steps in ((size.small, size.steps), (size.large, size.large_steps)):
            for way in (PLAIN, OURS):
                for setting in size.settings:
                    progress(f"{batch} samples, {way}, OMP_NUM_THREADS {setting}")
                    got = _in_a_process(folder, batch, steps, way, setting, batch == size.large)
                    rows.append(
                        (
                            f"{batch} samples, OMP_NUM_THREADS {setting}, {way}",
                            milliseconds(got.cpu),
                            milliseconds(got.own),
                            milliseconds(got.wait),
                        )
                    )
                    if way == OURS:
                        waits.append(got.wait / OTHER_WORK_S)
    most = max(waits)
    return Result(
        "Waiting for samples",
        f"Steps of 3 images to a clip on one rank: JPEG of {PICTURE_SIZE[0]} x {PICTURE_SIZE[1]}, "
        f"MPEG-4 films of {FILM_SIZE[0]} x {FILM_SIZE[1]}, clips of 16 frames, 224 px; with the "
        "defaults 32 samples are a rank's share of eight, 256 the only rank's. `StepLoader` with "
        "threads and processes as a run on a GPU divides the cores, and a plain loop: as many "
        "decoding processes as cores, torch's threads as OMP_NUM_THREADS says, each sample copied "
        "by torch on the rank's thread, three jobs a process ahead. CPU seconds of the rank's "
        f"process back to back; then the wait in `next` after {OTHER_WORK_S} s of sleep, or, with "
        f"{size.large} samples, which these cores cannot decode in that time, after the decoding "
        "processes have come to rest. Medians.",
        ("a step", "CPU of the rank", "CPU of its main thread", "wait"),
        rows,
        [
            f"`StepLoader` waits at most **{most:.2%}** of {OTHER_WORK_S} s. Target: under "
            f"{MAX_WAIT:.0%}: {'met' if most < MAX_WAIT else 'missed'}."
        ],
    )


def _in_a_process(
    folder: Path, batch: int, steps: int, way: str, setting: str, rest: bool
) -> Measured:
    environment = {key: text for key, text in os.environ.items() if key != "OMP_NUM_THREADS"}
    if setting != "unset":
        every = len(os.sched_getaffinity(0))
        environment["OMP_NUM_THREADS"] = str(every) if setting == "all" else setting
    command = [sys.executable, "-m", "benchmarks.wait", str(folder), str(batch), str(steps), way]
    command.append("rest" if rest else "sleep")
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Measured(**json.loads(done.stdout))


def main(folder: str, batch: str, steps: str, way: str, before: str) -> None:
    """Measures one loader in this process and prints it as JSON."""
    data = {
        "images": {"path": f"{folder}/images"},
        "videos": {"path": f"{folder}/videos"},
        "videoProbability": 0.25,
    }
    run = build_run("arlow-vision-3072", {"data": data, "batch": {"globalSize": int(batch)}})
    training = run.spec.training
    sources: dict[str, Source] = {
        "image": open_source(training.data.images, "image"),
        "video": open_source(training.data.videos, "video"),
    }
    if way == OURS:
        asked = threads_asked(os.environ.get("OMP_NUM_THREADS"))
        cores = share_cores(usable_cores(), 1, gpu=True, workers=None, most_threads=asked)
        torch.set_num_threads(cores.threads)
        batches: Iterator[object] = iter(
            StepLoader(
                training,
                sources,
                global_batch_size=int(batch),
                rank=0,
                ranks=1,
                micro_batch=MICRO_BATCH,
                workers=cores.workers,
                start_step=0,
            )
        )
    else:
        batches = plain_loader(training, sources, int(batch), max(1, int(usable_cores())))
    print(json.dumps(asdict(_measure(batches, int(steps), before == "sleep"))), flush=True)
    # Without the libraries' and processes' own ways out.
    os._exit(0)


def _measure(batches: Iterator[object], steps: int, sleeps: bool) -> Measured:
    for _ in range(6 if sleeps else 2):
        next(batches)
    cpu, own, waits = time.process_time(), time.thread_time(), []
    for _ in range(steps):
        next(batches)
    cpu, own = time.process_time() - cpu, time.thread_time() - own
    for _ in range(steps):
        if sleeps:
            time.sleep(OTHER_WORK_S)
        else:
            wait_for_children()
        start = time.perf_counter()
        next(batches)
        waits.append(time.perf_counter() - start)
    return Measured(cpu / steps, own / steps, median(waits))


def plain_loader(
    training: TrainingSection, sources: dict[str, Source], batch: int, workers: int
) -> Iterator[list[torch.Tensor]]:
    """Yields a step's micro-batches, each sample copied by torch in the thread that asks."""
    decoder = Decoder(training.data, sources, training.seed, slots=JOBS_AHEAD * workers + 1)
    costs = token_costs(training.data, training.model)
    sizes = micro_batch_sizes(training, batch, 1, MICRO_BATCH)
    share_slots(decoder.slots)
    shares = (
        deal([decoder.choose(step * batch + i) for i in range(batch)], costs, 1, sizes)[0]
        for step in count()
    )
    for_jobs, for_steps = tee(shares)
    jobs = chain.from_iterable(decoder.cut(list(chain(*share))) for share in for_jobs)
    decoded = DataLoader(
        decoder,
        batch_size=None,
        sampler=(Job(number % len(decoder.slots), job) for number, job in enumerate(jobs)),
        num_workers=workers,
        prefetch_factor=JOBS_AHEAD,
        multiprocessing_context="spawn",
    )
    rows = (row for done in decoded for row in decoder.frames_of(done.job))
    for share in for_steps:
        step = []
        for plan in share:
            frames = torch.empty(
                (len(plan), *decoder.sample_shape(plan[0].modality)), dtype=torch.uint8
            )
            for sample in frames:
                sample.copy_(next(rows))
            step.append(frames)
        yield step


if __name__ == "__main__":
    main(*sys.argv[1:])
