"""The copy of a rank's state that a save is written from: one buffer, filled beside training.

Weights, masters and moments change in the optimiser's update alone, so they are copied while the
next step's forward and backward run, and only the update waits for what is not copied by then.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arlow_trainer.checkpoint.uploads import FileWriter
from arlow_trainer.config.errors import ArlowError, DeviceMemoryError

_ALIGNMENT = 64
_PORTABLE = 1

log = logging.getLogger(__name__)


def layout(tensors: Mapping[str, Tensor]) -> tuple[dict[str, int], int]:
    """Returns where each tensor begins in a buffer that holds all, and the buffer's bytes.

    Those are the tensors' own, and less than 64 more for each.
    """
    offsets, end = {}, 0
    for name, tensor in tensors.items():
        offsets[name] = end
        end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    return offsets, end


class CopyBuffer:
    """One buffer of host memory, into which the same tensors are copied for every save.

    Attributes:
        nbytes: its size; nothing else is allocated for a copy.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        device: torch.device,
        allocate: Callable[[int], Tensor] = lambda size: torch.empty(size, dtype=torch.uint8),
    ) -> None:
        """Starts to get the memory, in a thread: to lock 10 GB takes seconds.

        Args:
            tensors: what is copied; from every later call their shapes and types are the same.
            device: where they are. Memory for a GPU's is page-locked, so that it copies at the
                rate of the bus and beside other work.
            allocate: returns uint8 of a number of bytes, on the CPU.
        """
        self._offsets, self.nbytes = layout(tensors)
        self._device, self._allocate = device, allocate
        self._memory: Tensor | None = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._last = self._taking = Copy({}, self._take_memory)

    def copy(self, tensors: Mapping[str, Tensor]) -> Copy:
        """Starts to copy tensors, in a thread; they must not change until it is done.

        Waits for the copy before it, whose content is written over.
        """
        self._taking.wait()
        self._last.join()
        memory = self._memory
        assert memory is not None
        copies = {
            name: _part(memory, self._offsets[name], tensor) for name, tensor in tensors.items()
        }
        ready = None
        if self._stream is not None:
            ready = torch.cuda.current_stream(self._device).record_event()
        self._last = Copy(copies, lambda: self._fill(copies, tensors, ready))
        return self._last

    def _take_memory(self) -> None:
        try:
            self._memory = self._allocate(self.nbytes)
        except RuntimeError as error:
            raise DeviceMemoryError(
                f"the machine has too little memory for the {self.nbytes / 1e9:.1f} GB that this "
                "rank's checkpoints are copied into; use more ranks, which share them, or give the "
                "machine or pod more"
            ) from error
        if self._stream is None:
            # Else the first copy would wait for every page.
            self._memory.numpy().fill(0)
        elif self.nbytes:
            self._lock(self._memory)

    def _lock(self, memory: Tensor) -> None:
        """Page-locks memory as it is; torch's own allocator would take the next power of two."""
        address = memory.data_ptr()
        with torch.cuda.device(self._device):
            failed = int(torch.cuda.cudart().cudaHostRegister(address, self.nbytes, _PORTABLE))
        if failed:
            log.warning(
                "%.1f GB of host memory for checkpoints cannot be page-locked (CUDA error %d): "
                "they are copied more slowly",
                self.nbytes / 1e9,
                failed,
            )
            return
        unlock = weakref.finalize(self, torch.cuda.cudart().cudaHostUnregister, address)
        unlock.atexit = False

    def _fill(
        self,
        copies: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        ready: torch.cuda.Event | None,
    ) -> None:
        with ExitStack() as stack:
            if self._stream is not None and ready is not None:
                stack.enter_context(torch.cuda.stream(self._stream))
                self._stream.wait_event(ready)
            for name, tensor in tensors.items():
                if tensor.device.type == "cpu":
                    # Not torch's: it would take a team of threads of its own from the step's.
                    np.copyto(_bytes(copies[name]), _bytes(tensor))
                else:
                    copies[name].copy_(tensor.detach(), non_blocking=True)
            if self._stream is not None:
                self._stream.synchronize()


class Copy:
    """Work of a thread, and the tensors that hold its outcome when it is done."""

    def __init__(self, tensors: dict[str, Tensor], work: Callable[[], None]) -> None:
        self.tensors = tensors
        self._failure: Exception | None = None
        self._thread = threading.Thread(
            target=self._run, args=(work,), name="checkpoint-copy", daemon=True
        )
        self._thread.start()

    def join(self) -> None:
        """Returns when it is done, or has failed."""
        self._thread.join()

    def wait(self) -> None:
        """Returns when it is done; raises what it failed with."""
        self.join()
        if self._failure is not None:
            raise self._failure

    def then(self, write: FileWriter) -> FileWriter:
        """Returns a writer that waits for the copy before it writes."""

        def write_when_copied(path: Path) -> None:
            self.wait()
            write(path)

        return write_when_copied

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except ArlowError as error:
            self._failure = error
        except Exception as error:
            self._failure = RuntimeError(f"copying the run's state failed: {error}")
            self._failure.__cause__ = error


def _part(memory: Tensor, offset: int, like: Tensor) -> Tensor:
    return memory[offset : offset + like.nbytes].view(like.dtype).view(like.shape)


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()
