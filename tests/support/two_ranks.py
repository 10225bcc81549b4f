"""A real gloo group of two processes, for what only ranks can show."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from arlow_trainer.engine import Ranks

from .ports import store_socket

TIMEOUT_S = 180.0


def on_two_ranks(act: Callable[..., Any], *arguments: object) -> list[Any]:
    """Returns what `act(ranks, *arguments)` returns on each of two ranks; both must end well.

    `act` is a module's own function, for it is called in other processes.
    """
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    with store_socket(2) as store:
        group = [
            context.Process(target=_join, args=(rank, store, sender, act, arguments))
            for rank, (_, sender) in enumerate(pipes)
        ]
        for process in group:
            process.start()
    try:
        for (receiver, _), process in zip(pipes, group, strict=True):
            ready = wait([receiver, process.sentinel], TIMEOUT_S)
            assert ready, "the ranks do not answer"
            assert receiver.poll(), "a rank failed; its traceback is above"
        found = [receiver.recv() for receiver, _ in pipes]
        for process in group:
            process.join(TIMEOUT_S)
            assert process.exitcode == 0
        return found
    finally:
        for process in group:
            process.kill()


def _join(
    rank: int,
    store: socket.socket,
    answers: Connection,
    act: Callable[..., Any],
    arguments: tuple[object, ...],
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(store.getsockname()[1]),
    )
    if rank == 0:
        os.environ["ARLOW_STORE_SOCKET"] = str(store.detach())
    ranks = Ranks()
    answers.send(act(ranks, *arguments))
    ranks.leave()
