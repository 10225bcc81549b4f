"""A step on a device with too little memory: halved and done again, the same training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_cases import WAY, apart, build_runner, samples, weights
from refusing_allocator import RefusingAllocator
from torch.profiler import ProfilerActivity, profile

from arlow_trainer.config.errors import DeviceMemoryError
from arlow_trainer.engine import Ranks, StepRunner
from arlow_trainer.plan.micro_batches import Sizes
from support.two_ranks import on_two_ranks

# Of an image of `engine_cases` and its targets, the largest tensors are patches: 64 x 96 numbers.
IMAGE = 64 * 96
# More than five images need, or the decoder's bias of a clip; less than eight images.
MOST = 5 * IMAGE + IMAGE // 2
SIZES = {"image": Sizes((3, 8)), "video": Sizes((2,))}
BATCH = [samples(7), samples(2, 4, first=7), samples(3, first=9)]


def computed(runner: StepRunner) -> list[tuple[int, int]]:
    """Frames and samples of every forward pass from now on."""
    seen: list[tuple[int, int]] = []
    runner.engine.module.register_forward_pre_hook(
        lambda _, call: seen.append((call[0].shape[1], call[0].shape[0]))
    )
    return seen


def test_a_micro_batch_that_does_not_fit_is_halved_until_it_does(alone: Ranks) -> None:
    told: list[str] = []
    plain = build_runner(12, sizes=SIZES)
    small = build_runner(12, sizes=SIZES, on_warning=told.append)
    start, seen = weights(plain), computed(small)
    random = torch.get_rng_state()
    memory = RefusingAllocator(MOST)
    for number in range(3):
        assert plain.step(number, BATCH)
        with memory:
            assert small.step(number, BATCH)
        assert plain.grad_norm() == pytest.approx(small.grad_norm(), rel=1e-5)
        assert plain.take_losses().means(alone) == pytest.approx(
            small.take_losses().means(alone), rel=1e-5
        )
    # Clips have twice an image's tokens here, and a micro-batch of two fits.
    first, again = seen[:1], seen[1:]
    assert first == [(1, 8)]
    step = [(1, 4), (1, 4), (4, 2), (1, 3)]
    assert again == 3 * step
    assert memory.refusals == 1
    (text,) = told
    assert "micro-batches of 8 images did not fit, and are computed in 4 at once" in text
    assert "CUDA out of memory" in text
    assert apart(weights(plain), weights(small), start) < WAY
    assert torch.equal(torch.get_rng_state(), random)
    assert small.largest_size("image") == 4
    assert small.largest_size("video") == 2


def test_what_a_refused_attempt_made_is_gone_before_the_next(alone: Ranks) -> None:
    small = build_runner(12, sizes=SIZES)
    alive: list[int] = []
    memory = RefusingAllocator(10**9)

    def look(*_: object) -> None:
        if memory.refusals and not alive:
            alive.append(sum(made() is not None for made in memory.made))

    def refuse(grad: torch.Tensor) -> torch.Tensor:
        if not memory.refusals:
            memory.refuse(2**30)
        return grad

    small.engine.module.register_forward_pre_hook(look)
    small.engine.module.tower.blocks[2].fc1.weight.register_hook(refuse)
    with memory:
        assert small.step(0, BATCH)
    assert len(memory.made) > 100
    # Tables of the grid stay.
    assert alive[0] <= 10


def test_memory_that_runs_out_in_the_backward_pass(alone: Ranks) -> None:
    told: list[str] = []
    plain = build_runner(12, sizes=SIZES)
    small = build_runner(12, sizes=SIZES, on_warning=told.append)
    start = weights(plain)
    fail = iter([False, True])
    weight = small.engine.module.tower.blocks[2].fc1.weight

    def refuse(grad: torch.Tensor) -> torch.Tensor:
        # In the second backward pass, when later blocks have their gradients.
        if next(fail, False):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return grad

    weight.register_hook(refuse)
    for number in range(3):
        assert plain.step(number, BATCH)
        assert small.step(number, BATCH)
    assert apart(weights(plain), weights(small), start) < WAY
    (text,) = told
    assert "2 clips did not fit, and are computed in 1" in text
    assert small.engine.optimizer._backward_active_depth == 0


def test_one_sample_that_does_not_fit_ends_the_run(alone: Ranks) -> None:
    runner = build_runner(12, sizes=SIZES)
    with (
        profile(activities=[ProfilerActivity.CPU]) as seen,
        RefusingAllocator(IMAGE // 2),
        pytest.raises(DeviceMemoryError, match=r"one image: CUDA out of.*microBatch") as error,
    ):
        runner.step(0, BATCH)
    assert error.value.exit_code == 4
    names = [event.name for event in seen.events() or ()]
    assert not [name for name in names if name.startswith("c10d::")]


def test_any_other_failure_reduces_nothing(alone: Ranks) -> None:
    """Other ranks would never come to the reduction of one that fails alone."""
    runner = build_runner(12)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    runner.engine.module.decoder.register_forward_hook(fail)
    with (
        profile(activities=[ProfilerActivity.CPU]) as seen,
        pytest.raises(ZeroDivisionError),
    ):
        runner.step(0, BATCH)
    assert not [e.name for e in seen.events() or () if e.name.startswith("c10d::")]
    assert all(parameter.grad is None for parameter in runner.engine.module.parameters())


def one_rank_runs_out(ranks: Ranks) -> dict[str, Any]:
    share = [samples(4, first=4 * ranks.rank)]
    told: list[str] = []
    plain = build_runner(8, ranks=ranks)
    small = build_runner(8, ranks=ranks, on_warning=told.append)
    start, seen = weights(plain), computed(small)
    # More than all of the test's tensors on rank 0, so that it never refuses.
    memory = RefusingAllocator(3 * IMAGE if ranks.rank else 10**9)
    for number in range(2):
        assert plain.step(number, share)
        with memory:
            assert small.step(number, share)
    means = plain.take_losses().means(ranks), small.take_losses().means(ranks)
    too_small = RefusingAllocator(IMAGE // 2 if ranks.rank else 10**9)
    failure = ""
    try:
        with too_small:
            small.step(2, share)
    except DeviceMemoryError as error:
        failure = str(error)
    return {
        "told": told,
        "seen": seen,
        "refusals": memory.refusals,
        "apart": apart(weights(plain), weights(small), start),
        "means": [means[0][:2], means[1][:2]],
        "failure": failure,
    }


def test_ranks_agree_when_one_runs_out_of_memory() -> None:
    first, second = on_two_ranks(one_rank_runs_out)
    assert (first["refusals"], second["refusals"] > 0) == (0, True)
    assert first["told"] == second["told"]
    assert len(first["told"]) == 1
    # Both give the first attempt up, do the step again in halves, and the next in halves at once;
    # of the last, single images are tried.
    assert first["seen"][:5] == [(1, 4)] + 4 * [(1, 2)]
    assert second["seen"][:5] == [(1, 4)] + 4 * [(1, 2)]
    for rank in (first, second):
        assert rank["apart"] < WAY
        plain, small = rank["means"]
        assert plain == pytest.approx(small, rel=1e-5)
        assert "one image" in rank["failure"]


@pytest.fixture
def half_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed refuses fp16 on CPUs that compute it slowly."""
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setattr(type(get_accelerator()), "is_fp16_supported", lambda _: True)


