"""Gradients of many micro-batches, added up without losing the small ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from arlow_trainer.config import Precision
from arlow_trainer.plan.memory import ADDED_IN_HALF

_PRECISIONS: dict[torch.dtype, Precision] = {torch.float16: "fp16", torch.bfloat16: "bf16"}


class GradientSum:
    """Moves gradients that have added up in half precision to float32 sums, in time.

    Autograd adds to a gradient in the parameter's precision. Of 2,048 equal gradients fp16 loses
    5 % that way, of 64 a thousandth. A step of few micro-batches needs no memory for sums.

    With `keep`, gradients add up in the same memory in all steps, which graphs write to
    (`graphs`). DeepSpeed and autograd drop and replace a parameter's `grad` as they like: what is
    set there is another tensor of that memory.

    Attributes:
        kept: that memory, in the order of the parameters; None: it is not kept.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        precision = _PRECISIONS.get(parameters[0].dtype)
        self._at_once = ADDED_IN_HALF.get(precision) if precision else None
        self._sums: dict[int, Tensor] = {}
        self._added = 0
        self.kept: list[Tensor] | None = None

    def keep(self) -> None:
        """Keeps the gradients' memory from now on, for steps to come."""
        if self.kept is None:
            self.kept = [torch.zeros_like(parameter) for parameter in self._parameters]

    def let_go(self) -> None:
        """Keeps it no longer."""
        self.kept = None

    def begin(self) -> None:
        """Call before a step's first micro-batch: gradients are zero, or there are none."""
        if self.kept is not None:
            torch._foreach_zero_(self.kept)
            self._set_kept()

    @torch.no_grad()
    def settle(self) -> None:
        """Call after a plain pass that a graph may follow: its gradients are those kept."""
        if self.kept is None:
            return
        for parameter, kept in zip(self._parameters, self.kept, strict=True):
            grad = parameter.grad
            if grad is not None and grad.data_ptr() != kept.data_ptr():
                kept.copy_(grad)
        self._set_kept()

    def added(self) -> None:
        """Notes that a micro-batch was added to the parameters' gradients."""
        # Only when one more comes, so that a step of no more than that needs no sums.
        self._added += 1

    def make_room(self) -> None:
        """Call before a micro-batch is added."""
        if self._at_once is not None and self._added == self._at_once:
            self._move()
            self._added = 0

    @torch.no_grad()
    def finish(self) -> None:
        """Makes the parameters' gradients those of all micro-batches."""
        if self._sums:
            self._move()
            for place, total in self._sums.items():
                parameter = self._parameters[place]
                parameter.grad = total.to(parameter.dtype)
        self._sums, self._added = {}, 0

    @property
    def summed(self) -> bool:
        """Whether there are sums, so that the parameters' gradients are only a part."""
        return bool(self._sums)

    def drop_sums(self) -> None:
        """Drops all sums."""
        self._sums, self._added = {}, 0

    def forget(self) -> None:
        """Drops all gradients and sums; what is kept is zero when the next step begins."""
        self.drop_sums()
        for parameter in self._parameters:
            parameter.grad = None

    def _set_kept(self) -> None:
        for parameter, kept in zip(self._parameters, self.kept or (), strict=True):
            parameter.grad = kept.detach()

    @torch.no_grad()
    def _move(self) -> None:
        for place, parameter in enumerate(self._parameters):
            grad, parameter.grad = parameter.grad, None
            if grad is None:
                continue
            if place in self._sums:
                self._sums[place].add_(grad)
            else:
                self._sums[place] = grad.float()
        self.begin()
