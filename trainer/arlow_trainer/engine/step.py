"""One optimisation step: every micro-batch forward and backward, one reduction, one update."""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from arlow_trainer.config import Modality, TrainingSection
from arlow_trainer.engine.devices import out_of_memory
from arlow_trainer.engine.logits import max_attention_logit
from arlow_trainer.mae import draw_masks
from arlow_trainer.plan.micro_batches import Sizes
from arlow_trainer.plan.tokens import tokens_per_image


def learning_rate(step: int, total_steps: int, warmup_steps: int, peak: float) -> float:
    """Returns the learning rate of a step: linear warm-up, then cosine decay to zero.

    Args:
        step: global step, from 0.
        total_steps: steps of the whole run.
        warmup_steps: steps until the peak is reached.
        peak: highest learning rate.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class PhaseClock:
    """Adds up the seconds of named phases; on a GPU by events that are read at `collect` only."""

    def __init__(self, device: torch.device) -> None:
        self._events = device.type == "cuda"
        self._seconds: dict[str, float] = defaultdict(float)
        self._pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time of the block towards a phase."""
        if not self._events:
            start = time.perf_counter()
            yield
            self._seconds[name] += time.perf_counter() - start
            return
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        begin.record()
        yield
        end.record()
        self._pending.append((name, begin, end))

    def collect(self, wait: bool) -> dict[str, float]:
        """Returns and forgets the seconds so far; events still running are left, or waited for."""
        left = []
        for name, begin, end in self._pending:
            if wait:
                end.synchronize()
            if wait or end.query():
                self._seconds[name] += begin.elapsed_time(end) / 1000
            else:
                left.append((name, begin, end))
        self._pending = left
        seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds


class MicroBatch(Protocol):
    """What the step needs of a micro-batch: samples of one modality and grid."""

    @property
    def modality(self) -> Modality: ...
    @property
    def frames(self) -> Tensor: ...
    @property
    def mask_seeds(self) -> Sequence[int]: ...


@dataclass
class LossSums:
    """Losses summed over samples by modality: float32 [4], image sum and count, video likewise."""

    values: Tensor

    def means(self) -> tuple[float, float | None, float | None]:
        """Returns the mean loss over all samples, over images, over videos (None: there were
        none). Sums over ranks, and waits for the device."""
        total = self.values.clone()
        if dist.is_initialized():
            dist.all_reduce(total)
        image, images, video, videos = total.tolist()
        mean = (image + video) / (images + videos) if images + videos else float("nan")
        return mean, image / images if images else None, video / videos if videos else None


