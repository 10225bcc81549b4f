"""A device that has too little memory: it refuses what is larger than a block, as torch does."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RefusingAllocator(TorchDispatchMode):
    """Raises torch.OutOfMemoryError where an operation makes an activation of too many numbers.

    Everything that torch computes passes here, forward and backward; what has one or two dimensions
    is a weight, its gradient or the optimiser's, for which there is memory.

    Attributes:
        refusals: how often it refused.
        made: tensors that were made before the last refusal and since the one before.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.refusals = 0
        self._since: list[weakref.ref[torch.Tensor]] = []
        self.made: list[weakref.ref[torch.Tensor]] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
        for leaf in filter(_is_tensor, tree_leaves(found)):
            if _storage(leaf) in given:
                continue
            if leaf.ndim > 2 and leaf.is_floating_point() and leaf.numel() > self.most:
                self.refuse(leaf.nbytes)
            self._since.append(weakref.ref(leaf))
        return found

    def refuse(self, nbytes: int) -> NoReturn:
        """Refuses so many bytes."""
        self.refusals += 1
        self.made, self._since = self._since, []
        raise torch.OutOfMemoryError(
            f"CUDA out of memory. Tried to allocate {nbytes} bytes.\nDetails"
        )


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, torch.Tensor)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
