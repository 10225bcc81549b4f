"""Torch's switches on a GPU, which any machine has, and the heads that fused kernels can read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from engine_cases import training
from torch.nn.attention import SDPBackend

from arlow_trainer.config import TrainingSection
from arlow_trainer.config.errors import ConfigError
from arlow_trainer.engine.attention import (
    attention_kernels,
    check_heads,
    kernel,
    set_gpu_switches,
)

CUDA = torch.backends.cuda


@pytest.fixture
def switches() -> Iterator[None]:
    """Torch's own are set again afterwards."""
    products = CUDA.matmul
    before = (
        products.allow_fp16_reduced_precision_reduction,
        products.allow_bf16_reduced_precision_reduction,
        CUDA.math_sdp_enabled(),
        CUDA.cudnn_sdp_enabled(),
    )
    yield
    products.allow_fp16_reduced_precision_reduction = before[0]
    products.allow_bf16_reduced_precision_reduction = before[1]
    CUDA.enable_math_sdp(before[2])
    CUDA.enable_cudnn_sdp(before[3])


def test_no_math_fall_back_no_half_sums_and_cudnn_only_where_it_is_sound(switches: None) -> None:
    set_gpu_switches()
    assert not CUDA.math_sdp_enabled()
    assert not CUDA.cudnn_sdp_enabled()
    assert CUDA.mem_efficient_sdp_enabled()
    assert not CUDA.matmul.allow_fp16_reduced_precision_reduction
    assert not CUDA.matmul.allow_bf16_reduced_precision_reduction
    with kernel("memory-efficient"):
        assert not CUDA.cudnn_sdp_enabled()
    with kernel("cudnn"):
        assert CUDA.cudnn_sdp_enabled()
    assert not CUDA.cudnn_sdp_enabled()


def test_a_cpu_takes_its_own_kernel_with_any_bias() -> None:
    kernels = attention_kernels(TrainingSection(), torch.device("cpu"))
    assert set(kernels.values()) == {"cpu"}
    query = torch.zeros(2, 2, 24, 16)
    bias = torch.zeros(1, 1, 24, 24).expand(2, 2, 24, 24)
    for dtype in (torch.float32, torch.bfloat16):
        q = query.to(dtype)
        for mask in (None, bias.to(dtype)):
            chosen = torch._fused_sdp_choice(q, q, q, attn_mask=mask)
            assert chosen == SDPBackend.FLASH_ATTENTION.value


def test_heads_that_no_fused_kernel_reads_are_refused() -> None:
    check_heads(TrainingSection(), "fp16")
    check_heads(training(), "fp16")
    odd = TrainingSection.model_validate({"model": {"embedDim": 72, "numHeads": 6}})
    check_heads(odd, "fp32")
    with pytest.raises(ConfigError, match=r"numHeads is 12; .* fp16 .* multiple of 8"):
        check_heads(odd, "fp16")
