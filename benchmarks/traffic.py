"""Bytes that a rank's step moves outside its matrix products and attention, on meta tensors.

On a GPU each operation of the plain path is a kernel, which reads every input and writes every
output once. Nothing is computed, so the full model is counted in seconds on any machine.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from arlow_trainer.config import TrainingSection
from arlow_trainer.engine import build_autoencoder
from arlow_trainer.engine.linear import add_in_products
from arlow_trainer.mae import MaskedAutoencoder
from arlow_trainer.plan import tokens_per_image

META = torch.device("meta")
IMAGES, CLIPS = 24, 8
"""A rank's share of 256 samples on eight, of which a quarter are clips."""

_PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm")
_ATTENTION = (
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_efficient_attention_backward",
)
# Launch nothing.
_NOTHING = ("_unsafe_view", "empty", "new_empty", "empty_like", "empty_strided")
# Read the shape of their input alone.
_FILLS = ("new_zeros", "new_full", "zeros_like", "ones_like", "full_like")


class Traffic(TorchDispatchMode):
    """Counts kernels, and the bytes of those that are no matrix product and no attention.

    Attributes:
        launches: operations that are more than another view or an allocation, by name.
        bytes: read and written, by name; what is broadcast counts once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        made = function(*arguments, **keywords)
        name = function.overloadpacket.__name__
        if function.is_view or name in _NOTHING:
            return made
        self.launches[name] += 1
        if name not in _PRODUCTS and name not in _ATTENTION:
            schema = [argument.name for argument in function._schema.arguments]
            given = dict(zip(schema, arguments, strict=False)) | keywords
            if name in _FILLS:
                given = {}
            # Written, not read.
            given.pop("out", None)
            if name == "copy_":
                given.pop("self")
            self.bytes[name] += sum(map(_size, _tensors(given) + _tensors(made)))
        return made


class _FusedAttention(TorchFunctionMode):
    """Takes the memory-efficient kernel, where torch would take the math one on meta tensors."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        if function is not F.scaled_dot_product_attention:
            return function(*arguments, **keywords)
        bias = keywords.pop("attn_mask")
        attend = torch.ops.aten._scaled_dot_product_efficient_attention
        return attend(*arguments, bias, compute_log_sumexp=True, **keywords)[0]


def step_traffic(training: TrainingSection, dtype: torch.dtype = torch.float16) -> Traffic:
    """Counts forward and backward of a rank's micro-batches, whose gradients add up.

    What is made once in a run and kept, tables of the grids, is not counted.

    Args:
        training: the run's section; activations are kept.
        dtype: of the weights.
    """
    module = build_autoencoder(training, META).to(dtype).train()
    add_in_products(module)  # as the engine does
    traffic = Traffic()
    with _FusedAttention():
        _step(module, training)
        module.zero_grad()
        with traffic:
            _step(module, training)
    return traffic


def _step(module: MaskedAutoencoder, training: TrainingSection) -> None:
    units = tokens_per_image(training).visible_units
    side = training.data.image_size
    for batch, frames in ((IMAGES, 1), (CLIPS, training.data.clip_frames)):
        pixels = torch.empty(batch, frames, side, side, 3, dtype=torch.uint8, device=META)
        visible = torch.empty(batch, units, dtype=torch.int64, device=META)
        module(pixels, visible).sum().backward()


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor, once where an axis repeats the same ones."""
    number = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        number *= length if stride else min(length, 1)
    return number
