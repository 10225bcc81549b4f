"""The one buffer that a rank's saves are written from."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from arlow_trainer.checkpoint.copies import Copy, CopyBuffer, layout
from arlow_trainer.config.errors import DeviceMemoryError
from support.gpu import needs_gpu

CPU = torch.device("cpu")


def state(value: float) -> dict[str, Tensor]:
    return {
        "a": torch.full((3, 5), value),
        "b": torch.full((7,), value, dtype=torch.bfloat16),
        "scalar": torch.tensor(value, dtype=torch.float16),
        "none": torch.empty(0),
        "c": torch.zeros(()).expand(9),
        "d": torch.full((4, 6), value).t(),
    }


def counted(sizes: list[int]) -> Callable[[int], Tensor]:
    def allocate(size: int) -> Tensor:
        sizes.append(size)
        return torch.empty(size, dtype=torch.uint8)

    return allocate


def test_a_layout_overlaps_nothing_and_wastes_little() -> None:
    tensors = state(1)
    offsets, size = layout(tensors)
    ends = [offsets[name] + tensor.nbytes for name, tensor in tensors.items()]
    starts = [*list(offsets.values())[1:], size]
    assert all(0 <= start - end < 64 for start, end in zip(starts, ends, strict=True))
    assert all(offset % 64 == 0 for offset in offsets.values())
    assert layout({}) == ({}, 0)


def test_memory_is_taken_once_and_is_of_the_stated_size() -> None:
    sizes: list[int] = []
    buffer = CopyBuffer(state(0), CPU, counted(sizes))
    addresses = set()
    for number in range(5):
        tensors = state(number)
        copy = buffer.copy(tensors)
        copy.wait()
        assert copy.tensors.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(copy.tensors[name], tensor)
            assert copy.tensors[name].dtype == tensor.dtype
        addresses.add(copy.tensors["a"].data_ptr())
    assert sizes == [buffer.nbytes]
    assert len(addresses) == 1


def test_whoever_asks_does_not_wait_for_the_memory() -> None:
    go = threading.Event()

    def slow(size: int) -> Tensor:
        assert go.wait(60)
        return torch.empty(size, dtype=torch.uint8)

    buffer = CopyBuffer(state(0), CPU, slow)
    go.set()
    buffer.copy(state(3)).wait()


def test_a_copy_waits_for_the_one_before_it() -> None:
    buffer = CopyBuffer(state(0), CPU)
    buffer.copy(state(1))
    last = buffer.copy(state(2))
    last.wait()
    assert last.tensors["a"].eq(2).all()


def test_a_machine_without_the_memory_is_explained() -> None:
    def refuse(size: int) -> Tensor:
        raise RuntimeError(f"DefaultCPUAllocator: can't allocate memory: {size} bytes")

    buffer = CopyBuffer(state(0), CPU, refuse)
    with pytest.raises(DeviceMemoryError, match=r"0\.0 GB that this rank's checkpoints are copied"):
        buffer.copy(state(0))


def test_a_failure_is_raised_wherever_the_copy_is_waited_for() -> None:
    def fail() -> None:
        raise ValueError("a bus error")

    copy = Copy({}, fail)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="copying the run's state failed: a bus error"):
            copy.wait()


@needs_gpu
def test_a_gpus_state_is_copied_into_locked_memory() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    tensors = {name: tensor.to(device) for name, tensor in state(0).items()}
    tensors["large"] = torch.zeros(2**26, device=device)
    buffer = CopyBuffer(tensors, device)
    for number in range(3):
        for tensor in (tensors["a"], tensors["large"]):
            tensor.fill_(number)
        # What the stream was asked to do before is copied, whether or not it is done.
        copy = buffer.copy(tensors)
        copy.wait()
        assert copy.tensors["large"].is_pinned()
        assert copy.tensors["large"].eq(number).all()
        assert copy.tensors["a"].eq(number).all()
        assert torch.equal(copy.tensors["d"], tensors["d"].cpu())
