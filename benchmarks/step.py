"""The whole step under DeepSpeed on two ranks, against a plain PyTorch loop."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from arlow_trainer.config import ArlowPretrain
from arlow_trainer.data import MicroBatch
from arlow_trainer.engine import (
    Ranks,
    StepRunner,
    build_autoencoder,
    initialize_engine,
    learning_rate,
)
from arlow_trainer.engine.parameters import parameter_groups
from arlow_trainer.mae import MaskedAutoencoder, draw_masks
from arlow_trainer.plan.tokens import tokens_per_image

from .ranks import on_ranks
from .result import Result, milliseconds
from .samples import MEDIUM, TOY_TRAINING, build_run, micro_batch
from .timing import Times, side_by_side

RANKS = 2
OURS, PLAIN = "DeepSpeed", "plain loop"
STEPS = 1_000  # of the schedule, so that the learning rate hardly moves while we measure
# Share of the way that the weights went, by which both loops may part. Rounding parts them by less
# than a tenth of it; one step more or less, or another gradient, by far more.
MAX_DISTANCE = 1e-4


@dataclass(frozen=True)
class Size:
    """What is measured: training sections by name, and the micro-batches a rank's share is cut
    into."""

    training: Mapping[str, dict[str, Any]] = field(
        default_factory=lambda: {"tiny": {}, "6 x 384": MEDIUM}
    )
    micro_batches: int = 2
    rounds: int = 8


FULL = Size()
TOY = Size({"toy": TOY_TRAINING}, rounds=2)


class PlainLoop:
    """What a careful user would write: every rank keeps all of AdamW's state."""

    def __init__(self, module: MaskedAutoencoder, run: ArlowPretrain) -> None:
        self._module, self._run = module, run
        optimizer = run.spec.training.optimizer
        self._optimizer = torch.optim.AdamW(
            parameter_groups(module, optimizer.weight_decay),
            betas=(optimizer.betas[0], optimizer.betas[1]),
        )
        self._parameters = list(module.parameters())

    def step(self, number: int, micro_batches: list[MicroBatch]) -> None:
        """Forward, backward, one sum of gradients over the ranks, clipping, update."""
        training = self._run.spec.training
        optimizer = training.optimizer
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(
                number, STEPS, optimizer.warmup_steps, optimizer.learning_rate
            )
        for samples in micro_batches:
            config, image = self._module.tower.config, tokens_per_image(training)
            hidden = image.units - image.visible_units
            units = draw_masks(config, samples.frames, samples.mask_seeds, hidden)
            losses = self._module(samples.frames, units)
            (losses.sum() / self._run.spec.global_batch_size).backward()
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        flat = torch.cat([gradient.view(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, summed in zip(gradients, parts, strict=True):
            gradient.copy_(summed.view_as(gradient))
        nn.utils.clip_grad_norm_(self._parameters, optimizer.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Measures every training section on two ranks.

    Raises:
        RuntimeError: the two loops trained different weights, so their times do not compare.
    """
    rows, largest = [], 0.0
    for name, training in size.training.items():
        progress(f"{name} on {RANKS} ranks")
        run = build_run("tiny", training)
        times, parameters, apart = on_ranks(RANKS, _compare, run, size.micro_batches, size.rounds)
        if not apart <= MAX_DISTANCE:
            raise RuntimeError(
                f"{name}: the weights of {OURS} and of the {PLAIN} part by {apart:.1e} of the way "
                f"they went, more than {MAX_DISTANCE:.0e}: they do not do the same work"
            )
        largest = max(largest, apart)
        rows.append(
            (
                f"{name} ({parameters / 1e6:.1f} M)",
                milliseconds(times.typical(OURS)),
                milliseconds(times.typical(PLAIN)),
                f"**{times.ratio(OURS, PLAIN):.3f}**",
                f"{times.least_ratio(OURS, PLAIN):.3f}",
            )
        )
    return Result(
        "The whole step on two ranks",
        f"Autoencoder, {RANKS} CPU ranks over gloo, the global batch in {size.micro_batches} "
        "micro-batches a rank; forward, backward, reduction, clipping, AdamW. DeepSpeed ZeRO-2 "
        "through our `StepRunner`, against the same model in a plain loop: autograd, one "
        "all-reduce of all gradients, `clip_grad_norm_`, `torch.optim.AdamW`. Both train their "
        "own copy on the same pictures, in turn in the same processes.",
        ("model", OURS, PLAIN, "ratio", "of the fastest"),
        rows,
        [
            f"After {size.rounds + 1} steps the weights of both part by at most {largest:.1e} of "
            f"the way they went (bound: {MAX_DISTANCE:.0e}): they do the same work."
        ],
    )


def _compare(
    ranks: Ranks, run: ArlowPretrain, micro_batches: int, rounds: int
) -> tuple[Times, int, float]:
    """Returns the times of both loops, the model's parameters, and how far their weights part, as a
    share of the way they went."""
    module = build_autoencoder(run.spec.training)
    plain = copy.deepcopy(module)
    start = [weight.detach().clone() for weight in plain.parameters()]
    engine = initialize_engine(module, run.spec.training, "fp32", ranks.device)
    each = run.spec.global_batch_size // ranks.size // micro_batches
    first = ranks.rank * each * micro_batches
    batches = [micro_batch(run, each, first + each * i) for i in range(micro_batches)]
    loops = {
        OURS: StepRunner(
            engine, run.spec.training, run.spec.global_batch_size, STEPS, ranks=ranks
        ).step,
        PLAIN: PlainLoop(plain, run).step,
    }
    done = dict.fromkeys(loops, 0)

    def step(name: str) -> None:
        loops[name](done[name], batches)
        done[name] += 1

    def waited() -> float:
        # Ranks start and end every step together.
        ranks.wait()
        return time.perf_counter()

    work = {name: lambda name=name: step(name) for name in loops}
    (times,) = side_by_side(work, rounds, (waited,))
    before, ours, theirs = (
        torch.cat([weight.detach().flatten().double() for weight in weights])
        for weights in (start, module.parameters(), plain.parameters())
    )
    apart = float((ours - theirs).norm() / (theirs - before).norm())
    return times, len(theirs), apart
