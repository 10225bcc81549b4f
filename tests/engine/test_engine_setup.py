"""The pure parts: schedule, parameter groups, DeepSpeed's configuration, precision, building."""

from __future__ import annotations

import math
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from engine_cases import training
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from arlow_trainer.config import TrainingSection
from arlow_trainer.engine import Ranks, build_autoencoder, effective_precision, learning_rate
from arlow_trainer.engine.parameters import parameter_groups
from arlow_trainer.engine.ranks import TIMEOUT, set_timeouts
from arlow_trainer.engine.setup import MIN_LOSS_SCALE, Precision, deepspeed_config, forget_nvml


def test_learning_rate_at_the_corners() -> None:
    def rate(step: int) -> float:
        return learning_rate(step, total_steps=110, warmup_steps=10, peak=2.0)

    assert rate(0) == pytest.approx(0.2)
    assert rate(4) == pytest.approx(1.0)
    assert rate(9) == rate(10) == 2.0
    assert rate(60) == pytest.approx(1.0)
    assert rate(35) == pytest.approx(1 + math.cos(math.pi / 4))
    assert 0 < rate(109) < 0.001
    assert rate(110) == pytest.approx(0.0)
    assert rate(500) == pytest.approx(0.0)


@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 1), (5, 5), (5, 40_000), (5, 4)])
def test_learning_rate_of_short_runs(total: int, warmup: int) -> None:
    rates = [learning_rate(step, total, warmup, 1.0) for step in range(total)]
    assert all(0 < rate <= 1 for rate in rates)
    if warmup >= total:
        assert rates == [(step + 1) / warmup for step in range(total)]
    if warmup == 0:
        assert rates[0] == 1.0


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_learning_rate_rises_and_then_falls(total: int, warmup: int) -> None:
    steps = range(0, total, max(1, total // 50))
    rates = [learning_rate(step, total, warmup, 1.0) for step in steps]
    before = [rate for step, rate in zip(steps, rates, strict=True) if step < warmup]
    after = [rate for step, rate in zip(steps, rates, strict=True) if step >= warmup]
    assert before == sorted(before)
    assert after == sorted(after, reverse=True)


def test_no_decay_on_biases_norms_and_tokens() -> None:
    module = build_autoencoder(training())
    matrices, vectors = parameter_groups(module, 0.05)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decayed = {names[id(parameter)] for parameter in matrices["params"]}
    spared = {names[id(parameter)] for parameter in vectors["params"]}
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.05, 0.0)
    assert decayed | spared == set(names.values())
    assert not decayed & spared
    norms = {f"{name}.weight" for name, m in module.named_modules() if isinstance(m, nn.LayerNorm)}
    biases = {name for name in names.values() if name.endswith("bias")}
    assert spared == norms | biases | {"decoder.mask_token"}


def test_deepspeed_config_of_each_precision() -> None:
    section = TrainingSection.model_validate({"optimizer": {"maxGradNorm": 0.7}})
    configs: dict[Precision, dict[str, object]] = {
        precision: deepspeed_config(section, precision, 1_000)
        for precision in ("fp32", "bf16", "fp16")
    }
    for config in configs.values():
        assert config["gradient_clipping"] == 0.7
        assert config["gradient_accumulation_steps"] == 1
        zero = config["zero_optimization"]
        assert isinstance(zero, dict)
        assert (zero["stage"], zero["reduce_bucket_size"]) == (2, 1_000)
        assert zero["use_multi_rank_bucket_allreduce"] is False
    assert "fp16" not in configs["fp32"]
    assert "bf16" not in configs["fp32"]
    assert configs["bf16"]["bf16"] == {"enabled": True}
    scaler = configs["fp16"]["fp16"]
    assert isinstance(scaler, dict)
    assert scaler["enabled"] is True
    assert scaler["min_loss_scale"] == MIN_LOSS_SCALE
    assert "loss_scale" not in scaler, "a fixed scale is not dynamic"
    huge = deepspeed_config(section, "fp16", 10**12)["zero_optimization"]
    assert huge["reduce_bucket_size"] == 100_000_000
    assert huge["allgather_bucket_size"] == 500_000_000


@pytest.mark.parametrize(
    ("declared", "device", "expected"),
    [
        ("fp16", "cpu", "fp32"),
        ("bf16", "cpu", "bf16"),
        ("fp32", "cpu", "fp32"),
        ("fp16", "cuda", "fp16"),
        ("fp32", "cuda", "fp32"),
    ],
)
def test_effective_precision(declared: Precision, device: str, expected: Precision) -> None:
    assert effective_precision(declared, torch.device(device)) == expected


def test_the_seed_alone_decides_the_first_weights() -> None:
    torch.manual_seed(5)
    first = build_autoencoder(training()).state_dict()
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), expected), "building draws from the global generator"
    again = build_autoencoder(training()).state_dict()
    assert all(torch.equal(again[name], value) for name, value in first.items())
    other = build_autoencoder(training().model_copy(update={"seed": 1})).state_dict()
    assert not torch.equal(other["tower.blocks.0.fc1.weight"], first["tower.blocks.0.fc1.weight"])


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of both devices: on a GPU they would fail."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        found = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        # A number on the host is taken along.
        devices = {leaf.device.type for leaf in found if leaf.ndim}
        assert len(devices) <= 1, f"{func} on {devices}"
        made: torch.Tensor = func(*args, **(kwargs or {}))
        return made


def test_first_weights_are_drawn_on_the_device_alone() -> None:
    meta = torch.device("meta")
    with OneDevice():
        module = build_autoencoder(training(), meta)
    named = [*module.named_parameters(), *module.named_buffers()]
    assert {name for name, tensor in named if tensor.device != meta} == set()
    assert torch.get_default_device() == torch.device("cpu")


def test_deepspeed_reads_devices_that_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NVML, which a GPU install brings, it would take CUDA_VISIBLE_DEVICES for numbers."""
    from deepspeed.accelerator import cuda_accelerator

    nvml = SimpleNamespace(nvmlDeviceGetHandleByIndex=lambda index: index)
    monkeypatch.setattr(cuda_accelerator, "pynvml", nvml)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1f2e")
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: 1)
    properties = SimpleNamespace(total_memory=10)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    accelerator = object.__new__(cuda_accelerator.CUDA_Accelerator)
    with pytest.raises(ValueError, match="MIG-1f2e"):
        accelerator.available_memory(0)
    forget_nvml()
    assert accelerator.available_memory(0) == 9


def test_every_group_has_the_one_timeout(alone: Ranks) -> None:
    group = dist.new_group([0], timeout=timedelta(minutes=10))
    set_timeouts()
    for each in (group, dist.group.WORLD):
        assert each is not None
        assert each._get_backend(torch.device("cpu")).options._timeout == TIMEOUT
