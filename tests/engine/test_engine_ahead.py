"""Blocks compiled beside a rank's start: the first pass finds them, and nothing depends on it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from engine_cases import build_runner, samples, training
from torch._dynamo.utils import counters

import arlow_trainer.engine.ahead
from arlow_trainer.engine import Ranks, StepRunner, build_autoencoder, initialize_engine
from arlow_trainer.engine.ahead import CACHE, CompileAhead, Job
from arlow_trainer.plan.micro_batches import Sizes
from support.gpu import needs_gpu

CPU = torch.device("cpu")
SIZES: dict[Any, Any] = {"image": Sizes((1, 2)), "video": Sizes((1,))}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache that nothing is in, for a process that has compiled nothing."""
    monkeypatch.setenv(CACHE, str(tmp_path / "inductor"))
    (tmp_path / "inductor").mkdir()
    torch._dynamo.reset()
    counters.clear()
    yield tmp_path / "inductor"
    torch._dynamo.reset()


def job(choice: Any = "always", precision: Any = "bf16", sizes: Any = SIZES) -> Job:
    return Job.of(training(choice), precision, CPU, sizes)


def group_of(ahead: CompileAhead) -> list[psutil.Process]:
    assert ahead._process is not None
    first = psutil.Process(ahead._process.pid)
    return [first, *first.children(recursive=True)]


def test_the_first_pass_finds_all_code_and_a_restart_starts_no_process(
    cache: Path, alone: Ranks, tmp_path: Path
) -> None:
    with CompileAhead(job(), tmp_path / "log") as ahead:
        assert ahead.running
        ahead.wait()
        assert not ahead.running
    assert (tmp_path / "log").read_text() == ""
    told: list[str] = []
    runner = build_runner(4, "bf16", sizes=SIZES, compile="always", on_warning=told.append)
    assert runner.step(0, [samples(2), samples(1), samples(1, 4)])
    assert counters["inductor"]["fxgraph_cache_miss"] == 0
    # Forward and backward of two kinds of blocks in three shapes.
    assert counters["inductor"]["fxgraph_cache_hit"] == 12
    assert not told
    with CompileAhead(job(), tmp_path / "log") as again:
        assert not again.running
    assert job(sizes={"image": Sizes((3,))}).done(cache) != job().done(cache)
    assert job(precision="fp32").done(cache) != job().done(cache)


@pytest.mark.parametrize("choice", ["never", "auto"])
def test_where_blocks_are_plain_no_process_is_started(
    choice: str, cache: Path, tmp_path: Path
) -> None:
    with CompileAhead(job(choice), tmp_path / "log") as ahead:
        assert not ahead.running
        ahead.wait()


def test_another_ranks_process_is_enough(cache: Path, tmp_path: Path) -> None:
    with CompileAhead(None, tmp_path / "log") as ahead:
        assert not ahead.running
        ahead.wait()


def test_only_what_is_drawn_is_compiled() -> None:
    section = training("always")
    for probability, drawn in ((0.0, ["image"]), (0.5, ["image", "video"]), (1.0, ["video"])):
        data = section.data.model_copy(update={"video_probability": probability})
        of = section.model_copy(update={"data": data})
        assert list(Job.of(of, "fp32", CPU, SIZES).sizes) == drawn


def test_a_rank_that_ends_leaves_no_process(cache: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with CompileAhead(job(), log) as ahead:
        group = group_of(ahead)
    _, alive = psutil.wait_procs(group, 30)
    assert not alive
    with CompileAhead(job(), log) as ahead:
        # What the kernel does for a rank that is killed.
        assert ahead._process is not None
        assert ahead._process.stdin is not None
        ahead._process.stdin.close()
        _, alive = psutil.wait_procs(group_of(ahead), 60)
        assert not alive
    assert not list(cache.glob("arlow-*"))


def test_a_failure_is_told_once_by_the_first_pass(
    cache: Path, alone: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    told: list[str] = []
    with CompileAhead(job(), tmp_path / "log") as ahead:
        ahead.wait()
        assert ahead._process is not None
        assert ahead._process.returncode == 1
    assert "no-such-compiler" in (tmp_path / "log").read_text()
    assert not list(cache.glob("arlow-*"))
    import torch._inductor.config

    runner = build_runner(4, "bf16", sizes=SIZES, compile="always", on_warning=told.append)
    with torch._inductor.config.patch("cpp.cxx", (None, "no-such-compiler")):
        assert runner.step(0, [samples(2)])
    (text,) = told
    assert "no-such-compiler" in text


def test_a_signal_is_heard_while_it_is_waited_for(cache: Path, tmp_path: Path) -> None:
    def heard(*_: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, heard)
    try:
        with CompileAhead(job(), tmp_path / "log") as ahead:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(InterruptedError):
                ahead.wait()
            assert ahead.running
            group = group_of(ahead)
    finally:
        signal.signal(signal.SIGALRM, before)
    _, alive = psutil.wait_procs(group, 30)
    assert not alive
    assert os.environ[CACHE]


def test_a_process_that_does_not_end_is_ended(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arlow_trainer.engine.ahead, "LONGEST_S", 0.5)
    with CompileAhead(job(), tmp_path / "log") as ahead:
        group = group_of(ahead)
        ahead.wait()
        assert not ahead.running
        _, alive = psutil.wait_procs(group, 30)
        assert not alive
    assert not list(cache.glob("arlow-*"))


@needs_gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_first_pass_on_a_gpu_finds_all_code(
    precision: Any, cache: Path, alone: Ranks, tmp_path: Path
) -> None:
    section = training("always")
    of = Job.of(section, precision, alone.device, SIZES)
    with CompileAhead(of, tmp_path / "log") as ahead:
        ahead.wait()
    assert of.done(cache).exists(), (tmp_path / "log").read_text()
    engine = initialize_engine(build_autoencoder(section), section, precision, alone.device)
    runner = StepRunner(engine, section, 4, 20, SIZES)
    runner.step(0, [samples(2), samples(1), samples(1, 4)])
    assert runner.blocks.plain_because is None
    assert counters["inductor"]["fxgraph_cache_miss"] == 0
    assert counters["inductor"]["fxgraph_cache_hit"] == 12
