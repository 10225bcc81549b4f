"""Graphs of small micro-batches: the same training, by replays of what was recorded once.

The recorder emulates CUDA's on a CPU (`recording`); `test_engine_gpu` has the same with CUDA's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_cases import WAY, Samples, apart, build_runner, samples, weights
from recording import EmulatedRecorder
from refusing_allocator import RefusingAllocator

from arlow_trainer.engine import Ranks, StepRunner, accumulation
from arlow_trainer.engine.graphs import Graphs, doubled
from arlow_trainer.engine.linear import add_in_products
from arlow_trainer.engine.reduction import StepReduction
from arlow_trainer.mae.view import MAX_TABLES, grid_rope
from arlow_trainer.plan.micro_batches import Sizes
from support.two_ranks import on_two_ranks

SIZES = {"image": Sizes((3, 8)), "video": Sizes((2,))}
GRAPHED: dict[Any, Any] = {"image": (3,), "video": (2,)}
"""Eight images stay plain."""


def batch(step: int) -> list[Samples]:
    """Full and filled micro-batches of images and clips, a graph's and a plain one between."""
    first = 20 * step
    return [
        samples(3, first=first),
        samples(2, 4, first=first + 3),
        samples(7, first=first + 5),
        samples(2, first=first + 12),
        samples(1, 4, first=first + 14),
    ]


def both(
    steps: int, change: Callable[[StepRunner, int], None] = lambda *_: None, **options: Any
) -> tuple[StepRunner, StepRunner, EmulatedRecorder]:
    """Runners after as many steps, one all plain, the other with graphs."""
    recorder = EmulatedRecorder()
    plain = build_runner(15, sizes=SIZES, **options)
    graphed = build_runner(15, sizes=SIZES, graphs=Graphs(GRAPHED, recorder), **options)
    for step in range(steps):
        for runner in (plain, graphed):
            change(runner, step)
            assert runner.step(step, batch(step))
    return plain, graphed, recorder


def equal(a: StepRunner, b: StepRunner) -> bool:
    ours, theirs = weights(a), weights(b)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replays_are_the_plain_training_to_the_bit(alone: Ranks, precision: Any) -> None:
    plain, graphed, recorder = both(4, precision=precision)
    # A trial of each shape, then four micro-batches of five in each of three steps.
    assert recorder.replays == 2 + 3 * 4
    assert equal(plain, graphed)
    assert plain.grad_norm() == graphed.grad_norm()
    assert plain.take_losses().means(alone) == graphed.take_losses().means(alone)


