"""A rank's cores: what it may use, and how torch's threads and the processes share it."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from arlow_trainer.plan.cores import Cores, share_cores
from arlow_trainer.run.cores import cgroup_cores, threads_asked, usable_cores


@pytest.mark.parametrize(
    ("cores", "ranks", "gpu", "workers", "most", "threads", "processes"),
    [
        # GPUs: one thread launches, the rest decodes.
        (16, 1, True, None, None, 1, 15),
        (64, 8, True, None, None, 1, 7),
        (16, 1, True, None, 16, 1, 15),
        (16, 1, True, 4, None, 12, 4),
        (16, 1, True, 4, 1, 1, 4),
        (8, 8, True, None, None, 1, 1),
        (4, 8, True, None, None, 1, 1),
        # CPUs: the most computes.
        (2, 1, False, None, None, 1, 1),
        (16, 1, False, None, None, 14, 2),
        (64, 2, False, None, 8, 8, 4),
        (16, 1, False, 0, None, 16, 0),
        (16, 1, False, 40, None, 1, 40),
        (0.5, 1, False, None, None, 1, 1),
        (3.9, 1, True, None, None, 1, 2),
    ],
)
def test_threads_and_processes_together_are_the_ranks_cores(
    cores: float,
    ranks: int,
    gpu: bool,
    workers: int | None,
    most: int | None,
    threads: int,
    processes: int,
) -> None:
    shared = share_cores(cores, ranks, gpu=gpu, workers=workers, most_threads=most)
    assert shared == Cores(threads, processes)
    if workers is None and cores / ranks >= 2:
        assert threads + processes <= cores / ranks


@pytest.mark.parametrize(
    ("environment", "asked"),
    [(None, None), ("", None), ("4", 4), (" 4 ", 4), ("4,2", 4), ("0", None), ("-1", None),
     ("many", None), ("²", None)],
)  # fmt: skip
def test_omp_num_threads_is_a_bound(environment: str | None, asked: int | None) -> None:
    assert threads_asked(environment) == asked


def test_affinity_bounds_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert 0 < usable_cores() <= 1
    finally:
        os.sched_setaffinity(0, allowed)
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert 0 < usable_cores() <= (os.cpu_count() or 1)


V2, V1 = "0::{}\n", "3:cpuset:/x\n2:cpu,cpuacct:{}\n1:name=systemd:/y\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        (V2.format("/"), {}, math.inf),
        (V2.format("/"), {"cpu.max": "max 100000"}, math.inf),
        (V2.format("/"), {"cpu.max": "250000 100000"}, 2.5),
        (V2.format("/a/b"), {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),
        (V2.format("/a/b"), {"a/b/cpu.max": "100000 100000", "a/cpu.max": "400000 100000"}, 1),
        # A container sees its group as the root.
        (V2.format("/kubepods/pod1"), {"cpu.max": "300000 100000"}, 3),
        (V2.format("/"), {"cpu.max": "damaged"}, math.inf),
        (
            V1.format("/a"),
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "150000\n",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            1.5,
        ),
        (
            V1.format("/docker/1"),
            {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
            2,
        ),
        (
            V1.format("/a"),
            {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"},
            math.inf,
        ),
        ("", {"cpu.max": "100000 100000"}, math.inf),
    ],
)
def test_control_groups_bound_the_cores(
    own: str, files: dict[str, str], cores: float, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cgroup_cores(tmp_path, own) == cores
