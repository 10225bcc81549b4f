"""Micro-batches that a device does again by itself: the host launches one graph for each of them.

A small micro-batch's kernels take the host longer to launch than the device to compute. Recorded
once for each shape, forward and backward are one launch. A recording reads and writes the same
memory every time: the parameters, their kept gradients (`accumulation`), to which it adds, tables
of the grid, and the inputs of a `Graph`. No Python runs again: nothing that changes from step to
step may be a Python number in it, no hook is called.

All recordings share one pool of memory, so that they hold as much as the largest of them: what one
leaves there is lost when another is done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from arlow_trainer.config import Modality
from arlow_trainer.mae.view import holding_tables

ROUNDINGS = 16
"""How far two ways of adding up one gradient may be apart, in roundings of its dtype; at least
a thousandth, since kernels that add by atomic operations do so in any order."""
_LEAST_APART = 1e-3

Key = tuple[Modality, int, tuple[int, ...]]
"""Of a graph: modality, samples that are computed, a sample's shape."""


class Recorder(Protocol):
    """Records work on a device."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Records what work asks of the device, which does nothing of it now.

        Returns what does it, on the same memory every time, and what work returns: its numbers are
        there after it is done, until any recording of this recorder is done again.
        """
        ...


class CudaRecorder:
    """Records CUDA graphs in one pool of memory, which lives as long as any of them."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """As `Recorder.record`."""
        graph = torch.cuda.CUDAGraph()
        # A capture that fails leaves its own stream as the current one. Other threads, which save
        # a checkpoint or lock memory, may go on meanwhile.
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
        ):
            result = work()
        return graph.replay, result


class Graph:
    """The forward and backward pass of one shape of micro-batch.

    Attributes:
        losses: float32 [size] of the last time it was done; another graph overwrites them.
        proven: whether it did what the plain pass does.
    """

    def __init__(
        self, frames: Tensor, units: Tensor, tables: Mapping[Hashable, Any], recorder: Recorder
    ) -> None:
        """Prepares a graph.

        Args:
            frames, units: of any full micro-batch, on the device.
            tables: all that its pass reads, as `holding_tables` has kept them.
            recorder: what records it.
        """
        # Outside the recorder's pool, in which no input would be safe from other graphs.
        self._frames, self._units = frames.clone(), units.clone()
        self._weights = torch.zeros(frames.shape[0], device=frames.device)
        self._tables = dict(tables)
        self._recorder = recorder
        self._replay: Callable[[], None]
        self.losses: Tensor
        self.proven = False

    def record(self, forward: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Records the pass; `forward` maps frames and units to losses, float32 [size].

        Raises RuntimeError where it needs a table that it was not given: it would be of the pool.
        """

        def work() -> Tensor:
            losses = forward(self._frames, self._units)
            (losses * self._weights).sum().backward()
            return losses.detach()

        held = dict(self._tables)
        with holding_tables(held):
            self._replay, self.losses = self._recorder.record(work)
        if held.keys() != self._tables.keys():
            raise RuntimeError("a table was made while a graph was recorded")

    def replay(self, frames: Tensor, units: Tensor, samples: int, weight: float) -> Tensor:
        """Adds the gradients of a micro-batch to the kept ones, and returns its sum of losses.

        Args:
            frames, units: on the device, filled up to the graph's size.
            samples: those that count, the first.
            weight: of a sample's loss, loss scale included.
        """
        self._frames.copy_(frames, non_blocking=True)
        self._units.copy_(units, non_blocking=True)
        self._weights[:samples].fill_(weight)
        self._weights[samples:].zero_()
        self._replay()
        return self.losses[:samples].sum()


class Graphs:
    """The graphs of a run's small micro-batches.

    The first pass of a shape in a process is plain, and compiles what there is to compile. Then its
    graph is recorded and tried, and used from then on.

    Attributes:
        given_up: why there are none any more.
    """

    def __init__(self, sizes: Mapping[Modality, Collection[int]], recorder: Recorder) -> None:
        """Prepares graphs; none is recorded yet.

        Args:
            sizes: computed samples of the micro-batches that are to have graphs.
            recorder: what records them.
        """
        self.given_up: str | None = None
        self._sizes = {modality: frozenset(of) for modality, of in sizes.items()}
        self._recorder = recorder
        self._passed: set[Key] = set()
        self._graphs: dict[Key, Graph] = {}

    def passed(self, key: Key) -> None:
        """Notes that a shape's plain pass went through."""
        modality, size, _ = key
        if self.given_up is None and size in self._sizes.get(modality, ()):
            self._passed.add(key)

    def proven(self, key: Key) -> Graph | None:
        """Returns the graph to use for a shape; None: its pass is to be plain."""
        graph = self._graphs.get(key)
        return graph if graph is not None and graph.proven else None

    def untried(self, keys: Sequence[Key]) -> list[Key]:
        """Returns those, once each, that are to be tried now."""
        return [
            key for key in dict.fromkeys(keys) if key in self._passed and self.proven(key) is None
        ]

    def recorded(
        self,
        key: Key,
        frames: Tensor,
        units: Tensor,
        tables: Mapping[Hashable, Any],
        forward: Callable[[Tensor, Tensor], Tensor],
    ) -> Graph:
        """Returns a shape's graph, recorded now if it is not; arguments as `Graph` takes them."""
        if key not in self._graphs:
            graph = Graph(frames, units, tables, self._recorder)
            graph.record(forward)
            self._graphs[key] = graph
        return self._graphs[key]

    def give_up(self, reason: str) -> None:
        """Drops all graphs, with their memory; there will be no more."""
        self.given_up = reason
        self._passed.clear()
        self._graphs.clear()


def common_graphs(ranks: Sequence[Mapping[Modality, Collection[int]]]) -> Graphs | None:
    """Returns CUDA graphs of the sizes that all ranks have memory for; None: there are none."""
    first, *others = ranks
    sizes = {
        modality: set(of).intersection(*(other[modality] for other in others))
        for modality, of in first.items()
    }
    return Graphs(sizes, CudaRecorder()) if any(sizes.values()) else None


def doubled(once: Sequence[Tensor], twice: Sequence[Tensor]) -> bool | None:
    """Whether tensors are the doubles of others up to rounding; waits for the device.

    Each may be away by `ROUNDINGS` of its own norm, or a thousandth, and by one rounding of one of
    the largest tensor's: very small numbers have fewer digits. None: they cannot be judged, not all
    doubles are finite.
    """
    rounding = max(torch.finfo(tensor.dtype).eps for tensor in once)
    norms = torch.stack([_norm((2 * tensor).float()) for tensor in once])
    away = torch.stack([_norm(b.float() - 2 * a.float()) for a, b in zip(once, twice, strict=True)])
    bounds = max(ROUNDINGS * rounding, _LEAST_APART) * norms + rounding**2 * norms.max()
    finite, within = torch.stack([norms.isfinite().all(), (away <= bounds).all()]).tolist()
    return bool(within) if finite else None


def _norm(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor)
    return norm
