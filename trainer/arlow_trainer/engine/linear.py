"""Weight gradients of micro-batches that add up inside their products.

Autograd makes each micro-batch's gradient of a weight in a product of its own, and adds it to the
last one's in another pass over both. A product can add to what is there: one pass over memory
fewer for each weight, no second gradient, and one rounding to half precision instead of two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# A smaller weight's pass over memory costs a GPU less than the Python here costs its host.
LEAST_NUMBERS = 2**22


class AddingLinear(nn.Linear):
    """`nn.Linear` for `backward()`, whose weight gradient adds to the one that is there.

    Not for `torch.autograd.grad`, which is to leave a gradient that is there alone, nor for
    autocast, under which weight and product differ in dtype.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Linear.forward`."""
        if torch.compiler.is_compiling():
            return super().forward(x)
        out: Tensor = _Linear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: nn.Parameter, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x)
        # The parameter itself: what `save_for_backward` gives back may be without its gradient.
        ctx.weight = weight
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,), weight = ctx.saved_tensors, ctx.weight
        to_x, to_weight, to_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        of_x = (gradient @ weight) if to_x else None
        of_weight = _added(weight, rows, x.flatten(0, -2)) if to_weight else None
        of_bias = rows.sum(0) if to_bias else None
        return of_x, of_weight, of_bias


def _added(weight: nn.Parameter, gradient: Tensor, x: Tensor) -> Tensor:
    """The weight's gradient, with the one of micro-batches before, which the weight gives up."""
    before, weight.grad = weight.grad, None
    # Autograd keeps what it is given where a parameter has no gradient, and its hooks see the sum.
    return gradient.mT @ x if before is None else before.addmm_(gradient.mT, x)


def add_in_products(module: nn.Module, least_numbers: int = LEAST_NUMBERS) -> None:
    """Makes the gradients of a module's large linear layers add up in their products."""
    for layer in module.modules():
        if type(layer) is nn.Linear and layer.weight.numel() >= least_numbers:
            layer.__class__ = AddingLinear
