"""Memory for steps: used again when nobody has it any more, and never before."""

from __future__ import annotations

import torch

from arlow_trainer.data.buffers import BufferPool
from support.gpu import needs_gpu

MIB = 2**20


def test_memory_is_used_again_when_nobody_has_it() -> None:
    pool = BufferPool(None)
    addresses = set()
    for step in range(50):
        memory = pool.take(MIB + step)
        assert memory.shape == (MIB + step,)
        addresses.add(memory.data_ptr())
        del memory
    assert pool.made == len(addresses) == 1


def test_any_view_keeps_it() -> None:
    pool = BufferPool(None)
    memory = pool.take(MIB)
    memory.fill_(7)
    view = memory.view(4, -1)[1:2].split(100, dim=1)[0]
    del memory
    for _ in range(5):
        pool.take(MIB).fill_(9)
    assert pool.made == 2
    assert view.eq(7).all()
    del view
    held = [pool.take(MIB), pool.take(MIB)]
    assert pool.made == 2
    assert held[0].data_ptr() != held[1].data_ptr()


def test_a_larger_one_takes_a_smaller_ones_place() -> None:
    pool = BufferPool(None)
    for size in (MIB, 2 * MIB, 8 * MIB, 2 * MIB, 8 * MIB, 1):
        pool.take(size)
    assert pool.made == 2


def test_a_rank_without_samples_takes_none() -> None:
    assert BufferPool(None).take(0).shape == (0,)


@needs_gpu
def test_memory_is_used_again_when_the_device_has_read_it() -> None:
    pool = BufferPool(torch.cuda.current_stream())
    read = []
    for value in range(20):
        memory = pool.take(256 * MIB)
        assert memory.is_pinned()
        memory.fill_(value)
        read.append(memory.to("cuda", non_blocking=True)[:: 64 * MIB].clone())
        del memory
    assert pool.made == 1
    assert [found.unique().tolist() for found in read] == [[value] for value in range(20)]
