"""What only a GPU shows: the kernel that attention takes in fp16, and no waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from engine_cases import apart, samples, training
from torch.nn.attention import SDPBackend, sdpa_kernel

from arlow_trainer.config import TrainingSection
from arlow_trainer.engine import Ranks, StepRunner, build_autoencoder, initialize_engine
from arlow_trainer.engine.attention import attention_kernels, kernel, set_gpu_switches
from arlow_trainer.engine.graphs import CudaRecorder, Graphs
from arlow_trainer.engine.reduction import StepReduction
from arlow_trainer.mae import MaskedAutoencoder, visible_unit_batch
from arlow_trainer.plan.micro_batches import Sizes
from support.gpu import needs_gpu

FRAMES = pytest.mark.parametrize("frames", [1, 4], ids=["image", "video"])
SCALE = 256.0
"""Of the loss: fp16 loses gradients below 6e-8."""


def autoencoder(device: str, dtype: torch.dtype) -> MaskedAutoencoder:
    return build_autoencoder(training()).to(device, dtype)


def inputs(frames: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    # 11 hidden units of 16 leave 20 visible tokens a step, which is no multiple of 8.
    return samples(2, frames).frames.to(device), visible_unit_batch([3, 4], 16, 11).to(device)


def gradient(module: MaskedAutoencoder) -> torch.Tensor:
    """All gradients as one vector, float64 on the CPU."""
    parts = []
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        parts.append(parameter.grad.flatten().double().cpu())
    return torch.cat(parts)


@needs_gpu
@FRAMES
def test_fp16_takes_the_memory_efficient_kernel_forwards_and_backwards(frames: int) -> None:
    """Turing's only fused kernel that takes a bias: no other is allowed here."""
    exact = autoencoder("cpu", torch.float32)
    expected = exact(*inputs(frames, "cpu"))
    expected.sum().backward()
    half = autoencoder("cuda", torch.float16)
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        losses = half(*inputs(frames, "cuda"))
        (losses.sum() * SCALE).backward()
    torch.testing.assert_close(losses.cpu(), expected, rtol=0.02, atol=0)
    found = gradient(half) / SCALE
    assert bool(found.isfinite().all())
    assert torch.cosine_similarity(found, gradient(exact), dim=0) > 0.98


@needs_gpu
@pytest.mark.parametrize(("images", "length"), [(True, 64), (False, 512)], ids=["image", "clip"])
def test_attention_as_it_is_switched_has_finite_gradients(images: bool, length: int) -> None:
    """At logits of -120, where cuDNN's backward pass gives NaN for 64 tokens."""
    device = torch.device("cuda")
    enabled = torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.cudnn_sdp_enabled()
    set_gpu_switches()
    chosen = attention_kernels(TrainingSection(), device)["image" if images else "video"]
    assert chosen == "memory-efficient" or not images
    heads = torch.randn(3, 8, 24, length, 64, device=device, dtype=torch.float16)
    query, key, value = (part.requires_grad_() for part in heads.unbind(0))
    bias = torch.full((8, 24, length, length), -120.0, device=device, dtype=torch.float16)
    try:
        with kernel(chosen):
            out = torch.nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=bias
            )
            grads = torch.autograd.grad(out.float().sum(), (query, key, value))
    finally:
        torch.backends.cuda.enable_math_sdp(enabled[0])
        torch.backends.cuda.enable_cudnn_sdp(enabled[1])
    assert all(bool(grad.isfinite().all()) for grad in grads)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Every wait of the host for the device is an error."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode(before)


@needs_gpu
def test_first_weights_drawn_on_a_gpu_are_the_seeds_and_spread_as_on_a_cpu() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    torch.manual_seed(5)
    expected = torch.rand(1, device=device)
    torch.manual_seed(5)
    first, again = (build_autoencoder(training(), device).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(1, device=device), expected)
    for name, drawn in build_autoencoder(training()).state_dict().items():
        assert first[name].device == device
        assert torch.equal(first[name], again[name])
        assert first[name].std(correction=0).item() == pytest.approx(
            drawn.std(correction=0).item(), rel=0.3, abs=1e-3
        )


@needs_gpu
def test_gradients_reduced_on_a_stream_of_their_own_are_the_same(alone: Ranks) -> None:
    """The streams, on one GPU; what several ranks reduce is shown on CPUs."""
    found = []
    for overlap in (False, True):
        section = training()
        engine = initialize_engine(build_autoencoder(section), section, "fp16", alone.device)
        engine.optimizer.reduce_bucket_size = 10_000
        runner = StepRunner(engine, section, 8, 20)
        runner._reduction = StepReduction(engine, overlap)
        for step in range(6):
            runner.step(step, [samples(4, first=8 * step), samples(4, 4, first=8 * step + 4)])
        found.append({name: value.cpu() for name, value in engine.module.state_dict().items()})
    after, beside = found
    for name, value in after.items():
        torch.testing.assert_close(beside[name], value)


@needs_gpu
@FRAMES
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_a_step_does_not_wait_for_the_device(
    frames: int, recompute: bool, request: pytest.FixtureRequest
) -> None:
    module = autoencoder("cuda", torch.float16).train()
    if recompute:
        module.gradient_checkpointing_enable()
    pixels, units = inputs(frames, "cuda")
    request.getfixturevalue("no_waiting")
    # Twice: the first step also makes the tables of its grid.
    for _ in range(2):
        (module(pixels, units).sum() * SCALE).backward()


@needs_gpu
def test_cuda_graphs_train_as_plain_passes_do(alone: Ranks) -> None:
    found: list[dict[str, torch.Tensor]] = []
    told: list[str] = []
    graphs = Graphs({"image": (3,), "video": (2,)}, CudaRecorder())
    for given in (None, graphs):
        section = training()
        engine = initialize_engine(build_autoencoder(section), section, "fp16", alone.device)
        sizes: dict[Any, Sizes] = {"image": Sizes((3, 8)), "video": Sizes((2,))}
        runner = StepRunner(engine, section, 12, 20, sizes, None, told.append, given)
        start = {name: value.cpu() for name, value in engine.module.state_dict().items()}
        for step in range(6):
            first = 12 * step
            runner.step(
                step,
                [
                    samples(3, first=first),
                    samples(1, 4, first=first + 3),
                    samples(6, first=first + 4),
                    samples(2, first=first + 10),
                ],
            )
        found.append({name: value.cpu() for name, value in engine.module.state_dict().items()})
    assert not told
    assert graphs.proven(("image", 3, (1, 32, 32, 3)))
    assert graphs.proven(("video", 2, (4, 32, 32, 3)))
    # Kernels that add by atomic operations round in any order.
    assert apart(*found, start) < 0.05
