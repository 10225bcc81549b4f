"""Work on ranks of its own: DeepSpeed and the process group belong to a process, not to a call."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import torch.multiprocessing

from arlow_trainer.engine import Ranks

T = TypeVar("T")


def on_ranks(ranks: int, work: Callable[..., T], *args: Any) -> T:
    """Runs `work(ranks, *args)` on new processes that form a group; returns rank 0's small result.

    Raises torch's ProcessRaisedException with the traceback of a rank that failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = multiprocessing.get_context("spawn").SimpleQueue()
    torch.multiprocessing.start_processes(
        _rank_main, (ranks, port, results, work, args), nprocs=ranks, start_method="spawn"
    )
    result: T = results.get()
    return result


def _rank_main(
    rank: int, size: int, port: int, results: Any, work: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    group = Ranks()
    try:
        result = work(group, *args)
        if group.first:
            results.put(result)
    finally:
        group.leave()
