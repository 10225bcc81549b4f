"""The cores that this process may use, and the threads that its user asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores() -> float:
    """Returns the cores that this process may use, by affinity and by its control groups."""
    # macOS has no affinity.
    affine = getattr(os, "sched_getaffinity", None)
    cores = float(len(affine(0)) if affine is not None else os.cpu_count() or 1)
    own = _OWN_CGROUP.read_text() if _OWN_CGROUP.is_file() else ""
    return min(cores, cgroup_cores(_CGROUPS, own))


def threads_asked(environment: str | None) -> int | None:
    """Returns the bound that OMP_NUM_THREADS sets; None where it is unset or no number."""
    first = (environment or "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def cgroup_cores(mount: Path, own: str) -> float:
    """Returns the cores that control groups allow, infinity without a limit.

    A process has the least of its group's limit and those above it. A container may see its own
    group as the root, under whatever name the machine has for it.

    Args:
        mount: where control groups are mounted.
        own: /proc/self/cgroup, a line `<number>:<controllers>:<path>` for each hierarchy.
    """
    limits = [math.inf]
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += [_limit_v2(group) for group in _groups(mount, path)]
        elif "cpu" in controllers.split(","):
            limits += [_limit_v1(group) for group in _groups(mount / controllers, path)]
            limits += [_limit_v1(group) for group in _groups(mount / "cpu", path)]
    return min(limits)


def _groups(root: Path, path: str) -> Iterator[Path]:
    inside = PurePosixPath(path).relative_to("/")
    yield root
    yield from (root / group for group in (inside, *inside.parents))


def _limit_v2(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def _limit_v1(group: Path) -> float:
    try:
        quota, period = (
            int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")
        )
        return quota / period if quota > 0 else math.inf
    except (OSError, ValueError):
        return math.inf
