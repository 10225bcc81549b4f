"""The device of a rank: its name, memory and peak arithmetic rate, and running out of memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from arlow_trainer.config import Precision
from arlow_trainer.config.errors import DeviceMemoryError
from arlow_trainer.plan.hardware import hardware_of_device
from arlow_trainer.plan.memory import cpu_rank_memory

MATMUL_SIDE, MATMUL_RUNS = 1024, 5


@contextmanager
def explain_out_of_memory(needed_for: str) -> Iterator[None]:
    """Turns torch's out-of-memory error into a DeviceMemoryError.

    `needed_for` says what the memory was needed for, e.g. "a micro-batch of 8 samples".
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise out_of_memory(str(error), needed_for) from error


def out_of_memory(message: str, needed_for: str) -> DeviceMemoryError:
    """Returns the error to raise for torch's message; else as in `explain_out_of_memory`."""
    return DeviceMemoryError(
        f"the device has too little memory for {needed_for}: {message.splitlines()[0]} Set "
        "training.batch.microBatch lower than it is, or training.gradientCheckpointing to true; "
        "the run continues from its newest checkpoint"
    )


def device_name(device: torch.device) -> str:
    """Returns a GPU's name as its driver gives it, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def device_memory(device: torch.device, ranks: int) -> int:
    """Returns the bytes that a rank may use; CPU ranks share the machine's memory.

    Of a GPU, without what other processes and this one's CUDA context have taken.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device)
    return cpu_rank_memory(_machine_memory(), ranks)


def _machine_memory() -> int:
    """Returns the machine's memory, or what the container may use of it."""
    total = int(psutil.virtual_memory().total)
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return total if text == "max" else min(total, int(text))


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Returns the peak FLOP/s of one device: a GPU's from the hardware table (None where it is not
    in it), a CPU rank's measured on a matrix product with the threads it has."""
    if device.type == "cuda":
        hardware = hardware_of_device(device_name(device))
        return hardware.peak_flops.get(precision) if hardware else None
    matrix = torch.rand(MATMUL_SIDE, MATMUL_SIDE)
    torch.mm(matrix, matrix)
    times = []
    for _ in range(MATMUL_RUNS):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - start)
    return 2 * MATMUL_SIDE**3 / min(times)
