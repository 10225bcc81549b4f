"""Compiled blocks: the same numbers, few compilations, kept between processes, and never an end.

On a CPU inductor writes C++. A shape takes it 20 seconds, so that all tests share two shapes, clips
in fp32 and images in bf16, and one cache; those that need none come first.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_cases import SMALL, WAY, apart, build_runner, samples, training, weights
from torch._dynamo.utils import counters

from arlow_trainer.config import TrainingSection
from arlow_trainer.engine import (
    Ranks,
    StepRunner,
    build_autoencoder,
    initialize_engine,
    install_shard,
    optimizer_shard,
    read_shards,
)
from arlow_trainer.engine.compilation import Blocks
from arlow_trainer.plan.micro_batches import Sizes
from support.gpu import needs_gpu
from support.two_ranks import on_two_ranks

CPU = torch.device("cpu")
KERNELS: dict[Any, Any] = {"image": "memory-efficient", "video": "memory-efficient"}
FP32 = 2e-5
"""How far losses may be apart."""
FP16, BF16 = 0.01, 0.02
"""How far losses in bf16 may be apart, of which eight bits are a loss's own rounding."""
SIZES = {"image": Sizes((2,)), "video": Sizes((2,))}
BATCH = [samples(2), samples(1, 4, first=2), samples(1, first=3)]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache that nothing is in."""
    folder = tmp_path_factory.mktemp("inductor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture
def counted() -> Iterator[Any]:
    """What dynamo counts; nothing is left of what was compiled before."""
    torch._dynamo.reset()
    counters.clear()
    yield counters
    torch._dynamo.reset()


def compiled_with(monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))


@pytest.mark.parametrize(
    ("recompute", "counts"),
    [(False, (1, 2, 3, 4, 5, 6, 7, 8, 9)), (True, (1, 2))],
    ids=["kept", "recomputed"],
)
def test_a_shape_is_compiled_once_whatever_the_depth(
    recompute: bool, counts: tuple[int, ...], counted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More shapes than dynamo compiles by default (8)."""
    compiled_with(monkeypatch, "aot_eager" if recompute else "eager")
    section = TrainingSection.model_validate(
        {
            **SMALL,
            "model": {**SMALL["model"], "depth": 48},
            "mae": {**SMALL["mae"], "decoderDepth": 8},
            "gradientCheckpointing": recompute,
        }
    )
    module = build_autoencoder(section).train()
    blocks = Blocks(module, "always", CPU, KERNELS)
    for _ in range(2):
        for count in counts:
            with blocks.compiled():
                units = torch.arange(4).repeat(count, 1)
                module(samples(count).frames, units).sum().backward()
    assert counted["stats"]["unique_graphs"] == 2 * len(counts)
    assert not counted["graph_break"]


