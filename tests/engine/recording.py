"""What a CUDA graph does, on a CPU: operations are recorded once and done again on their memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Operation = tuple[Any, Sequence[Any], Mapping[str, Any], Any]

READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal")
"""They wait for the device, which a stream that is captured refuses."""


class EmulatedRecorder:
    """A `Recorder` of every operation that torch does, forward and backward, below autograd.

    As with CUDA graphs in one pool: recording changes nothing that was there before; a replay does
    the same operations on the same tensors, with no Python of the model's; what recordings made
    themselves is lost whenever one of them is replayed, here to NaN.

    Attributes:
        replays: how often any recording was done again.
    """

    def __init__(self) -> None:
        self.replays = 0
        self._own: list[Tensor] = []

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """As `Recorder.record`."""
        mode = _Recording()
        try:
            with mode:
                result = work()
        finally:
            mode.restore()
        self._own += mode.own
        self._lose()

        def replay() -> None:
            self.replays += 1
            self._lose()
            mode.replay()

        return replay, result

    def _lose(self) -> None:
        with torch.no_grad():
            for tensor in self._own:
                tensor.fill_(torch.nan if tensor.is_floating_point() else 0)


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.own: list[Tensor] = []
        self._operations: list[Operation] = []
        self._storages: set[int] = set()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.name in READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        for argument, given in zip(func._schema.arguments, [*args], strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in filter(_is_tensor, tree_leaves(given)):
                    self._keep(tensor)
        for name, given in kwargs.items():
            if name == "out":
                self._keep(given)
        inputs = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
        found = func(*args, **kwargs)
        self._operations.append((func, args, kwargs, found))
        for leaf in filter(_is_tensor, tree_leaves(found)):
            if _storage(leaf) not in inputs:
                self._storages.add(_storage(leaf))
                self.own.append(leaf)
        return found

    def _keep(self, tensor: Tensor) -> None:
        """Keeps what a tensor was before this recording, the first time that it is written to."""
        place = _storage(tensor)
        if place not in self._storages and place not in self._before:
            whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
            self._before[place] = (whole, whole.clone())

    def restore(self) -> None:
        """Undoes what was done to tensors that were there before: a capture does nothing."""
        for tensor, before in self._before.values():
            tensor.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, found in self._operations:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(found), tree_leaves(again), strict=True):
                # What is in place or a view has its numbers where they were.
                if _is_tensor(old) and _storage(old) != _storage(new):
                    old.copy_(new)


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, Tensor)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
