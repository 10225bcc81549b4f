"""Failures of CUDA and NCCL: each has words and an exit code of its own."""

from __future__ import annotations

import pytest

from arlow_trainer.config.errors import (
    ArlowError,
    DeviceMemoryError,
    ExitCode,
    ProcessKilled,
)
from arlow_trainer.engine.failures import explain_device_failures, explained_failure

NCCL = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, {kind}, NCCL version "
    "2.29.3\n{what}\nLast error:\n{last}"
)
SHARED = NCCL.format(
    kind="unhandled system error (run with NCCL_DEBUG=INFO for details)",
    what="ncclSystemError: System call (e.g. socket, malloc) or external library call failed.",
    last="Error while creating shared memory segment /dev/shm/nccl-aBc (size 9637888), error: No "
    "space left on device (28)",
)
MEMORY = NCCL.format(
    kind="unhandled cuda error",
    what="ncclUnhandledCudaError: Call to CUDA function failed.",
    last="Cuda failure 2 'out of memory'",
)
OTHER = NCCL.format(
    kind="unhandled system error", what="ncclSystemError: x", last="socket: Connection refused"
)
LOST = NCCL.format(
    kind="remote process exited or there was a network error",
    what="ncclRemoteError: A call failed possibly due to a network error or a remote process",
    last="socketPollConnect",
)
HOST = "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


@pytest.mark.parametrize(
    ("text", "kind", "code", "words"),
    [
        (SHARED, ArlowError, ExitCode.INTERNAL, ["/dev/shm", "sharedMemory", "No space left"]),
        (OTHER, ArlowError, ExitCode.INTERNAL, ["Connection refused", "NCCL_P2P_DISABLE=1"]),
        (MEMORY, DeviceMemoryError, ExitCode.OUT_OF_MEMORY, ["out of memory", "microBatch"]),
        (CUBLAS, DeviceMemoryError, ExitCode.OUT_OF_MEMORY, ["CUBLAS_STATUS_ALLOC_FAILED"]),
        (HOST, ProcessKilled, ExitCode.KILLED, ["cannot lock memory", "ulimit -l"]),
    ],
)
def test_words(text: str, kind: type[ArlowError], code: ExitCode, words: list[str]) -> None:
    found = explained_failure(text)
    assert type(found) is kind
    assert found.exit_code is code
    for word in words:
        assert word in str(found)


@pytest.mark.parametrize("text", [LOST, "", "Expected all tensors on one device", "by peer"])
def test_no_words_for_others(text: str) -> None:
    assert explained_failure(text) is None
    with pytest.raises(RuntimeError) as raised, explain_device_failures():
        raise RuntimeError(text)
    assert str(raised.value) == text


def test_the_cause_is_kept() -> None:
    with pytest.raises(ProcessKilled) as raised, explain_device_failures():
        raise RuntimeError(HOST)
    assert str(raised.value.__cause__) == HOST