def test_numbers_that_change_from_call_to_call_are_not_compiled_in(
    alone: Ranks, counted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a step: learning rate, samples, a share that does not fill its size; what looks on."""
    compiled_with(monkeypatch, "eager")
    runner = build_runner(4, sizes=SIZES, compile="always")
    for number in range(3):
        runner.step(number, BATCH)
        runner.largest_numbers(BATCH[0])
        runner.losses(samples(1))
    assert counted["stats"]["unique_graphs"] == 4


def test_copies_and_names_of_the_module_are_those_of_a_plain_one() -> None:
    section = TrainingSection.model_validate(SMALL)
    module = build_autoencoder(section)
    names = list(module.state_dict())
    blocks = Blocks(module, "always", CPU, KERNELS)
    assert list(module.state_dict()) == names
    assert all(block._compiled_call_impl is not None for block in module.tower.blocks)
    copied = copy.deepcopy(module)
    assert all(block._compiled_call_impl is None for block in copied.tower.blocks)
    assert blocks.plain_because is None


@pytest.mark.parametrize("fails", ["forward", "backward"])
def test_where_compiling_fails_the_step_is_done_plain(
    fails: str, alone: Ranks, counted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functorch.compile import nop
    from torch._dynamo.backends.common import aot_autograd

    def broken(*_: object) -> Any:
        raise RuntimeError("no kernel for this\nand a page more")

    backend = aot_autograd(
        fw_compiler=broken if fails == "forward" else nop,
        bw_compiler=broken,
    )
    told: list[str] = []
    plain = build_runner(4, sizes=SIZES)
    for number in range(2):
        plain.step(number, BATCH)
    compiled_with(monkeypatch, backend)
    runner = build_runner(4, sizes=SIZES, compile="always", on_warning=told.append)
    for number in range(2):
        assert runner.step(number, BATCH)
    (text,) = told
    assert "the blocks could not be compiled, and run plain from now on" in text
    assert "no kernel for this" in text
    assert "a page more" not in text
    assert runner.engine.optimizer._backward_active_depth == 0
    assert runner.blocks.plain_because
    for name, value in weights(plain).items():
        assert torch.equal(weights(runner)[name], value), name


def test_where_one_rank_cannot_compile_all_are_plain() -> None:
    first, second = on_two_ranks(one_cannot_compile)
    for reason, told, _ in (first, second):
        assert "no kernel for this" in reason
        assert len(told) == 1
    assert torch.equal(first[2], second[2])


def one_cannot_compile(ranks: Ranks) -> Any:
    def broken(*_: object) -> Any:
        raise RuntimeError("no kernel for this")

    torch.compile = partial(torch.compile, backend=broken if ranks.rank else "eager")
    told: list[str] = []
    runner = build_runner(4, sizes=SIZES, ranks=ranks, on_warning=told.append, compile="always")
    for number in range(2):
        runner.step(number, [samples(2, first=4 * number + 2 * ranks.rank)])
    return runner.blocks.plain_because, told, weights(runner)["tower.blocks.0.fc1.weight"]


def train(compile: Any, precision: Any, steps: int, cut: Callable[[int], Any]) -> Any:
    """Each step's mean loss, and the weights at the end."""
    runner = build_runner(4, precision, sizes=SIZES, compile=compile)
    losses = []
    for number in range(steps):
        runner.step(number, cut(number))
        losses.append(runner.take_losses().values[0::2].sum().item() / 4)
    assert (runner.blocks.plain_because is None) == (compile == "always")
    return torch.tensor(losses), weights(runner)


def clips(number: int) -> list[Any]:
    first = 4 * number
    return [samples(2, 4, first), samples(2, 4, first + 2)]


@pytest.fixture(scope="module")
def compiled(cache: Path, alone: Ranks) -> Any:
    """Three steps of clips with compiled blocks, the first in this cache."""
    counters.clear()
    found = train("always", "fp32", 3, clips)
    # Forward and backward of the two kinds of blocks.
    assert counters["inductor"]["fxgraph_cache_miss"] == 4
    return found


def test_compiled_blocks_train_as_plain_ones_in_any_micro_batches(
    compiled: Any, alone: Ranks
) -> None:
    losses, ours = compiled
    start = weights(build_runner(4))
    plain, expected = train("never", "fp32", 3, clips)
    torch.testing.assert_close(losses, plain, rtol=FP32, atol=0)
    assert apart(ours, expected, start) < WAY
    cut, theirs = train("always", "fp32", 3, lambda n: [samples(1, 4, 4 * n + i) for i in range(4)])
    torch.testing.assert_close(losses, cut, rtol=FP32, atol=0)
    assert apart(ours, theirs, start) < WAY


def test_a_restart_compiles_nothing_and_ranks_train_as_one(compiled: Any, cache: Path) -> None:
    """Two processes, each of which gets all of its code from the cache."""
    losses, ours = compiled
    for theirs, found, inductor, weight in on_two_ranks(rank_of_two, str(cache)):
        assert inductor["fxgraph_cache_hit"] == 4
        assert inductor["fxgraph_cache_miss"] == 0
        assert theirs == pytest.approx(losses.tolist(), rel=FP32)
        assert found is None
        name = "tower.blocks.0.fc1.weight"
        torch.testing.assert_close(weight, ours[name], rtol=1e-3, atol=1e-5)


def rank_of_two(ranks: Ranks, cache: str) -> Any:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    runner = build_runner(4, sizes=SIZES, ranks=ranks, compile="always")
    losses = []
    for number in range(3):
        runner.step(number, [clips(number)[ranks.rank]])
        losses.append(runner.take_losses().means(ranks)[0])
    inductor = {name: counters["inductor"][f"fxgraph_cache_{name}"] for name in ("hit", "miss")}
    found = {f"fxgraph_cache_{name}": count for name, count in inductor.items()}
    return losses, runner.blocks.plain_because, found, weights(runner)["tower.blocks.0.fc1.weight"]


def test_a_resumed_run_with_compiled_blocks_is_bitwise_the_same(
    compiled: Any, alone: Ranks, tmp_path: Path
) -> None:
    runner, other = (build_runner(4, sizes=SIZES, compile="always") for _ in range(2))
    runner.step(0, clips(0))
    optimizer_shard(runner.engine).save(tmp_path / "shard.safetensors")
    other.step(0, clips(7))
    install_shard(other.engine, read_shards(other.engine, [tmp_path / "shard.safetensors"]))
    for number in range(1, 3):
        for each in (runner, other):
            each.step(number, clips(number))
    ours, theirs = weights(runner), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_fifty_steps_in_bf16_have_the_losses_of_plain_blocks(compiled: Any, alone: Ranks) -> None:
    """Inductor rounds less: what it computes in one kernel stays in float32."""

    def cut(number: int) -> list[Any]:
        return [samples(2, first=4 * number % 16), samples(2, first=4 * number % 16 + 2)]

    plain, _ = train("never", "bf16", 50, cut)
    found, _ = train("always", "bf16", 50, cut)
    assert plain[-8:].mean() < 0.9 * plain[:8].mean()
    torch.testing.assert_close(found, plain, rtol=BF16, atol=0)
    assert (found - plain).mean().abs() < BF16 / 10 * plain.mean()


def test_without_a_compiler_a_run_on_a_cpu_is_plain(
    alone: Ranks, counted: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch._inductor.config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    told: list[str] = []
    runner = build_runner(4, sizes=SIZES, compile="always", on_warning=told.append)
    # Its own patch: a monkeypatch would leave the option hidden.
    with torch._inductor.config.patch("cpp.cxx", (None, "no-such-compiler")):
        assert runner.step(0, clips(0))
    (text,) = told
    assert "no-such-compiler" in text


@needs_gpu
def test_fifty_steps_in_fp16_have_the_losses_of_plain_blocks(alone: Ranks) -> None:
    losses = {}
    for compile in ("never", "always"):
        section = training(compile)
        engine = initialize_engine(build_autoencoder(section), section, "fp16", alone.device)
        runner = StepRunner(engine, section, 8, 60, SIZES)
        losses[compile] = []
        for number in range(50):
            first = 8 * number % 32
            runner.step(number, [samples(4, first=first), samples(4, 4, first=first + 4)])
            losses[compile].append(runner.last_sums.means(alone)[0])
        assert (runner.blocks.plain_because is None) == (compile == "always")
    assert losses["always"] == pytest.approx(losses["never"], rel=FP16)
