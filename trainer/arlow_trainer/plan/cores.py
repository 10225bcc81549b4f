"""The cores of a rank, divided between torch's threads and its decoding processes."""

from __future__ import annotations

from dataclasses import dataclass

# On a CPU, training on a picture takes 15 to 50 times as long as decoding it.
_CPU_CORES_A_WORKER = 8


@dataclass(frozen=True)
class Cores:
    """How a rank uses its cores: torch's threads, the rank's own among them, and processes."""

    threads: int
    workers: int


def share_cores(
    cores: float, ranks_here: int, *, gpu: bool, workers: int | None, most_threads: int | None
) -> Cores:
    """Divides a machine's cores among its ranks, and a rank's between threads and processes.

    Threads and processes together are the rank's cores, unless that leaves none of either.

    Args:
        cores: what all ranks together may use.
        ranks_here: the ranks that share them.
        gpu: whether ranks compute on GPUs. Their own thread is then enough for torch, and the rest
            decodes; on a CPU it is the computing that takes the time.
        workers: decoding processes of a rank, where the run says how many.
        most_threads: torch's threads, where the user bounds them (OMP_NUM_THREADS).
    """
    share = max(1, int(cores) // ranks_here)
    if workers is None:
        workers = max(1, share - 1 if gpu else share // _CPU_CORES_A_WORKER)
    threads = max(1, share - workers)
    return Cores(threads if most_threads is None else min(threads, most_threads), workers)
