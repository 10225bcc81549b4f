"""The dynamic loss scale survives a checkpoint: DeepSpeed's own scaler, cut at every step."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_cases import build_runner, training

from arlow_trainer.engine import Ranks, loss_scaler_state, restore_loss_scaler
from arlow_trainer.engine.setup import deepspeed_config

WINDOW = 5
# Hysteresis used up, growth, one overflow forgiven, growth that refills it, two in a row.
OVERFLOWS = [1, 1, 1, *[0] * 8, 1, *[0] * 13, 1, 1, *[0] * 7, 1]


@pytest.fixture(scope="module", autouse=True)
def plain_engine(alone: Ranks) -> Any:
    """An engine without fp16; DeepSpeed's scaler asks the group it has joined for its rank."""
    return build_runner(1).engine


def fp16_engine() -> Any:
    """What the two functions read of an engine, around a scaler as a run's configuration makes
    it; only its window is shorter."""
    # Not before `initialize_engine`, which tells DeepSpeed its device.
    from deepspeed.runtime.fp16.loss_scaler import CreateLossScaler
    from deepspeed.runtime.precision_config import DeepSpeedFP16Config

    section = deepspeed_config(training(), "fp16", 1)["fp16"] | {"loss_scale_window": WINDOW}
    scaler = CreateLossScaler(
        torch.half, 0, True, DeepSpeedFP16Config(**section).dynamic_loss_scale_args()
    )
    optimizer = SimpleNamespace(loss_scaler=scaler)
    return SimpleNamespace(fp16_enabled=lambda: True, optimizer=optimizer)


def scales(engine: Any, overflows: list[int]) -> list[float]:
    """The scale after each of some steps."""
    scaler, found = engine.optimizer.loss_scaler, []
    for overflow in overflows:
        scaler.update_scale(bool(overflow))
        found.append(scaler.loss_scale)
    return found


@pytest.mark.parametrize("cut", range(len(OVERFLOWS)))
def test_a_restored_scale_falls_and_grows_at_the_same_steps(cut: int) -> None:
    whole, first, second = fp16_engine(), fp16_engine(), fp16_engine()
    expected = scales(whole, OVERFLOWS)
    before = scales(first, OVERFLOWS[:cut])
    saved = json.loads(json.dumps(loss_scaler_state(first)))
    restore_loss_scaler(second, saved)
    assert second.optimizer.loss_scaler.loss_scale == first.optimizer.loss_scaler.loss_scale
    assert before + scales(second, OVERFLOWS[cut:]) == expected
    assert loss_scaler_state(second) == loss_scaler_state(whole)


def test_these_steps_show_every_move_of_the_scale() -> None:
    found = [2.0**16, *scales(fp16_engine(), OVERFLOWS)]
    moves = [later / earlier for earlier, later in pairwise(found)]
    assert {0.5, 1.0, 2.0} == set(moves)
    forgiven = [o for o, move in zip(OVERFLOWS, moves, strict=True) if o and move == 1]
    assert len(forgiven) >= 2


def test_without_fp16_there_is_nothing_to_save(plain_engine: Any) -> None:
    assert loss_scaler_state(plain_engine) == {}
    restore_loss_scaler(plain_engine, loss_scaler_state(fp16_engine()))
    fresh = fp16_engine()
    restore_loss_scaler(fresh, {})
    assert fresh.optimizer.loss_scaler.loss_scale == 2**16