def test_fp16_and_its_loss_scale_survive_a_halving(alone: Ranks, half_on_a_cpu: None) -> None:
    plain = build_runner(12, "fp16", sizes=SIZES)
    small = build_runner(12, "fp16", sizes=SIZES)
    start = weights(plain)
    memory = RefusingAllocator(MOST)
    scales: list[tuple[float | None, float | None]] = []
    for number in range(6):
        applied = plain.step(number, BATCH)
        with memory:
            assert small.step(number, BATCH) == applied
        scales.append((plain.loss_scale(), small.loss_scale()))
    assert memory.refusals == 1
    assert all(ours == theirs for ours, theirs in scales)
    assert apart(weights(plain), weights(small), start) < 0.05


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_many_micro_batches_in_half_precision_lose_nothing(
    alone: Ranks, half_on_a_cpu: None, precision: Any
) -> None:
    """Against float32: as near with 80 micro-batches as with one."""
    exact = build_runner(80, maxGradNorm=1e9)
    exact.step(0, [samples(80)])
    whole, cut = (build_runner(80, precision, maxGradNorm=1e9) for _ in range(2))
    norms = [exact.grad_norm()]
    for runner, parts in ((whole, [samples(80)]), (cut, [samples(1, first=i) for i in range(80)])):
        # A scale that is too high at first is halved.
        for number in range(8):
            if runner.step(number, parts):
                break
        norms.append(runner.grad_norm())
    assert norms[2] == pytest.approx(norms[0], rel=0.01)
    assert norms[1] == pytest.approx(norms[0], rel=0.1)
