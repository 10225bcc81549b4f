"""Host memory for the samples of steps, used again and again; pinned where there is a GPU."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arlow_trainer.plan.loading import buffer_bytes


@dataclass(eq=False)
class _Buffer:
    memory: NDArray[np.uint8]
    read: torch.cuda.Event | None = None
    """Done when the device has read what it was last asked to."""


class BufferPool:
    """Lends memory, and lends it again when no tensor refers to it any more.

    Getting pinned memory takes half a second a gigabyte, and the first touch of any memory costs
    the system as much as copying into it.
    """

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        """`stream` is where the device reads what is lent; None: it is read by this process."""
        self._stream = stream
        self._free: list[_Buffer] = []
        self.made = 0

    def take(self, size: int) -> Tensor:
        """Returns uint8 [size] of any content; call from one thread alone.

        Its memory is lent again when the last tensor that shares it is gone and what `stream` was
        asked to do until then is done.
        """
        buffer = self._pick(size)
        if buffer.read is not None:
            buffer.read.synchronize()
        # Every tensor that shares this one's storage keeps the array alive, and nothing else does.
        lent = buffer.memory[:size]
        weakref.finalize(lent, self._give_back, buffer).atexit = False
        return torch.from_numpy(lent)

    def _pick(self, size: int) -> _Buffer:
        free = sorted(self._free, key=lambda buffer: buffer.memory.size)
        for buffer in free:
            if buffer.memory.size >= size:
                self._free.remove(buffer)
                return buffer
        if free:  # a larger one takes the place of the smallest
            self._free.remove(free[0])
        self.made += 1
        rounded = buffer_bytes(size)
        memory = torch.empty(rounded, dtype=torch.uint8, pin_memory=self._stream is not None)
        return _Buffer(memory.numpy())

    def _give_back(self, buffer: _Buffer) -> None:
        if self._stream is not None:
            buffer.read = torch.cuda.Event()
            buffer.read.record(self._stream)
        self._free.append(buffer)
