"""The guard against non-finite numbers: its decisions, and what it finds on a real engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_cases import build_runner, samples, weights

from arlow_trainer.config.errors import NonFiniteError
from arlow_trainer.engine import FiniteGuard, Ranks, StepRunner
from arlow_trainer.engine.guard import MAX_IN_A_ROW, first_non_finite_module
from arlow_trainer.engine.parts import LossSums


def outcome(finite: bool, scale: float | None) -> Any:
    """What the guard reads of a runner whose module is sound now."""
    return SimpleNamespace(
        last_sums=LossSums(torch.tensor([1.0 if finite else float("nan"), 1.0, 0.0, 0.0])),
        loss_scale=lambda: scale,
        engine=SimpleNamespace(module=torch.nn.Identity()),
        losses=lambda batch: torch.zeros(1),
    )


@pytest.mark.parametrize(
    ("applied", "finite", "scale", "warned"),
    [
        (True, True, None, False),
        (True, True, 1024.0, False),
        (False, True, 1024.0, False),
        (False, True, 1.0, True),
        (False, True, None, True),
        (False, False, 1024.0, True),
        (False, False, None, True),
    ],
)
def test_one_step(
    alone: Ranks, applied: bool, finite: bool, scale: float | None, warned: bool
) -> None:
    reported: list[str] = []
    guard = FiniteGuard(outcome(finite, scale), alone, reported.append)
    guard.after_step(7, applied, [samples(2, first=14), samples(1, 4, first=16)])
    assert len(reported) == warned
    assert all("step 7 holds the samples 14 to 16" in text for text in reported)


@pytest.mark.parametrize(
    ("finite", "scale", "ends"),
    [(False, None, True), (False, 512.0, True), (True, 1.0, True), (True, 512.0, False)],
)
def test_many_steps_in_a_row(alone: Ranks, finite: bool, scale: float | None, ends: bool) -> None:
    reported: list[str] = []
    guard = FiniteGuard(outcome(finite, scale), alone, reported.append)
    for step in range(MAX_IN_A_ROW - 1):
        guard.after_step(step, False, [samples(1)])
    if ends:
        with pytest.raises(NonFiniteError, match=f"{MAX_IN_A_ROW} steps in a row"):
            guard.after_step(MAX_IN_A_ROW, False, [samples(1)])
    else:
        guard.after_step(MAX_IN_A_ROW, False, [samples(1)])
    assert len(reported) == (MAX_IN_A_ROW if ends else 0), "the last one too, before the run ends"


def test_a_low_loss_scale_is_told_once_each_time_it_falls(alone: Ranks) -> None:
    told: list[str] = []
    runner = outcome(True, 512.0)
    guard = FiniteGuard(runner, alone, lambda text: None, told.append)
    scales = [512.0, 256.0, 128.0, 64.0, 512.0, 255.0]
    for step, scale in enumerate(scales):
        runner.loss_scale = lambda scale=scale: scale
        guard.after_step(step, True, [samples(1)])
    assert ["fell to 128 at step 2" in told[0], "fell to 255 at step 5" in told[1]] == [True, True]
    assert len(told) == 2


@pytest.mark.parametrize(
    ("steps", "times"), [([5], 0), ([5, 1004], 1), ([5, 1005], 0), ([5, 9, 15, 500], 1)]
)
def test_losses_that_are_not_finite_more_than_once_in_a_thousand(
    alone: Ranks, steps: list[int], times: int
) -> None:
    told: list[str] = []
    guard = FiniteGuard(outcome(False, 512.0), alone, lambda text: None, told.append)
    for step in steps:
        guard.after_step(step, False, [samples(1)])
        guard.after_step(step + 1, True, [samples(1)])
    assert len(told) == times
    assert all("more than one in 1,000" in text for text in told)


def test_a_step_that_is_applied_breaks_the_row(alone: Ranks) -> None:
    guard = FiniteGuard(outcome(False, None), alone, lambda text: None)
    for step in range(3 * MAX_IN_A_ROW):
        guard.after_step(step, step % MAX_IN_A_ROW == 0, [samples(1)])


@pytest.mark.parametrize(
    "name",
    ["tower.patch_embed", "tower.blocks.3.fc1", "decoder.head", "decoder.blocks.0.norm1"],
)
def test_the_first_non_finite_module_is_named(alone: Ranks, name: str) -> None:
    runner = build_runner(2)
    whole = runner.engine.module
    next(whole.get_submodule(name).parameters()).data.view(-1)[0] = float("inf")
    hooks = [dict(module._forward_hooks) for module in whole.modules()]
    found = first_non_finite_module(whole, lambda: runner.losses(samples(2)))
    assert found == f"module {name}"
    assert [dict(module._forward_hooks) for module in whole.modules()] == hooks


def test_nothing_is_named_where_all_is_finite(alone: Ranks) -> None:
    runner = build_runner(2)
    assert first_non_finite_module(runner.engine.module, lambda: runner.losses(samples(2))) is None


def test_a_broken_tower_ends_the_run_with_its_module_and_its_weights_kept(alone: Ranks) -> None:
    runner = build_runner(2)
    reported: list[str] = []
    guard = FiniteGuard(runner, alone, reported.append)
    assert runner.step(0, [samples(2)])
    guard.after_step(0, True, [samples(2)])
    assert reported == []
    runner.engine.module.tower.blocks[2].attn.proj.bias.data[0] = float("nan")
    before = weights(runner)
    batch = [samples(1, first=8), samples(1, 4, first=9)]
    for step in range(1, MAX_IN_A_ROW):
        applied = runner.step(step, batch)
        assert not applied
        guard.after_step(step, applied, batch)
        assert "module tower.blocks.2.attn.proj on samples [8]" in reported[-1]
    runner.step(MAX_IN_A_ROW, batch)
    with pytest.raises(NonFiniteError, match=r"module tower\.blocks\.2\.attn\.proj"):
        guard.after_step(MAX_IN_A_ROW, False, batch)
    after = weights(runner)
    assert all(torch.equal(before[name].nan_to_num(), after[name].nan_to_num()) for name in before)


def test_steps_go_on_after_one_that_was_skipped(alone: Ranks) -> None:
    """A skipped step leaves neither gradients nor moments behind."""
    broken, sound = build_runner(2), build_runner(2)
    for runner in (broken, sound):
        assert runner.step(0, [samples(2)])
    poison(broken)
    assert not broken.step(1, [samples(2, first=4)])
    cure(broken)
    for runner in (broken, sound):
        assert runner.step(2, [samples(2, first=6)])
    ours, theirs = weights(broken), weights(sound)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def poison(runner: StepRunner) -> None:
    """Non-finite gradients of one parameter, at the next backward pass."""
    parameter = runner.engine.module.tower.blocks[0].fc1.weight
    runner.poisoned = parameter.register_hook(lambda grad: grad * float("inf"))  # type: ignore[attr-defined]


def cure(runner: StepRunner) -> None:
    runner.poisoned.remove()  # type: ignore[attr-defined]
