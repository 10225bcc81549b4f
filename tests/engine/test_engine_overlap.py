"""Reducing gradients beside the last backward pass, on two ranks of gloo: the same to the bit.

On a CPU it saves nothing and is off; what is shown here is what is reduced, and when.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from engine_cases import Samples, build_runner, samples, weights
from torch.profiler import ProfilerActivity, profile

from arlow_trainer.config.errors import DeviceMemoryError
from arlow_trainer.engine import Ranks, StepRunner
from arlow_trainer.engine.reduction import StepReduction, overlaps
from support.two_ranks import on_two_ranks

GLOBAL_BATCH = 16
BUCKET = 10_000
"""Elements: about a tenth of the model, so that a step fills several."""


def runner(ranks: Ranks, overlap: bool, **options: Any) -> StepRunner:
    made = build_runner(GLOBAL_BATCH, ranks=ranks, **options)
    made.engine.optimizer.reduce_bucket_size = BUCKET
    made._reduction = StepReduction(made.engine, overlap)
    return made


def share(ranks: Ranks, step: int) -> list[Samples]:
    """Of a rank: its last micro-batch is of images on one rank, and of clips on the other."""
    first = 100 * step + 50 * ranks.rank
    parts = [samples(3, first=first), samples(2, first=first + 3), samples(3, 4, first=first + 5)]
    return parts if ranks.first else parts[::-1]


def equal(a: StepRunner, b: StepRunner) -> bool:
    ours, theirs = weights(a), weights(b)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def reduced_and_computed(seen: profile) -> str:
    """A letter for each event of a step in order: r a collective, a a gradient that is added."""
    letters = []
    for event in sorted(seen.events() or (), key=lambda event: event.time_range.start):
        if event.name.startswith("c10d::") and "reduce" in event.name:
            letters.append("r")
        if "AccumulateGrad" in event.name and "evaluate" not in event.name:
            letters.append("a")
    return "".join(letters)


def train(ranks: Ranks, precision: Any) -> dict[str, Any]:
    after, beside = (runner(ranks, overlap, precision=precision) for overlap in (False, True))
    orders = []
    for each in (after, beside):
        assert each.step(0, share(ranks, 0))
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            assert each.step(1, share(ranks, 1))
        orders.append(reduced_and_computed(seen))
    norms = after.grad_norm(), beside.grad_norm()
    return {"same": equal(after, beside), "norms": norms, "orders": orders}


def both(ranks: Ranks) -> dict[str, dict[str, Any]]:
    return {precision: train(ranks, precision) for precision in ("fp32", "bf16")}


def failures(ranks: Ranks) -> dict[str, dict[str, Any]]:
    # The second ends the group.
    return {"one runs out": one_runs_out(ranks), "one fails": one_fails(ranks)}


@pytest.fixture(scope="module")
def trained() -> list[dict[str, dict[str, Any]]]:
    """What both ranks saw in every precision; starting them takes the time."""
    return on_two_ranks(both)


@pytest.fixture(scope="module")
def failed() -> list[dict[str, dict[str, Any]]]:
    """What both ranks saw of every failure."""
    return on_two_ranks(failures)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_the_same_training_to_the_bit(
    trained: list[dict[str, dict[str, Any]]], precision: str
) -> None:
    for rank in (each[precision] for each in trained):
        assert rank["same"]
        assert rank["norms"][0] == rank["norms"][1]
        after, beside = rank["orders"]
        # Votes and the norm are collectives, too, but none is made amid a backward pass.
        assert after.count("r") == beside.count("r") > 8
        assert "r" not in after.rstrip("r")
        assert beside.rstrip("r").count("r") > 4


def halved(part: Samples) -> list[Samples]:
    """Three images as two and one; others as they are."""
    if part.modality == "video" or len(part.indexes) < 3:
        return [part]
    first = part.indexes[0]
    return [samples(2, first=first), samples(1, first=first + 2)]


def one_runs_out(ranks: Ranks) -> dict[str, Any]:
    """Rank 1 has no memory amid its last backward pass, when much is reduced already."""
    plain, beside = runner(ranks, False), runner(ranks, True)
    told: list[str] = []
    beside._on_warning = told.append
    backward = iter([False, False, ranks.rank == 1])

    def refuse(grad: torch.Tensor) -> torch.Tensor:
        if next(backward, False):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return grad

    beside.engine.module.tower.blocks[2].fc1.weight.register_hook(refuse)
    for step in range(2):
        # After the refusal no rank computes more than two images at once.
        assert plain.step(step, list(chain.from_iterable(map(halved, share(ranks, step)))))
        assert beside.step(step, share(ranks, step))
    norms = plain.grad_norm(), beside.grad_norm()
    return {"told": told, "same": equal(plain, beside), "norms": norms}


def test_a_rank_without_memory_lets_none_wait_and_all_do_the_step_again(
    failed: list[dict[str, dict[str, Any]]],
) -> None:
    first, second = (rank["one runs out"] for rank in failed)
    assert first["told"] == second["told"]
    assert "3 images did not fit, and are computed in 2 at once" in first["told"][0]
    for rank in (first, second):
        assert rank["norms"][0] == rank["norms"][1]
        assert rank["same"]


def one_fails(ranks: Ranks) -> dict[str, Any]:
    """Rank 1 fails in its last backward pass; the other waits in a reduction until it has left."""
    beside = runner(ranks, True)
    assert beside.step(0, share(ranks, 0))
    backward = iter([False, False, ranks.rank == 1])
    failed_at: list[int] = []
    reduced: list[int] = []
    reduce = beside._reduction._reduce_next
    beside._reduction._reduce_next = lambda: (reduced.append(1), reduce())[1]  # type: ignore

    def fail(grad: torch.Tensor) -> torch.Tensor:
        if next(backward, False):
            failed_at.append(len(reduced))
            raise ZeroDivisionError
        return grad

    beside.engine.module.tower.blocks[2].fc1.weight.register_hook(fail)
    try:
        beside.step(1, share(ranks, 1))
        ended = "done"
    except (ZeroDivisionError, RuntimeError) as error:
        ended = type(error).__name__
    return {"ended": ended, "failed at": failed_at, "reduced": len(reduced)}


def test_a_failing_rank_reduces_nothing_more(failed: list[dict[str, dict[str, Any]]]) -> None:
    first, second = (rank["one fails"] for rank in failed)
    assert second["ended"] == "ZeroDivisionError"
    assert second["failed at"] == [second["reduced"]]
    assert second["reduced"] > 0
    assert first["ended"] == "RuntimeError"


def test_no_memory_for_the_reduction_itself_is_no_smaller_micro_batch(
    alone: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is half handed over cannot be finished."""
    beside = runner(alone, True)

    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    optimizer = beside.engine.optimizer
    monkeypatch.setattr(optimizer, "reduce_ready_partitions_and_remove_grads", refuse)
    with pytest.raises(DeviceMemoryError, match="too little memory for the reduction"):
        beside.step(0, [samples(2)])


def test_it_is_for_several_ranks_on_gpus() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert overlaps(cuda, 2)
    assert not overlaps(cuda, 1)
    assert not overlaps(cpu, 2)
