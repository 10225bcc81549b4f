"""Gradients are reduced once a step: the collectives of two real ranks, counted by the profiler."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections import Counter
from multiprocessing.connection import Connection

import pytest
from engine_cases import build_runner, samples
from torch.profiler import ProfilerActivity, profile

from arlow_trainer.engine import Ranks

MICRO_BATCHES = (1, 2, 4)
EACH = 4  # samples of a rank


def count(rank: int, port: int, answers: Connection) -> None:
    """Joins the group, and answers with the collectives of a step for every cut of its share."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    ranks = Ranks()
    runner = build_runner(2 * EACH)
    found = []
    # The first step also makes what later steps reuse.
    for step, parts in enumerate((1, *MICRO_BATCHES)):
        size = EACH // parts
        first = EACH * rank
        cut = [samples(size, first=first + size * number) for number in range(parts)]
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            assert runner.step(step, cut)
        names = [event.name for event in seen.events() or ()]
        found.append(dict(Counter(name for name in names if name.startswith("c10d::"))))
    answers.send(found[1:])
    ranks.leave()


@pytest.fixture(scope="module")
def collectives() -> list[list[dict[str, int]]]:
    """Of each rank, for every cut: how often a step called each collective."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    group = [
        context.Process(target=count, args=(rank, port, sender))
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in group:
        process.start()
    try:
        for receiver, _ in pipes:
            assert receiver.poll(180), "the ranks do not answer"
        found = [receiver.recv() for receiver, _ in pipes]
        for process in group:
            process.join(60)
            assert process.exitcode == 0
        return found
    finally:
        for process in group:
            process.kill()


def test_a_step_reduces_once_however_it_is_cut(
    collectives: list[list[dict[str, int]]],
) -> None:
    for rank in collectives:
        whole, *cut = rank
        assert sum(number for name, number in whole.items() if "reduce" in name) >= 1
        assert cut == [whole] * len(cut)
