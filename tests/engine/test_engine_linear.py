"""Weight gradients that add up in their products, against autograd's own sums."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from engine_cases import build_runner, samples, training, weights
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from arlow_trainer.config import load_run
from arlow_trainer.engine import Ranks, StepRunner, build_autoencoder
from arlow_trainer.engine.linear import LEAST_NUMBERS, AddingLinear, add_in_products
from arlow_trainer.mae import visible_unit_batch


class Layers(nn.Module):
    def __init__(self, run: Callable[..., Tensor] = lambda part, x: part(x)) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8, bias=False), nn.Linear(8, 6)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        # The first is used twice.
        return self.run(self.part, self.run(self.part, x))

    def part(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


def recomputed(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return checkpoint(part, x, use_reentrant=False)


@pytest.mark.parametrize("run", [lambda part, x: part(x), recomputed], ids=["kept", "recomputed"])
@pytest.mark.parametrize("batches", [1, 2, 5])
def test_gradients_are_the_sums(run: Callable[..., Tensor], batches: int) -> None:
    torch.manual_seed(0)
    plain = Layers(run)
    adding = copy.deepcopy(plain)
    add_in_products(adding, 1)
    assert isinstance(adding.first, AddingLinear)
    assert list(adding.state_dict()) == list(plain.state_dict())
    seen: list[int] = []
    adding.first.weight.register_post_accumulate_grad_hook(lambda _: seen.append(1))
    for _ in range(batches):
        x = torch.randn(4, 5, 6)
        gradients = []
        for layers in (plain, adding):
            given = x.clone().requires_grad_()
            layers(given).square().sum().backward()
            gradients.append(given.grad)
        assert torch.equal(*gradients)
    # Once a backward pass, as autograd does: that is what a reduction waits for.
    assert len(seen) == batches
    for one, other in zip(adding.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("watched", [False, True])
def test_no_second_gradient_is_made(watched: bool) -> None:
    layer = nn.Linear(6, 8)
    add_in_products(layer, 1)
    if watched:
        layer.weight.register_post_accumulate_grad_hook(lambda _: None)
    layer(torch.randn(3, 6)).sum().backward()
    assert layer.weight.grad is not None
    place = layer.weight.grad.data_ptr()
    layer(torch.randn(3, 6)).sum().backward()
    assert layer.weight.grad.data_ptr() == place


def test_half_precision_is_rounded_once() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 64, bias=False).bfloat16()
    add_in_products(layer, 1)
    exact = torch.zeros(64, 64, dtype=torch.float64)
    plain = torch.zeros(64, 64, dtype=torch.bfloat16)
    for _ in range(16):
        x, gradient = torch.randn(32, 64).bfloat16(), torch.randn(32, 64).bfloat16()
        layer(x).backward(gradient)
        exact += gradient.double().T @ x.double()
        plain += gradient.T @ x
    assert layer.weight.grad is not None
    ours, autograds = (float((of.double() - exact).norm()) for of in (layer.weight.grad, plain))
    assert ours <= autograds * 1.01


def test_a_frozen_layer_and_no_gradients() -> None:
    layer = nn.Linear(6, 8)
    add_in_products(layer, 1)
    x = torch.randn(3, 6)
    with torch.no_grad():
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    layer.weight.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None


def test_a_compiler_sees_a_plain_layer() -> None:
    layers = Layers()
    add_in_products(layers, 1)
    x = torch.randn(4, 6)
    torch.testing.assert_close(torch.compile(layers, fullgraph=True)(x), layers(x))


@pytest.mark.parametrize("recompute", [False, True])
def test_micro_batches_of_an_autoencoder(recompute: bool) -> None:
    plain, adding = (build_autoencoder(training()).train() for _ in range(2))
    if recompute:
        adding.gradient_checkpointing_enable()
    add_in_products(adding, 1)
    for frames in (1, 4):
        pixels = torch.randint(0, 256, (2, frames, 32, 32, 3), dtype=torch.uint8)
        units = visible_unit_batch([3, 4], 16, 12)
        for module in (plain, adding):
            module(pixels, units).sum().backward()
    others = dict(plain.named_parameters())
    for name, parameter in adding.named_parameters():
        torch.testing.assert_close(parameter.grad, others[name].grad, rtol=1e-4, atol=1e-5)


def flat(runner: StepRunner) -> Tensor:
    return torch.cat([weight.flatten() for weight in weights(runner).values()])


def test_steps_of_the_engine_are_the_same(alone: Ranks) -> None:
    plain, adding = build_runner(12), build_runner(12)
    start = flat(plain)
    add_in_products(adding.engine.module, 1)
    batch = [samples(3), samples(2, 4, first=3), samples(3, first=5)]
    for number in range(3):
        for runner in (plain, adding):
            assert runner.step(number, batch)
        assert plain.grad_norm() == pytest.approx(adding.grad_norm(), rel=1e-5)
    # AdamW makes a step of the rounding of a gradient that is none, as of some biases.
    assert (flat(adding) - flat(plain)).norm() < 1e-4 * (flat(plain) - start).norm()


def test_large_layers_alone() -> None:
    full = build_autoencoder(load_run("arlow-vision-3072").spec.training, torch.device("meta"))
    add_in_products(full)
    chosen = [layer for layer in full.modules() if isinstance(layer, AddingLinear)]
    # Projections of attention to q, k and v and both of the MLP, 48 blocks; the mergers'.
    assert len(chosen) > 3 * 48
    assert all(layer.weight.numel() >= LEAST_NUMBERS for layer in chosen)
    tiny = build_autoencoder(load_run("tiny").spec.training)
    add_in_products(tiny)
    assert not [layer for layer in tiny.modules() if isinstance(layer, AddingLinear)]
