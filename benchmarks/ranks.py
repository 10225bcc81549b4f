"""Work on ranks of its own: DeepSpeed and the process group belong to a process, not to a call."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import torch.multiprocessing
from tests.support.ports import store_socket

from arlow_trainer.engine import Ranks

T = TypeVar("T")


def on_ranks(ranks: int, work: Callable[..., T], *args: Any) -> T:
    """Runs `work(ranks, *args)` on new processes that form a group; returns rank 0's small result.

    Raises torch's ProcessRaisedException with the traceback of a rank that failed.
    """
    results = multiprocessing.get_context("spawn").SimpleQueue()
    with store_socket(ranks) as store:
        torch.multiprocessing.start_processes(
            _rank_main, (ranks, store, results, work, args), nprocs=ranks, start_method="spawn"
        )
    result: T = results.get()
    return result


def _rank_main(
    rank: int,
    size: int,
    store: socket.socket,
    results: Any,
    work: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(store.getsockname()[1]),
    )
    if rank == 0:
        os.environ["ARLOW_STORE_SOCKET"] = str(store.detach())
    group = Ranks()
    try:
        result = work(group, *args)
        if group.first:
            results.put(result)
    finally:
        group.leave()
