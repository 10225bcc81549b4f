"""The one reduction of a step's gradients, beside the backward pass that completes them.

DeepSpeed reduces beside every backward pass (`overlap_comm`) or after the last one
(`coalesce_grad_reduction`); it has no way to reduce beside the last one alone. Here gradients are
handed to DeepSpeed's buckets as the last backward pass completes them, in one order on all ranks:
the reverse of the parameters', which is the pass's own. Which modality a rank computes last, or
whether it computes anything, changes nothing of what is reduced with what.

None of this is a public interface of DeepSpeed 0.19.8 (pinned in pyproject.toml):

    bit16_groups                                   parameters of each group
    setup_buckets                                  makes the bucket, at a step's first gradient
    reduce_ready_partitions_and_remove_grads       takes a gradient into it, reduces a full one
    overlapping_partition_gradients_reduce_epilogue reduces the last one; keeps this rank's part
    averaged_gradients                             that part, until the update
    engine._flush_coalesced_reduction_zero12       does all of it, at the end of a coalesced block
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from arlow_trainer.engine.devices import explain_out_of_memory

CHUNKS = 64
"""Into so many parts of about equal size the parameters are cut; each is handed over as a whole."""


def overlaps(device: torch.device, ranks: int) -> bool:
    """Returns whether reducing beside a backward pass saves time: on a CPU it takes its cores."""
    return device.type == "cuda" and ranks > 1


class StepReduction:
    """Reduces the gradients of each step of an engine once.

    With `overlap`, every rank makes the same collectives in every attempt at a step, also where it
    had no memory for one of its micro-batches; only then the ranks can know whether it counts.

    Attributes:
        overlap: whether it reduces beside the last backward pass.
    """

    def __init__(self, engine: Any, overlap: bool) -> None:
        """Prepares the reductions of an engine, on all ranks alike."""
        self.overlap = overlap
        self._engine, self._optimizer = engine, engine.optimizer
        groups = {id(p): i for i, group in enumerate(self._optimizer.bit16_groups) for p in group}
        order = [p for p in reversed(list(engine.module.parameters())) if id(p) in groups]
        self._chunks = [
            [(parameter, groups[id(parameter)]) for parameter in chunk]
            for chunk in _cut(order, CHUNKS)
        ]
        # Ours, beside the stream of the backward pass; NCCL's own waits for it.
        cuda = overlap and engine.device.type == "cuda"
        self._stream = torch.cuda.Stream(engine.device) if cuda else None
        self._next = 0
        self._open = [0] * len(self._chunks)
        self._watching = False
        if overlap:
            for number, chunk in enumerate(self._chunks):
                for parameter, _ in chunk:
                    parameter.register_post_accumulate_grad_hook(partial(self._completed, number))
        # What DeepSpeed does at the end of a block, also of one that failed.
        engine._flush_coalesced_reduction_zero12 = lambda optimizer: None

    def collecting(self) -> AbstractContextManager[None]:
        """Returns a context in which gradients add up on this rank; `finish` within it."""
        self._next, self._watching = 0, False
        block: AbstractContextManager[None] = self._engine.coalesce_grad_reduction()
        return block

    def watch(self) -> None:
        """Call before the backward pass that completes the gradients, where nothing follows it."""
        self._open = [len(chunk) for chunk in self._chunks]
        self._optimizer.setup_buckets()
        self._watching = True

    def give_up(self) -> None:
        """Replaces by nothing what is not reduced yet: this rank's attempt at the step has failed.

        The other ranks may be reducing already, and wait for what this rank adds.
        """
        self._watching = False
        for chunk in self._chunks[self._next :]:
            for parameter, _ in chunk:
                parameter.grad = None

    def finish(self) -> None:
        """Reduces what is left; then this rank's part of all gradients is known."""
        self._watching = False
        optimizer = self._optimizer
        optimizer.set_gradient_accumulation_boundary(True)
        optimizer.setup_buckets()
        while self._next < len(self._chunks):
            self._reduce_next()
        with self._on_the_stream():
            optimizer.overlapping_partition_gradients_reduce_epilogue()
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
        self._next = 0

    def forget(self) -> None:
        """Drops what was reduced in an attempt that does not count."""
        for group in list(self._optimizer.averaged_gradients):
            self._optimizer.averaged_gradients[group] = None

    def _completed(self, number: int, parameter: nn.Parameter) -> None:
        if not self._watching:
            return
        self._open[number] -= 1
        while self._next < len(self._chunks) and not self._open[self._next]:
            self._reduce_next()

    def _reduce_next(self) -> None:
        chunk = self._chunks[self._next]
        self._next += 1
        for parameter, _ in chunk:
            if parameter.grad is None:
                # The same sum as without it, and the same collective on all ranks.
                parameter.grad = torch.zeros_like(parameter)
        # Not as for a micro-batch that does not fit: half a chunk would be another sum here.
        with explain_out_of_memory("the reduction"), self._on_the_stream():
            for parameter, group in chunk:
                if self._stream is not None and parameter.grad is not None:
                    # DeepSpeed drops it for the bucket's; until it is copied it must not be reused.
                    parameter.grad.record_stream(self._stream)
                self._optimizer.reduce_ready_partitions_and_remove_grads(parameter, group)

    def _on_the_stream(self) -> AbstractContextManager[Any]:
        """Returns the context of our stream, which waits for what was asked of the current one."""
        if self._stream is None:
            return nullcontext()
        self._stream.wait_stream(torch.cuda.current_stream())
        return torch.cuda.stream(self._stream)


def _cut(parameters: Sequence[nn.Parameter], parts: int) -> list[list[nn.Parameter]]:
    """Cuts parameters into at most about `parts` runs of about equal numbers of elements."""
    enough = sum(parameter.numel() for parameter in parameters) / parts
    chunks: list[list[nn.Parameter]] = [[]]
    elements = 0
    for parameter in parameters:
        if elements >= enough:
            chunks.append([])
            elements = 0
        chunks[-1].append(parameter)
        elements += parameter.numel()
    return chunks
