"""What a step costs the host beside its mathematics: waits, overflow checks, communicators.

In fp16, on a CPU that is said to have it: DeepSpeed then runs as it does on a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from engine_cases import build_runner, samples, weights

from arlow_trainer.engine import Ranks, StepRunner
from support.two_ranks import on_two_ranks

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.counts import Operations

# A device's number becomes a Python object: the host waits until it is computed.
READS = ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__")


@pytest.fixture
def runner(alone: Ranks, monkeypatch: pytest.MonkeyPatch) -> StepRunner:
    build_runner(1)  # tells DeepSpeed its device
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setattr(type(get_accelerator()), "is_fp16_supported", lambda self: True)
    return build_runner(8, "fp16")


class OnTheHost(torch.Tensor):
    """What was copied from the device, and what is computed from it: reading it waits for none."""


class Waits:
    """Counts what would have the host wait, were the engine's tensors on a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[str] = []
        from deepspeed.accelerator import get_accelerator

        monkeypatch.setattr(
            type(get_accelerator()), "synchronize", lambda *_: self.found.append("synchronize")
        )
        for name in READS:
            self._count(monkeypatch, name, getattr(torch.Tensor, name))
        copy = torch.Tensor.cpu

        def copy_to_the_host(tensor: torch.Tensor) -> torch.Tensor:
            self.found.append("cpu")
            return copy(tensor).as_subclass(OnTheHost)

        monkeypatch.setattr(torch.Tensor, "cpu", copy_to_the_host)

    def _count(self, monkeypatch: pytest.MonkeyPatch, name: str, read: Callable[..., Any]) -> None:
        def counted(tensor: torch.Tensor, *arguments: object) -> Any:
            if not isinstance(tensor, OnTheHost) and self._counting:
                self.found.append(name)
            return read(tensor, *arguments)

        monkeypatch.setattr(torch.Tensor, name, counted)

    _counting = True

    @contextmanager
    def not_counted(self) -> Iterator[None]:
        self._counting = False
        yield
        self._counting = True


def test_a_step_waits_for_the_device_once(
    runner: StepRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = Waits(monkeypatch)
    # Masks are drawn on the CPU, and AdamW's number of updates is there unless it is fused.
    adam, draw = runner.engine.optimizer.optimizer, runner._inputs

    def uncounted(act: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            with waits.not_counted():
                return act(*arguments)

        return run

    monkeypatch.setattr(runner, "_inputs", uncounted(draw))
    monkeypatch.setattr(adam, "step", uncounted(adam.step))
    cut = [samples(2, 1, 0), samples(2, 1, 2), samples(2, 4, 4), samples(2, 4, 6)]
    for step in range(4):
        waits.found.clear()
        assert runner.step(step, cut)
        assert waits.found == ["cpu"]
        assert runner.grad_norm() > 0
        assert runner.take_largest_grad_norm() == runner.grad_norm()
        assert waits.found == ["cpu"]


def operations_of_update(runner: StepRunner) -> int:
    counted, update = Operations(), runner.engine.step

    def counting() -> None:
        with counted:
            update()

    runner.engine.step = counting
    assert runner.step(1, [samples(2), samples(2, 4, 2)])
    runner.engine.step = update
    return counted.number


def test_an_update_looks_for_overflows_once(runner: StepRunner) -> None:
    tensors = len(list(runner.engine.module.parameters()))
    operations_of_update(runner)  # makes AdamW's state
    once = operations_of_update(runner)
    runner.engine.optimizer.check_grad_overflow = True
    twice = operations_of_update(runner)
    assert twice - once > 5 * tensors
    assert once < twice / 2
    print(f"operations of an update with {tensors} tensors: {twice} before, {once} now")


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_one_gradient_that_is_not_finite_skips_the_step(runner: StepRunner, value: float) -> None:
    assert runner.step(0, [samples(2)])
    before, scale = weights(runner), runner.loss_scale()
    assert scale is not None
    gradients = runner.engine.module.decoder.mask_token.register_hook(
        lambda gradient: torch.full_like(gradient, value)
    )
    # The first one is forgiven: the scale falls at the second in a row.
    for number in (1, 2):
        assert not runner.step(number, [samples(2), samples(2, 4, 2)])
    assert all(torch.equal(before[name], kept) for name, kept in weights(runner).items())
    assert runner.loss_scale() == scale / 2
    gradients.remove()
    assert runner.step(3, [samples(2)])


def collectives_of_the_default_group(ranks: Ranks) -> tuple[int, float, list[bool]]:
    """How many the group of all ranks has seen after steps and all that is told of them."""
    runner = build_runner(8, ranks=ranks)
    for step in range(3):
        assert runner.step(step, [samples(2, 1, 4 * ranks.rank), samples(2, 4, 4 * ranks.rank + 2)])
    mean = runner.take_losses().means(ranks)[0]
    ranks.agree(lambda: ranks.spread(1.0))
    votes = ranks.any(ranks.first, False)
    ranks.gather(ranks.from_first(lambda: 3))
    ranks.wait()
    seen = dist.group.WORLD._get_sequence_number_for_group()
    return seen, mean, votes


def test_the_default_group_is_never_used() -> None:
    """NCCL would connect it at its first collective, on a card that is already full."""
    first, second = on_two_ranks(collectives_of_the_default_group)
    assert first == second
    seen, _, votes = first
    assert seen == 0
    assert votes == [True, False]
