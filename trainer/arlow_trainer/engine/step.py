"""One optimisation step: every micro-batch forward and backward, one reduction, one update."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from arlow_trainer.config import ArlowError, Modality, TrainingSection
from arlow_trainer.engine.accumulation import GradientSum
from arlow_trainer.engine.attention import attention_kernels, kernel
from arlow_trainer.engine.compilation import Blocks, one_line
from arlow_trainer.engine.devices import explain_out_of_memory, out_of_memory
from arlow_trainer.engine.graphs import Graph, Graphs, doubled
from arlow_trainer.engine.logits import largest_numbers
from arlow_trainer.engine.parts import LossSums, MicroBatch, Part, Refusal, describe_halved
from arlow_trainer.engine.phase_clock import PhaseClock
from arlow_trainer.engine.ranks import Ranks
from arlow_trainer.engine.reduction import StepReduction, overlaps
from arlow_trainer.engine.schedule import learning_rate
from arlow_trainer.mae import draw_masks
from arlow_trainer.mae.view import holding_tables
from arlow_trainer.plan.micro_batches import Sizes
from arlow_trainer.plan.tokens import tokens_per_image


class StepRunner:
    """Runs optimisation steps on a DeepSpeed engine around a `MaskedAutoencoder`.

    The loss of a step is the mean over the global batch's samples, however they are dealt to ranks
    and cut into micro-batches: each rank sums its samples' losses and divides by the global batch.

    A micro-batch for which the device has no memory is computed in halves, and the step is done
    again, on all ranks; from then on, no larger ones are computed. The first pass of a shape that
    fails in another way is done again with plain blocks, and from then on all are: compiling them
    may have failed. Where there are graphs, these are given up first.
    """

    def __init__(
        self,
        engine: Any,
        training: TrainingSection,
        global_batch_size: int,
        total_steps: int,
        sizes: Mapping[Modality, Sizes] | None = None,
        ranks: Ranks | None = None,
        on_warning: Callable[[str], None] | None = None,
        graphs: Graphs | None = None,
    ) -> None:
        """Prepares the steps of a run.

        Args:
            engine: DeepSpeed's.
            training: the run's section.
            global_batch_size: samples of a step over all ranks.
            total_steps: steps of the whole run.
            sizes: those that micro-batches are computed in; unset: each in its own.
            ranks: all that take part; needed where there are several.
            on_warning: called with a description when micro-batches had to be halved, blocks run
                plain, or graphs given up, and it helped; on every rank.
            graphs: of small micro-batches, on every rank or on none; unset: all passes are plain.
        """
        if ranks is None and dist.get_world_size() > 1:
            raise ValueError("the ranks have to agree on every step: give them")
        self.engine = engine
        self.clock = PhaseClock(engine.device)
        self._sizes = sizes or {}
        self._ranks = ranks
        self._on_warning = on_warning
        self._limits: dict[Modality, int] = {}
        self._reduction = StepReduction(engine, overlaps(engine.device, dist.get_world_size()))
        self._gradients = GradientSum([p for group in engine.optimizer.bit16_groups for p in group])
        self._graphs = graphs
        self._training = training
        self._total_steps = total_steps
        image = tokens_per_image(training)
        self._hidden_units = image.units - image.visible_units
        # DeepSpeed averages over ranks what is a sum over ranks here.
        self._weight = dist.get_world_size() / global_batch_size
        self._sums = self._no_sums()
        self._largest_norm: float | None = None
        self.kernels = attention_kernels(training, engine.device)
        """The kernel of attention by modality."""
        self.blocks = Blocks(engine.module, training.compile, engine.device, self.kernels)
        if self.blocks.warning is not None:
            self._warn(f"the blocks are not compiled: {self.blocks.warning}")

    def step(self, number: int, micro_batches: Sequence[MicroBatch]) -> bool:
        """Runs a step and returns whether it changed the weights; False: gradients overflowed.

        Args:
            number: global step, from 0; sets the learning rate.
            micro_batches: this rank's share of the global batch; at least one.

        Raises:
            DeviceMemoryError: the device has too little memory for one sample, or for the update;
                the first on every rank.
        """
        self.set_learning_rate(number)
        sums = self._reduced_gradients(micro_batches)
        before = self.engine.global_steps
        with self.clock.phase("optimizer"), explain_out_of_memory("the update"):
            self.engine.step()
        if self.engine.global_steps != before + 1:
            raise RuntimeError("DeepSpeed ignored step(): it was not an accumulation boundary")
        self.last_sums = LossSums(sums)
        applied = bool(self.engine.was_step_applied())
        if applied:
            self._sums += sums
            self._largest_norm = max(self.grad_norm(), self._largest_norm or 0.0)
        return applied

    def _reduced_gradients(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """Adds up the gradients of a step over all ranks and returns its `LossSums`' values.

        Does it again with smaller parts where a device has no memory for one. A rank that fails in
        another way reduces nothing more: it would wait for ranks which never come.
        """
        halved: dict[Modality, Refusal] = {}
        was_plain = self.blocks.plain_because is not None
        had_graphs = self._has_graphs
        # A reduction that has begun on any rank is finished by all, before they vote on it.
        at_last = self._reduction.overlap
        while True:
            sums = self._no_sums()
            with self._reduction.collecting():
                try:
                    refusal = self._try(micro_batches, sums)
                except BaseException:
                    self._gradients.forget()
                    raise
                if refusal is not None:
                    self._break_off()
                refused = not at_last and self._any(refusal is not None)
                if not refused:
                    with self.clock.phase("reduce"), explain_out_of_memory("the reduction"):
                        self._reduction.finish()
                if at_last:
                    refused = self._any(refusal is not None)
            if not refused:
                break
            self._gradients.forget()
            self._reduction.forget()
            self._halve(refusal, halved)
        if halved:
            self._warn(describe_halved(halved, self._limits))
        if had_graphs and self._graphs is not None and self._graphs.given_up is not None:
            self._warn(
                "small micro-batches have no graphs from now on: the device waits for the host, "
                f"and the training stays the same up to rounding ({self._graphs.given_up})"
            )
        if not was_plain and (reason := self.blocks.plain_because) is not None:
            self._warn(
                "the blocks could not be compiled, and run plain from now on: slower, and the "
                f"training stays the same up to rounding ({reason})"
            )
        return sums

    def _try(self, micro_batches: Sequence[MicroBatch], sums: Tensor) -> Refusal | None:
        parts = [part for micro_batch in micro_batches for part in self._parts(micro_batch)]
        # The last is plain where it is reduced as it goes: the hooks are the host's.
        recorded = parts[:-1] if self._reduction.overlap else parts
        refusal = self._try_graphs(recorded)
        if refusal is not None:
            return refusal
        self._gradients.begin()
        for number, part in enumerate(parts, 1):
            offset = 0 if part.modality == "image" else 2
            graph = None
            if self._graphs is not None and number <= len(recorded):
                graph = self._graphs.proven(part.key)
            try:
                if graph is not None:
                    sums[offset] += self._replay(graph, part)
                else:
                    sums[offset] += self._add(part, last=number == len(parts))
            except torch.OutOfMemoryError as error:
                # The error holds the frames it passed, and these the activations.
                return Refusal(part.modality, part.size, str(error).splitlines()[0])
            except Exception as error:
                if isinstance(error, ArlowError):
                    raise
                if graph is not None:
                    return Refusal(part.modality, part.size, one_line(error), "graph")
                if not self.blocks.on_trial((part.modality, part.size)):
                    raise
                return Refusal(part.modality, part.size, one_line(error), "compiling")
            if graph is None:
                self.blocks.passed((part.modality, part.size))
                if self._graphs is not None:
                    self._graphs.passed(part.key)
            sums[offset + 1] += part.frames.shape[0]
        self._gradients.finish()
        return None

    def _add(self, part: Part, last: bool) -> Tensor:
        """Adds a part's gradients to those of the parameters, and returns its sum of losses."""
        self._gradients.make_room()
        with kernel(self.kernels[part.modality]), self.blocks.compiled():
            with self.clock.phase("forward"):
                losses = self._losses(part)
            if last and not self._gradients.summed:
                self._reduction.watch()
            with self.clock.phase("backward"):
                self.engine.backward(losses.sum() * self._weight)
        self._gradients.added()
        if not last:
            self._gradients.settle()
        return losses.detach().sum()

    def _replay(self, graph: Graph, part: Part) -> Tensor:
        """As `_add`, by a part's graph."""
        self._gradients.make_room()
        # Forward as well: they cannot be told apart.
        with self.clock.phase("backward"):
            frames, units = self._filled(part)
            losses = graph.replay(frames, units, part.frames.shape[0], self._scaled_weight())
        self._gradients.added()
        return losses

    def _try_graphs(self, parts: Sequence[Part]) -> Refusal | None:
        """Records and tries the graphs that are due; gradients are dropped."""
        if self._graphs is None:
            return None
        by_key = {part.key: part for part in parts}
        for key in self._graphs.untried(list(by_key)):
            try:
                if self._try_graph(self._graphs, by_key[key]) is False:
                    raise ValueError("its gradients are not those of the plain pass")
            except Exception as error:
                if isinstance(error, ArlowError):
                    raise
                return Refusal(key[0], key[1], one_line(error), "graph")
        return None

    def _try_graph(self, graphs: Graphs, part: Part) -> bool | None:
        """Adds a part's gradients by a plain pass, then by its graph, and returns whether that
        doubled them; None: they are not finite, and another step's will tell."""
        gradients, tables = self._gradients, dict[Hashable, Any]()
        gradients.keep()
        gradients.begin()
        with holding_tables(tables):
            loss = self._add(part, last=False)
        kept = gradients.kept or []
        once = [gradient.clone() for gradient in kept]
        frames, units = self._filled(part)
        with kernel(self.kernels[part.modality]), self.blocks.compiled():
            # DeepSpeed's hooks take the pass that is recorded for none of the engine's.
            self.engine.optimizer.clear_backward_seen_flag()
            graph = graphs.recorded(part.key, frames, units, tables, self.engine.module)
        again = graph.replay(frames, units, part.frames.shape[0], self._scaled_weight())
        verdicts = doubled(once, kept), doubled([loss], [loss + again])
        gradients.drop_sums()
        verdict = None if None in verdicts else all(verdicts)
        graph.proven = bool(verdict)
        return verdict

    def _break_off(self) -> None:
        """Leaves nothing of an attempt that failed: no activations, no gradients of its own."""
        self._gradients.drop_sums()
        self._reduction.give_up()
        optimizer = self.engine.optimizer
        while optimizer._backward_active_depth:
            optimizer.exit_backward()
        # Autograd keeps what is left of a pass that failed until it is given another.
        torch.ones(1, device=self.engine.device, requires_grad=True).sum().backward()
        gc.collect()
        if self.engine.device.type == "cuda":
            torch.cuda.empty_cache()

    def _halve(self, refusal: Refusal | None, halved: dict[Modality, Refusal]) -> None:
        """Halves the parts of the modalities that any rank has no memory for.

        `halved` is given the largest part of each that was refused. Raises DeviceMemoryError on
        every rank when it was a single sample. Where compiling may have failed, the blocks of every
        rank are plain from now on; and where there are graphs, these are given up first.
        """
        refusals = self._ranks.gather(refusal) if self._ranks else [refusal]
        had_graphs = self._has_graphs
        for found in refusals:
            if found is None:
                continue
            if found.cause == "compiling":
                self.blocks.give_up(found.message)
                continue
            if found.cause == "graph" or had_graphs:
                # Their memory is enough, perhaps.
                self._give_up_graphs(found.message)
                continue
            if found.size == 1:
                kind = "image" if found.modality == "image" else "clip"
                raise out_of_memory(found.message, f"a micro-batch of one {kind}")
            half = -(-found.size // 2)
            self._limits[found.modality] = min(half, self._limits.get(found.modality, half))
            halved.setdefault(found.modality, found)

    @property
    def _has_graphs(self) -> bool:
        return self._graphs is not None and self._graphs.given_up is None

    def _give_up_graphs(self, reason: str) -> None:
        if self._graphs is not None:
            self._graphs.give_up(reason)
            self._gradients.let_go()

    def _warn(self, text: str) -> None:
        if self._on_warning is not None:
            self._on_warning(text)

    def _any(self, flag: bool) -> bool:
        return self._ranks.any(flag)[0] if self._ranks else flag

    def _parts(self, micro_batch: MicroBatch) -> Iterator[Part]:
        frames, seeds = micro_batch.frames, micro_batch.mask_seeds
        size = self._computed_size(micro_batch.modality, frames.shape[0])
        for start in range(0, frames.shape[0], size):
            chosen = slice(start, start + size)
            yield Part(micro_batch.modality, frames[chosen], seeds[chosen], size)

    def _computed_size(self, modality: Modality, samples: int) -> int:
        """The size that so many samples are computed in, halved until it fits.

        As many different ones as the run's sizes, at the most.
        """
        size = self._sizes[modality].holding(samples) if modality in self._sizes else samples
        while size > self._limits.get(modality, size):
            size = -(-size // 2)
        return size

    def largest_size(self, modality: Modality) -> int | None:
        """Returns the largest size that micro-batches are computed in now; None: not limited."""
        if modality not in self._sizes:
            return self._limits.get(modality)
        return max(self._computed_size(modality, size) for size in self._sizes[modality].sizes)

    def losses(self, micro_batch: MicroBatch) -> Tensor:
        """Returns each sample's loss, float32 [batch] on the device."""
        return torch.cat([self._losses(part) for part in self._parts(micro_batch)])

    def _losses(self, part: Part) -> Tensor:
        losses: Tensor = self.engine(*self._filled(part))
        return losses[: part.frames.shape[0]]

    def _filled(self, part: Part) -> tuple[Tensor, Tensor]:
        """Returns frames and visible units on the device, filled up to the part's size."""
        frames, units = self._inputs(part)
        samples = frames.shape[0]
        if part.size == samples:
            return frames, units
        # The first samples again: like any others they are finite, and their losses do not count,
        # so that all gradients that come from them are zero.
        index = torch.arange(part.size, device=frames.device) % samples
        return frames[index], units[index]

    def largest_numbers(self, micro_batch: MicroBatch) -> tuple[float, float]:
        """Returns the largest attention logit and residual activation on a micro-batch's first
        sample; waits for them."""
        frames, units = self._inputs(micro_batch)
        return largest_numbers(self.engine.module, frames[:1], units[:1])

    def _inputs(self, micro_batch: MicroBatch | Part) -> tuple[Tensor, Tensor]:
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
        return largest

    def loss_scale(self) -> float | None:
        """Returns the loss scale, None where there is none."""
        return float(self.engine.optimizer.loss_scale) if self.engine.fp16_enabled() else None

    def _scaled_weight(self) -> float:
        """A sample's weight in the loss that is differentiated, loss scale included."""
        return self._weight * (self.loss_scale() or 1.0)

    def _no_sums(self) -> Tensor:
        return torch.zeros(4, device=self.engine.device)
