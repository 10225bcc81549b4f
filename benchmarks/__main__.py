"""`python -m benchmarks`: every benchmark in turn, and a page of what came out."""

from __future__ import annotations

import argparse
import os
import time
from functools import partial
from importlib import import_module
from pathlib import Path

# Before torch is imported; ranks and decoding processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from .result import FLEET_HEAD, GPU_HEAD, HEAD, page, say

GPU_BENCHMARKS = ("gpu_ladder", "gpu_steps", "gpu_run")
# Modules, each with a `measure` and its sizes `FULL` and `TOY`.
BENCHMARKS = (
    *("tower", "step", "loader", "wait", "checkpoint", "start", "counts", "telemetry", "pictures"),
    "fleet",
    *GPU_BENCHMARKS,
)
# It fills a disk with gigabytes first.
WITH_OWN_PAGE = ("fleet",)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, help="run these alone; `fleet` runs only so"
    )
    parser.add_argument("--toy", action="store_true", help="sizes that only show that it runs")
    parser.add_argument("--out", type=Path, help="write the page to this file, too")
    parser.add_argument("--note", default="", help="a paragraph for the page: how it was taken")
    options = parser.parse_args()
    if not set(options.only or BENCHMARKS) <= set(GPU_BENCHMARKS):
        # All others are for CPUs.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    load_before = os.getloadavg()[0]
    chosen = options.only or [name for name in BENCHMARKS if name not in WITH_OWN_PAGE]
    results = []
    for number, name in enumerate(chosen, start=1):
        start = time.perf_counter()
        show = partial(say, f"[{number}/{len(chosen)}] {name}")
        benchmark = import_module(f".{name}", __package__)
        results.append(benchmark.measure(benchmark.TOY if options.toy else benchmark.FULL, show))
        show(f"done in {time.perf_counter() - start:.0f} s")
        print(results[-1].to_markdown(), flush=True)
    head = FLEET_HEAD if set(chosen) <= set(WITH_OWN_PAGE) else HEAD
    head = GPU_HEAD if set(chosen) <= set(GPU_BENCHMARKS) else head
    text = page(head, results, load_before, options.note)
    if options.out is not None:
        options.out.write_text(text)
        print(f"written to {options.out}")


if __name__ == "__main__":
    main()
