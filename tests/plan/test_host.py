"""What a plan says of the node: against the real loader and the real saves, and by hand."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arlow_trainer.checkpoint.copies import layout
from arlow_trainer.config import ArlowPretrain, DataSection, SourceSection, load_run
from arlow_trainer.data import StepLoader, buffers, open_source
from arlow_trainer.engine import build_autoencoder
from arlow_trainer.plan.host import (
    checkpoint_bytes,
    checkpoint_copy_seconds,
    compiling,
    decoding_cores,
    decoding_processes,
    host_memory,
    start_seconds,
)
from arlow_trainer.plan.loading import STEPS_AHEAD, buffer_bytes, loader_memory
from arlow_trainer.plan.parameters import total_parameters
from support.loaders import one_rank_loader

FULL = "arlow-vision-3072"


def full(*overrides: str) -> ArlowPretrain:
    return load_run(FULL, overrides)


@pytest.fixture
def noise(tmp_path: Path) -> StepLoader:
    """A loader of steps of 8 images of 224 px, with two decoding processes."""
    for number in range(16):
        pixels = np.random.default_rng(number).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg")
    data = DataSection(image_size=224, video_probability=0.0)
    source = open_source(SourceSection(path=str(tmp_path)), "image")
    return one_rank_loader(data, {"image": source}, batch=8, workers=2)


def test_the_loader_holds_what_is_planned(
    noise: StepLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(size: int) -> int:
        made.append(buffer_bytes(size))
        return made[-1]

    monkeypatch.setattr(buffers, "buffer_bytes", counted)
    planned = loader_memory(DataSection(video_probability=0.0), 2, images=8, clips=0)
    assert noise._decoder.slots.nbytes == planned.slots
    steps = iter(noise)
    for _ in islice(steps, 12):
        time.sleep(0.1)
    steps.close()
    # All steps are of one size, so that each buffer is used again.
    assert 1 < len(made) <= STEPS_AHEAD + 3
    assert sum(made) <= planned.buffers


def test_clips_of_a_share_beyond_the_bound_are_one_step_ahead() -> None:
    data = DataSection()
    few, many = (loader_memory(data, 7, images=0, clips=clips) for clips in (8, 800))
    frame = 224 * 224 * 3
    assert few.slots == many.slots == 16 * frame * (3 * 7 + 1)
    assert few.buffers == pytest.approx(8 * 16 * frame * 9 / 8 * 7, rel=0.06)
    assert many.buffers == pytest.approx(800 * 16 * frame * 9 / 8 * 4, rel=0.01)


@pytest.mark.parametrize(
    ("overrides", "ranks", "workers"),
    [
        ([], 8, 7),  # 8 cores a GPU
        (["nodes.cpu=128"], 8, 15),
        (["nodes.cpu=128", "data.workers=4"], 8, 4),
        (["nodes.gpus=0", "nodes.ranks=2", "nodes.cpu=32"], 2, 2),
    ],
)
def test_decoding_processes_are_the_runs(overrides: list[str], ranks: int, workers: int) -> None:
    run = full(*overrides)
    assert decoding_processes(run, ranks) == workers
    assert host_memory(run, ranks).decoding_processes == workers


def test_the_copy_of_a_checkpoint_is_counted_as_it_is_laid_out() -> None:
    run = load_run("tiny", ["nodes.gpus=1"])
    module = build_autoencoder(run.spec.training)
    weights = dict(module.state_dict())
    state = {f"{name}.{key}": value for name, value in weights.items() for key in "abc"}
    _, size = layout(weights | state)
    assert host_memory(run, 1).checkpoint == checkpoint_bytes(run)
    # 64 bytes a tensor at the most.
    assert 0 <= size - checkpoint_bytes(run) < 64 * (len(weights) + len(state))


def test_nodes_share_the_state_and_the_first_also_copies_the_weights() -> None:
    parameters = total_parameters(full().spec.training)
    assert host_memory(full(), 8).checkpoint == pytest.approx(14 * parameters, abs=8)
    two = host_memory(full("nodes.count=2"), 8).checkpoint
    assert two == pytest.approx((12 / 2 + 2) * parameters, abs=16)
    host = host_memory(full(), 8)
    assert host.total == host.processes + host.shared + host.locked


def test_a_copy_is_rank_0s_share_over_the_bus() -> None:
    parameters = total_parameters(full().spec.training)
    assert checkpoint_copy_seconds(full("nodes.gpus=1"), 50e9) == pytest.approx(
        14 * parameters / 50e9
    )
    assert checkpoint_copy_seconds(full(), 11e9) == pytest.approx(3.5 * parameters / 11e9)


def test_a_start_waits_for_whichever_takes_longer_imports_or_the_check() -> None:
    assert start_seconds(load_run("tiny")).imports == 15
    many, one = full("model.depth=96"), full("nodes.gpus=1", "model.depth=96")
    # On many ranks the disk bounds it; a file is hashed by one thread.
    assert start_seconds(many).imports == pytest.approx(checkpoint_bytes(many) / 2e9)
    state = 12 * total_parameters(one.spec.training)
    assert start_seconds(one).imports == pytest.approx(state / 1.7e9)
    whole = start_seconds(full())
    parts = (whole.imports, whole.data, whole.model, whole.restore, whole.first_step)
    assert whole.total == sum(parts)


def test_compiling_is_waited_for_after_what_it_runs_beside() -> None:
    """5 to 14 s a shape behind 15 s of imports, beside data and model, 7.5 s."""
    found = compiling(full(), 8, 8)
    assert (found.shapes, found.least_seconds, found.most_seconds) == (8, 47.5, 119.5)
    # A process like a rank, inductor's four workers, and the one that starts them.
    assert found.host_bytes == 8 * (4_000_000_000 + 5 * 400_000_000)
    assert compiling(full("nodes.cpu=8"), 8, 8).host_bytes == 8 * 4_800_000_000


def test_sixteen_cores_decode_what_they_did() -> None:
    """192 images and 64 clips in 0.26 s."""
    assert decoding_cores(192 / 0.26, 64 / 0.26) == pytest.approx(16, rel=0.1)