def test_a_loss_scale_that_changes_is_no_part_of_a_graph(
    alone: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_runner(1)  # tells DeepSpeed its device
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setattr(type(get_accelerator()), "is_fp16_supported", lambda self: True)

    def scale(runner: StepRunner, step: int) -> None:
        runner.engine.optimizer.loss_scaler.cur_scale = 2.0 ** (8 - 2 * step)

    plain, graphed, recorder = both(4, scale, precision="fp16")
    assert recorder.replays == 2 + 3 * 4
    assert equal(plain, graphed)


def test_gradients_that_add_up_in_their_products(alone: Ranks) -> None:
    def products(runner: StepRunner, step: int) -> None:
        if step == 0:
            add_in_products(runner.engine.module, 1)

    plain, graphed, recorder = both(4, products)
    assert recorder.replays == 2 + 3 * 4
    assert equal(plain, graphed)


def test_gradients_that_add_up_in_float32(alone: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(accumulation.ADDED_IN_HALF, "bf16", 2)
    plain, graphed, recorder = both(4, precision="bf16")
    assert recorder.replays == 2 + 3 * 4
    assert equal(plain, graphed)


def test_gradients_that_are_not_finite_are_no_trial(alone: Ranks) -> None:
    def overflow(runner: StepRunner, step: int) -> None:
        # Weights, losses and their gradients are finite in the third step again.
        bias = runner.engine.module.decoder.head.bias.data
        if step < 3:
            bias[0] = (torch.inf, torch.inf, 0.0)[step]

    recorder, told = EmulatedRecorder(), list[str]()
    runner = build_runner(15, sizes=SIZES, graphs=Graphs(GRAPHED, recorder), on_warning=told.append)
    replays = []
    for step in range(4):
        overflow(runner, step)
        runner._reduced_gradients(batch(step))
        runner._reduction.forget()
        replays.append(recorder.replays)
    # The second step's trials tell nothing, those of the third do.
    assert replays == [0, 2, 2 + 2 + 4, 2 + 2 + 2 * 4]
    assert not told


class Wrong(EmulatedRecorder):
    """Its replays do nothing."""

    def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        _, result = super().record(work)
        return lambda: None, result


class Failing(EmulatedRecorder):
    """It has no memory for what it records, after all of it was done."""

    def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        super().record(work)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nDetails")


class Late(EmulatedRecorder):
    """Its fifth replay fails."""

    def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        replay, result = super().record(work)

        def fail() -> None:
            replay()
            if self.replays == 5:
                raise RuntimeError("CUDA error: out of memory")

        return fail, result


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [
        (Wrong(), "its gradients are not those of the plain pass"),
        (Failing(), "CUDA out of memory"),
        (Late(), "CUDA error"),
    ],
    ids=["wrong", "failing", "late"],
)
def test_what_cannot_be_trusted_is_given_up(
    alone: Ranks, recorder: EmulatedRecorder, reason: str
) -> None:
    told: list[str] = []
    plain = build_runner(15, sizes=SIZES)
    graphed = build_runner(
        15, sizes=SIZES, graphs=Graphs(GRAPHED, recorder), on_warning=told.append
    )
    for step in range(4):
        assert plain.step(step, batch(step))
        assert graphed.step(step, batch(step))
    (text,) = told
    assert reason in text
    assert "small micro-batches have no graphs from now on" in text
    assert equal(plain, graphed)
    assert graphed.largest_size("image") == 8


def test_memory_that_runs_out_takes_the_graphs_first(alone: Ranks) -> None:
    told: list[str] = []
    plain = build_runner(15, sizes=SIZES)
    graphed = build_runner(
        15, sizes=SIZES, graphs=Graphs(GRAPHED, EmulatedRecorder()), on_warning=told.append
    )
    start = weights(plain)
    for step in range(4):
        assert plain.step(step, batch(step))
        if step < 2:
            assert graphed.step(step, batch(step))
            continue
        # No more than five images from the third step on: of 64 patches with 96 numbers each.
        with RefusingAllocator(5 * 64 * 96 + 32 * 96):
            assert graphed.step(step, batch(step))
    given_up, halved = sorted(told, key=lambda text: "did not fit" in text)
    assert "no graphs from now on" in given_up
    assert "micro-batches of 8 images did not fit, and are computed in 4 at once" in halved
    assert apart(weights(plain), weights(graphed), start) < WAY


def on_ranks(ranks: Ranks) -> dict[str, Any]:
    """Three runners side by side: plain; graphs; graphs that only rank 1 cannot record. All reduce
    beside the last backward pass, in small buckets."""
    told: list[str] = []
    failing = Failing() if ranks.rank == 1 else EmulatedRecorder()
    recorder = EmulatedRecorder()
    runners = [
        build_runner(30, sizes=SIZES, ranks=ranks),
        build_runner(30, sizes=SIZES, ranks=ranks, graphs=Graphs(GRAPHED, recorder)),
        build_runner(
            30,
            sizes=SIZES,
            ranks=ranks,
            graphs=Graphs(GRAPHED, failing),
            on_warning=told.append,
        ),
    ]
    for runner in runners:
        runner.engine.optimizer.reduce_bucket_size = 10_000
        runner._reduction = StepReduction(runner.engine, overlap=True)
    for step in range(4):
        for runner in runners:
            # One rank's last micro-batch is of images, the other's of clips.
            parts = batch(2 * step + ranks.rank)
            assert runner.step(step, parts if ranks.first else parts[::-1])
    plain, graphed, given_up = runners
    return {
        "replays": recorder.replays,
        "graphs": equal(plain, graphed),
        "given up": equal(plain, given_up),
        "told": told,
    }


def test_on_two_ranks_the_last_micro_batch_is_plain_and_ranks_give_up_together() -> None:
    first, second = on_two_ranks(on_ranks)
    assert first["replays"] == second["replays"] == 2 + 3 * 3
    assert first["told"] == second["told"]
    assert "CUDA out of memory" in first["told"][0]
    for rank in (first, second):
        assert rank["graphs"]
        assert rank["given up"]


def test_a_graph_keeps_its_tables_when_other_grids_take_their_place(alone: Ranks) -> None:
    def crowd(runner: StepRunner, step: int) -> None:
        if step == 3:
            for side in range(2, 4 * MAX_TABLES, 2):
                grid_rope((1, side, side), 24, (4, 4, 4), torch.device("cpu"))

    plain, graphed, recorder = both(4, crowd)
    assert recorder.replays == 2 + 3 * 4
    assert equal(plain, graphed)


def test_a_plain_pass_leaves_no_accumulating_node_behind(alone: Ranks) -> None:
    """It would be of the current stream, and a capture on another one fails for it."""
    runner = build_runner(15)

    def node(parameter: torch.Tensor) -> Any:
        return parameter.view_as(parameter).grad_fn.next_functions[0][0]  # type: ignore

    parameters = list(runner.engine.module.parameters())

    def mark(*_: object) -> None:
        for parameter in parameters:
            node(parameter).metadata["of"] = "the pass"

    runner.engine.module.register_forward_hook(mark)
    assert runner.step(0, batch(0))
    assert not [parameter for parameter in parameters if "of" in node(parameter).metadata]


@pytest.mark.parametrize(
    ("once", "twice", "expected"),
    [
        ([1.0, -2.0], [2.0, -4.0], True),
        ([1.0, -2.0], [1.0, -2.0], False),
        ([1.0, -2.0], [0.0, 0.0], False),
        ([1.0, 1.0], [2.0, 2.001], True),
        ([1.0, 1.0], [2.0, 2.01], False),
        ([0.0, 0.0], [0.0, 0.0], True),
        ([1.0, torch.inf], [2.0, torch.inf], None),
        ([1.0, 1.0], [2.0, torch.nan], False),
    ],
)
def test_doubled(once: list[float], twice: list[float], expected: bool | None) -> None:
    assert doubled([torch.tensor(once)], [torch.tensor(twice)]) is expected


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.bfloat16, 16 * 2**-7), (torch.float16, 16 * 2**-10)]
)
def test_doubled_up_to_rounding_in_half_precision(dtype: torch.dtype, bound: float) -> None:
    once = torch.ones(4096, dtype=dtype)
    within, beyond = (torch.full_like(once, 2 + 2 * bound * by) for by in (0.8, 1.3))
    assert doubled([once], [within])
    assert not doubled([once], [beyond])
