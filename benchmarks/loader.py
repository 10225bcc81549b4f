"""The loader's pictures a second and core, against decoding and cropping them in a bare loop."""

from __future__ import annotations

import math
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from arlow_trainer.data import StepLoader, open_source

from .result import Result
from .samples import PICTURE_SIZE, build_run, write_jpegs
from .timing import WALL, side_by_side

MIN_RATIO_TO_BARE = 0.9
OURS, BARE = "`StepLoader`, one decoding process", "bare loop"
IMAGE_SIZE = 224
# At least as many steps as the loader is ahead: four, one that waits, one that is filled, and those
# of its processes' three jobs.
STEPS_AHEAD = 10


@dataclass(frozen=True)
class Size:
    """What is measured."""

    files: int = 96
    micro_batch: int = 32
    steps: int = 12
    rounds: int = 7


FULL = Size()
TOY = Size(files=8, micro_batch=4, steps=2, rounds=2)


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Measures both on one core, which the loader's two processes share."""
    images = size.micro_batch * size.steps
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        with tempfile.TemporaryDirectory() as folder:
            paths = write_jpegs(Path(folder) / "pictures", size.files)
            run = build_run(
                "tiny",
                {
                    "data": {
                        "images": {"path": str(paths[0].parent)},
                        "videoProbability": 0.0,
                        "imageSize": IMAGE_SIZE,
                    },
                    "model": {"patchSize": 14},
                },
            )
            training = run.spec.training
            batches = iter(
                StepLoader(
                    training,
                    {"image": open_source(training.data.images, "image")},
                    global_batch_size=size.micro_batch,
                    rank=0,
                    ranks=1,
                    micro_batch=size.micro_batch,
                    workers=1,
                    start_step=0,
                )
            )

            def ours() -> None:
                for _ in range(size.steps):
                    next(batches)

            draw = random.Random(0)
            chosen = [paths[i % len(paths)] for i in range(images)]
            # The loader decodes ahead: neither at the bare loop's cost nor for nothing.
            work = {
                "steady again": lambda: [next(batches) for _ in range(STEPS_AHEAD)],
                OURS: ours,
                "decoded ahead": wait_for_children,
                BARE: lambda: decode_all(chosen, draw, size),
            }
            try:
                wall, cpu = side_by_side(work, size.rounds, (WALL, cpu_of_all), progress)
            finally:
                batches.close()
            file_bytes = sum(path.stat().st_size for path in paths) // len(paths)
    finally:
        os.sched_setaffinity(0, allowed)
    # As rates, so that more is better.
    ratio, wall_ratio = cpu.ratio(BARE, OURS), wall.ratio(BARE, OURS)
    return Result(
        "The loader",
        f"Photographs of scikit-image and scikit-learn as JPEG of {PICTURE_SIZE[0]} x "
        f"{PICTURE_SIZE[1]}, {file_bytes // 1000} kB each, from the page cache to uint8 "
        f"micro-batches of {size.micro_batch} pictures of {IMAGE_SIZE} px. `StepLoader` runs with "
        "one decoding process, and both its processes are held to one core. The bare loop: "
        "Pillow's decode, random resized crop, bicubic resize, flip, into an array, on the same "
        "core in one process; without choice, dealing, processes or error handling.",
        ("images/s a core", "by CPU time", "fastest round", "by wall time"),
        [
            (
                name,
                f"{images / cpu.typical(name):.0f}",
                f"{images / cpu.least(name):.0f}",
                f"{images / wall.typical(name):.0f}",
            )
            for name in (OURS, BARE)
        ],
        [
            f"Loader over bare loop: **{ratio:.3f}** by the CPU time of all its processes, "
            f"{wall_ratio:.3f} by wall time. Target: at least {MIN_RATIO_TO_BARE}: "
            f"{'met' if ratio >= MIN_RATIO_TO_BARE else 'missed'}."
        ],
    )


def cpu_of_all() -> float:
    """Returns the CPU seconds of this process and its children so far."""
    processes = [psutil.Process(), *psutil.Process().children()]
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)


def wait_for_children() -> None:
    """Returns when no process of ours computes any more."""
    before = -1.0
    while (spent := cpu_of_all()) != before:
        before = spent
        time.sleep(0.3)


def decode_all(paths: Sequence[Path], draw: random.Random, size: Size) -> None:
    """Decodes, crops, resizes and flips pictures into micro-batches."""
    batch = np.empty((size.micro_batch, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for place, path in enumerate(paths):
        with Image.open(path) as file:
            picture = file.convert("RGB")
        view = picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC, crop(draw))
        if draw.random() < 0.5:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        batch[place % size.micro_batch] = np.asarray(view)


def crop(draw: random.Random) -> tuple[int, int, int, int]:
    """Draws the box of a random resized crop, of 0.2 to 1 of the picture's area."""
    width, height = PICTURE_SIZE
    while True:
        area = width * height * draw.uniform(0.2, 1)
        ratio = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            left, top = draw.randint(0, width - w), draw.randint(0, height - h)
            return left, top, left + w, top + h
