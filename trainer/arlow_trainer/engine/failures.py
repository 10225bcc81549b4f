"""Failures of CUDA and NCCL in words: they are no defects of this program, and name no remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from arlow_trainer.config.errors import ArlowError, DeviceMemoryError, ProcessKilled

_LOST = re.compile(r"remote process exited|ncclRemoteError|by peer", re.IGNORECASE)
_LIBRARY_MEMORY = re.compile(r"(CUBLAS|CUDNN|CUSOLVER)_STATUS_ALLOC_FAILED")
_SHARED_MEMORY = re.compile(r"/dev/shm|shared memory|No space left on device")


@contextmanager
def explain_device_failures() -> Iterator[None]:
    """Turns errors of CUDA and NCCL that have a remedy into ArlowErrors that name it.

    torch's own out-of-memory error is `explain_out_of_memory`'s.
    """
    try:
        yield
    except RuntimeError as error:
        explained = explained_failure(str(error))
        if explained is None:
            raise
        raise explained from error


def explained_failure(text: str) -> ArlowError | None:
    """Returns the error to raise for a RuntimeError's text; None where it is none of these.

    An error of NCCL that only says that another rank is lost is none: that rank's is the reason.
    """
    nccl = "NCCL" in text
    brief = _brief(text)
    if nccl and _LOST.search(text):
        return None
    if _LIBRARY_MEMORY.search(text) or (nccl and "out of memory" in text):
        return DeviceMemoryError(
            f"a library of CUDA found no memory on the device: {brief}. Set "
            "training.batch.microBatch lower than it is; the run continues from its newest "
            "checkpoint"
        )
    if nccl and _SHARED_MEMORY.search(text):
        return ArlowError(
            f"NCCL found no shared memory for the ranks of this machine: {brief}. Make /dev/shm "
            "larger, 2 GB or more (in a pod: spec.nodes.sharedMemory; in Docker: --shm-size)"
        )
    if nccl:
        return ArlowError(
            f"the GPUs cannot exchange data: {brief}. NCCL_DEBUG=INFO says more; where they do not "
            "reach each other's memory (IOMMU, ACS), NCCL_P2P_DISABLE=1 goes around it"
        )
    if "CUDA error: out of memory" in text or "cudaHostAlloc" in text:
        return ProcessKilled(
            f"CUDA cannot lock memory of this machine: {brief}. Give the machine or pod more "
            "memory (the limit of locked memory, ulimit -l, counts too), or lower data.workers; "
            "the run continues from its newest checkpoint"
        )
    return None


def _brief(text: str) -> str:
    """Returns the first line, and what NCCL calls its last error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "no text"
    last = [after for line, after in pairwise(lines) if "Last error" in line]
    return "; ".join([lines[0].rstrip(".,"), *last])[:400]
