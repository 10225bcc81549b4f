"""The guard against non-finite numbers: it names the module they come from, and ends the run when
they persist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from arlow_trainer.config.errors import NonFiniteError
from arlow_trainer.engine.ranks import Ranks
from arlow_trainer.engine.setup import MIN_LOSS_SCALE
from arlow_trainer.engine.step import StepRunner

MAX_IN_A_ROW = 10
LOW_LOSS_SCALE = 2.0**8
"""Below it, fp16 loses small gradients."""
# The loss scale doubles in so many finite steps: with more lost, it only falls.
_RECURRING = 1000


class FiniteGuard:
    """Watches steps that changed nothing because their gradients were not finite.

    Under fp16, overflowing gradients with a finite loss are normal: the loss scaler finds its scale
    by them. A loss that is not finite, or gradients that are not although there is no loss scale or
    it is at its minimum, come from the model or its input: the step is skipped, and `MAX_IN_A_ROW`
    of them in a row end the run.
    """

    def __init__(
        self,
        runner: StepRunner,
        ranks: Ranks,
        on_lost: Callable[[str], None],
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        """Watches a runner's steps.

        Args:
            runner: whose steps these are.
            ranks: all that take part.
            on_lost: called with a description of every such step, on every rank.
            on_warning: called when the loss scale falls low, and when losses that are not finite
                recur.
        """
        self._runner = runner
        self._ranks = ranks
        self._on_lost = on_lost
        self._on_warning = on_warning or (lambda text: None)
        self._in_a_row = 0
        self._low = False
        self._last_broken: int | None = None
        self._told_broken: int | None = None

    def after_step(self, step: int, applied: bool, micro_batches: Sequence[Any]) -> None:
        """Checks a step's outcome; call on every rank.

        Raises NonFiniteError on every rank after too many such steps in a row.
        """
        scale = self._runner.loss_scale()
        self._watch_scale(step, scale)
        if applied:
            self._in_a_row = 0
            return
        broken = not bool(torch.isfinite(self._runner.last_sums.values).all())
        any_broken = self._ranks.any(broken)[0]
        if any_broken:
            self._watch_losses(step)
        if not any_broken and scale is not None and scale > MIN_LOSS_SCALE:
            return
        self._in_a_row += 1
        own = [index for batch in micro_batches for index in batch.indexes]
        found = self._ranks.gather((self._locate(micro_batches) if broken else None, own))
        source = next((module for module, _ in found if module), "the gradients")
        samples = sorted(index for _, indexes in found for index in indexes)
        source += f" (step {step} holds the samples {samples[0]} to {samples[-1]})"
        self._on_lost(f"step {step} was skipped: numbers were not finite in {source}")
        if self._in_a_row >= MAX_IN_A_ROW:
            raise NonFiniteError(
                f"{self._in_a_row} steps in a row were not finite, the last in {source}. "
                "The weights are those of the last finite step. Lower "
                "training.optimizer.learningRate, or set training.precision to fp32; the run "
                "continues from its newest checkpoint."
            )

    def _watch_scale(self, step: int, scale: float | None) -> None:
        low = scale is not None and scale < LOW_LOSS_SCALE
        if low and not self._low:
            self._on_warning(
                f"the loss scale fell to {scale:g} at step {step}: fp16 loses gradients below "
                f"{LOW_LOSS_SCALE:g}. Numbers overflow in the forward pass: see "
                "arlow_max_attention_logit and arlow_max_residual_activation, and lower "
                "training.optimizer.learningRate, or set training.precision to bf16 or fp32"
            )
        self._low = low

    def _watch_losses(self, step: int) -> None:
        last, self._last_broken = self._last_broken, step
        recent = last is not None and step - last < _RECURRING
        told = self._told_broken is not None and step - self._told_broken < _RECURRING
        if recent and not told:
            self._told_broken = step
            self._on_warning(
                f"the loss was not finite at steps {last} and {step}: more than one in "
                f"{_RECURRING:,} lets the loss scale only fall. Lower "
                "training.optimizer.learningRate, or set training.precision to bf16 or fp32"
            )

    def _locate(self, micro_batches: Sequence[Any]) -> str:
        for micro_batch in micro_batches:
            module = first_non_finite_module(
                self._runner.engine.module, lambda batch=micro_batch: self._runner.losses(batch)
            )
            if module:
                return f"{module} on samples {list(micro_batch.indexes)}"
        return "the loss, but not when it was computed again"


@torch.no_grad()
def first_non_finite_module(module: nn.Module, forward: Any) -> str | None:
    """Runs `forward` and names the first module whose output is not finite."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if not found and isinstance(output, Tensor) and not bool(output.isfinite().all()):
                found.append(name)

        return hook

    handles = [
        child.register_forward_hook(watch(f"module {name}" if name else "the loss"))
        for name, child in module.named_modules()
    ]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