class StepRunner:
    """Runs optimisation steps on a DeepSpeed engine around a `MaskedAutoencoder`.

    The loss of a step is the mean over the global batch's samples, however they are dealt to ranks
    and cut into micro-batches: each rank sums its samples' losses and divides by the global batch.
    """

    def __init__(
        self,
        engine: Any,
        training: TrainingSection,
        global_batch_size: int,
        total_steps: int,
        sizes: Mapping[Modality, Sizes] | None = None,
    ) -> None:
        """`sizes` are those that micro-batches are computed in; without, each in its own."""
        self.engine = engine
        self._sizes = sizes or {}
        self.clock = PhaseClock(engine.device)
        self._training = training
        self._total_steps = total_steps
        image = tokens_per_image(training)
        self._hidden_units = image.units - image.visible_units
        # DeepSpeed averages over ranks what is a sum over ranks here.
        self._weight = dist.get_world_size() / global_batch_size
        self._sums = self._no_sums()
        self._largest_norm: Tensor | None = None

    def step(self, number: int, micro_batches: Sequence[MicroBatch]) -> bool:
        """Runs a step and returns whether it changed the weights; False: gradients overflowed.

        Args:
            number: global step, from 0; sets the learning rate.
            micro_batches: this rank's share of the global batch; at least one.

        Raises:
            DeviceMemoryError: the device has too little memory for a micro-batch.
        """
        try:
            return self._step(number, micro_batches)
        except torch.OutOfMemoryError as error:
            largest = max(batch.frames.shape[0] for batch in micro_batches)
            raise out_of_memory(error, f"a micro-batch of {largest} samples") from error

    def _step(self, number: int, micro_batches: Sequence[MicroBatch]) -> bool:
        self.set_learning_rate(number)
        sums = self._no_sums()
        with contextlib.ExitStack() as stack:
            if len(micro_batches) > 1 or dist.get_world_size() > 1:
                stack.enter_context(self.engine.coalesce_grad_reduction())
            for micro_batch in micro_batches:
                with self.clock.phase("forward"):
                    losses = self.losses(micro_batch)
                with self.clock.phase("backward"):
                    self.engine.backward(losses.sum() * self._weight)
                offset = 0 if micro_batch.modality == "image" else 2
                sums[offset] += losses.detach().sum()
                sums[offset + 1] += losses.numel()
            with self.clock.phase("reduce"):
                stack.close()
        before = self.engine.global_steps
        with self.clock.phase("optimizer"):
            self.engine.step()
        if self.engine.global_steps != before + 1:
            raise RuntimeError("DeepSpeed ignored step(): it was not an accumulation boundary")
        self.last_sums = LossSums(sums)
        applied = bool(self.engine.was_step_applied())
        if applied:
            self._sums += sums
            self._keep_largest(self.engine.get_global_grad_norm())
        return applied

    def _keep_largest(self, norm: Tensor | float) -> None:
        found = torch.as_tensor(norm, dtype=torch.float32, device=self.engine.device)
        known = self._largest_norm
        self._largest_norm = found if known is None else torch.maximum(known, found)

    def losses(self, micro_batch: MicroBatch) -> Tensor:
        """Returns each sample's loss, float32 [batch] on the device."""
        frames, units = self._inputs(micro_batch)
        samples = frames.shape[0]
        filled = self._holding(micro_batch)
        if filled > samples:
            # The first samples again: like any others they are finite, and their losses are cut
            # off, so that all gradients that come from them are zero.
            index = torch.arange(filled, device=frames.device) % samples
            frames, units = frames[index], units[index]
        losses: Tensor = self.engine(frames, units)
        return losses[:samples]

    def _holding(self, micro_batch: MicroBatch) -> int:
        samples = micro_batch.frames.shape[0]
        sizes = self._sizes.get(micro_batch.modality)
        return samples if sizes is None else sizes.holding(samples)

    def max_attention_logit(self, micro_batch: MicroBatch) -> float:
        """Returns the largest attention logit on a micro-batch's first sample; waits for it."""
        frames, units = self._inputs(micro_batch)
        return max_attention_logit(self.engine.module, frames[:1], units[:1])

    def _inputs(self, micro_batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Returns frames and visible units on the device."""
        device = self.engine.device
        frames = micro_batch.frames.to(device, non_blocking=True)
        config = self.engine.module.tower.config
        units = draw_masks(config, frames, micro_batch.mask_seeds, self._hidden_units)
        if device.type == "cuda":
            units = units.pin_memory()
        return frames, units.to(device, non_blocking=True)

    def take_losses(self) -> LossSums:
        """Returns and forgets the losses summed since the last call, of applied steps."""
        sums, self._sums = self._sums, self._no_sums()
        return LossSums(sums)

    def set_learning_rate(self, number: int) -> None:
        """Sets the learning rate of a global step."""
        optimizer = self._training.optimizer
        self.rate = learning_rate(
            number, self._total_steps, optimizer.warmup_steps, optimizer.learning_rate
        )
        for group in self.engine.optimizer.param_groups:
            group["lr"] = self.rate

    def grad_norm(self) -> float:
        """Returns the global gradient norm of the last step, before clipping."""
        return float(self.engine.get_global_grad_norm() or 0.0)

    def take_largest_grad_norm(self) -> float | None:
        """Returns and forgets the largest norm since the last call; None: no step was applied."""
        largest, self._largest_norm = self._largest_norm, None
        return None if largest is None else float(largest)

    def loss_scale(self) -> float | None:
        """Returns the loss scale, None where there is none."""
        return float(self.engine.optimizer.loss_scale) if self.engine.fp16_enabled() else None

    def _no_sums(self) -> Tensor:
        return torch.zeros(4, device=self.engine.device)
