"""Two real ranks: learning, being cut in any way, and going on as if nothing had been."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from training_runs import EVERY, STEPS, Ended, Media, TrainingRun, distance, interrupt, same

from arlow_trainer.checkpoint.layout import SAVE_MARK, SaveMark
from arlow_trainer.checkpoint.training_state import TRAINING_STATE
from support.crafting import with_file

# Sums in another order; AdamW makes full steps of gradients that are nothing but rounding.
ROUNDING = 1e-3


@pytest.fixture(scope="module")
def whole(media: Media, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """A run on two ranks that nothing disturbed."""
    run = TrainingRun(tmp_path_factory.mktemp("whole"), media)
    ended = run.train(2)
    assert ended.code == 0, ended.log
    return run


def test_training_lowers_the_loss(whole: TrainingRun) -> None:
    losses = whole.losses()
    assert len(losses) == STEPS // 2
    # 1 is what predicting every hidden patch's own mean would score: less needs its neighbours.
    assert sum(losses[-3:]) / 3 < 0.9


def test_every_checkpoint_is_there_and_reported(whole: TrainingRun) -> None:
    assert whole.checkpoints() == list(range(EVERY, STEPS + 1, EVERY))
    reported = [event["step"] for event in whole.events() if event["kind"] == "checkpoint"]
    assert reported == whole.checkpoints()
    phases = [event["phase"] for event in whole.events() if event["kind"] == "phase"]
    assert phases[-1] == "finished"


@pytest.mark.parametrize(
    ("ranks", "micro_batch"), [(1, 8), (1, 1), (2, 3)], ids=["one-rank", "one-by-one", "threes"]
)
def test_ranks_and_micro_batches_change_nothing(
    whole: TrainingRun, media: Media, tmp_path: Path, ranks: int, micro_batch: int
) -> None:
    run = TrainingRun(tmp_path, media)
    ended = run.train(ranks, f"batch.microBatch={micro_batch}")
    assert ended.code == 0, ended.log
    assert distance(whole, run, EVERY, 2 * EVERY) < ROUNDING
    assert run.losses() == pytest.approx(whole.losses(), rel=0.01)


@dataclass(frozen=True)
class Stopped:
    """A run asked to stop, another that wanted its URL meanwhile, and the same command again."""

    run: TrainingRun
    first: Ended
    step: int
    refused: Ended
    again: Ended


@pytest.fixture(scope="module")
def stopped(media: Media, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    run = TrainingRun(tmp_path_factory.mktemp("stopped"), media)
    with run.running(2) as first:
        first.wait_for(lambda: "training" in first.log)
        # Frozen, so that it lives until the second run has come.
        ranks = [first.rank(0), first.rank(1)]
        for rank in ranks:
            rank.suspend()
        refused = run.train(1)
        for rank in ranks:
            rank.resume()
        first.wait_for(lambda: bool(run.checkpoints()))
        time.sleep(random.uniform(0, 0.5))
        ended = interrupt(first)
    return Stopped(run, ended, run.checkpoints()[-1], refused, run.train(2))


def test_a_run_asked_to_stop_ends_with_a_code_of_its_own(stopped: Stopped) -> None:
    assert stopped.first.code == 75, stopped.first.log
    assert f"stopped at step {stopped.step} of {STEPS} as asked" in stopped.first.log
    assert "Traceback" not in stopped.first.log
    assert EVERY <= stopped.step < STEPS


def test_a_second_live_run_is_refused(stopped: Stopped) -> None:
    assert stopped.refused.code == 73, stopped.refused.log
    assert str(stopped.run.url) in stopped.refused.log
    assert "Traceback" not in stopped.refused.log


def test_a_stopped_run_resumes_as_if_it_was_never_stopped(
    stopped: Stopped, whole: TrainingRun
) -> None:
    assert stopped.again.code == 0, stopped.again.log
    assert f"resuming from {stopped.run.url}/checkpoint-{stopped.step}" in stopped.again.log
    assert same(stopped.run, whole)
    assert stopped.run.losses()[-1] == whole.losses()[-1]


@dataclass(frozen=True)
class Killed:
    """A run of which a rank was killed, then the command itself, and then left alone."""

    run: TrainingRun
    rank: Ended
    family: int
    orphans: list[int]
    last: Ended


@pytest.fixture(scope="module")
def killed(media: Media, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """kill -9 at random moments."""
    run = TrainingRun(tmp_path_factory.mktemp("killed"), media)
    with run.running(2) as first:
        first.wait_for(lambda: bool(run.checkpoints()))
        time.sleep(random.uniform(0, 0.3))
        first.rank(1).kill()
        rank = first.ended()
    before = len(run.checkpoints())
    with run.running(2, "data.workers=1") as second:
        second.wait_for(lambda: len(run.checkpoints()) > before)
        time.sleep(random.uniform(0, 0.3))
        family = second.family()
        second.popen.kill()
        _, alive = psutil.wait_procs(family, timeout=10)
        for process in alive:
            process.kill()
    orphans = [process.pid for process in alive]
    return Killed(run, rank, len(family), orphans, run.train(2))


def test_a_killed_rank_is_named(killed: Killed) -> None:
    assert killed.rank.code == 5, killed.rank.log
    errors = [line for line in killed.rank.log.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "rank 1 was killed by SIGKILL" in errors[0]
    assert "failed: rank 1 was killed by SIGKILL" in killed.rank.log, "also rank 0 knows"


def test_no_rank_and_no_decoding_process_outlives_a_killed_command(killed: Killed) -> None:
    assert killed.family >= 4
    assert killed.orphans == []


def test_a_killed_run_goes_on_as_if_nothing_had_been(killed: Killed, whole: TrainingRun) -> None:
    assert killed.last.code == 0, killed.last.log
    assert f"resuming from {killed.run.url}/checkpoint-" in killed.last.log
    assert same(killed.run, whole)


def test_on_two_ranks_then_one_then_two(whole: TrainingRun, media: Media, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, media)
    run.take_checkpoints(whole, 2 * EVERY)
    with run.running(1) as alone:
        alone.wait_for(lambda: 4 * EVERY in run.checkpoints())
        ended = interrupt(alone)
    assert ended.code == 75, ended.log
    assert f"resuming from {run.url}/checkpoint-{2 * EVERY}" in ended.log
    assert distance(whole, run, 2 * EVERY, 4 * EVERY) < ROUNDING
    cut = run.checkpoints()[-1]
    ended = run.train(2)
    assert ended.code == 0, ended.log
    assert f"resuming from {run.url}/checkpoint-{cut}" in ended.log
    assert distance(whole, run, 2 * EVERY, STEPS) < 10 * ROUNDING


def test_a_damaged_checkpoint_is_passed_over(
    whole: TrainingRun, media: Media, tmp_path: Path
) -> None:
    run = TrainingRun(tmp_path, media)
    run.take_checkpoints(whole, 4 * EVERY)
    # What a kill in the middle of a save leaves behind.
    torn = run.url / f"checkpoint-{STEPS + EVERY}" / "optimizer"
    shutil.copytree(run.url / f"checkpoint-{EVERY}" / "optimizer", torn)
    mark = SaveMark(step=STEPS + EVERY, attempt="a" * 32, started=datetime.now(UTC))
    (torn.parent / SAVE_MARK).write_bytes(mark.to_bytes())
    newest = run.url / f"checkpoint-{4 * EVERY}"
    shard = next(newest.glob("optimizer/rank-00001-*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    ended = run.train(2)
    assert ended.code == 0, ended.log
    assert re.search(rf"passing over {newest}: .*{shard.name}", ended.log)
    assert ended.log.count(f"passing over {newest}") == 1
    assert f"resuming from {run.url}/checkpoint-{3 * EVERY}" in ended.log
    assert same(run, whole)
    assert same(run, whole, 4 * EVERY)
    assert not torn.exists()


def test_a_checkpoint_that_is_as_it_was_written_but_is_none_is_passed_over(
    whole: TrainingRun, media: Media, tmp_path: Path
) -> None:
    run = TrainingRun(tmp_path, media)
    run.take_checkpoints(whole, 4 * EVERY)
    state = run.url / f"checkpoint-{4 * EVERY}" / TRAINING_STATE
    crafted = json.loads(state.read_bytes()) | {"ranks": 10**9}
    with_file(TRAINING_STATE, json.dumps(crafted).encode(), 4 * EVERY)(run.url)
    shard = next((run.url / f"checkpoint-{3 * EVERY}").glob("optimizer/rank-00001-*"))
    name = str(shard.relative_to(shard.parents[1]))
    with_file(name, b"", 3 * EVERY)(run.url)
    ended = run.train(2)
    assert ended.code == 0, ended.log
    for step, reason in ((4, f"{TRAINING_STATE}: says 1,000,000,000 ranks"), (3, f"{name}: is no")):
        said = f"passing over {run.url}/checkpoint-{step * EVERY}: {reason}"
        assert ended.log.count(said) == 1
    assert f"resuming from {run.url}/checkpoint-{2 * EVERY}" in ended.log
    assert same(run, whole)


@pytest.mark.parametrize("ranks", [1, 2])
def test_stopped_before_the_first_step(media: Media, tmp_path: Path, ranks: int) -> None:
    """While a run starts there is nothing to save, and nothing to be called a failure."""
    run = TrainingRun(tmp_path, media)
    with run.running(ranks) as process:
        process.wait_for(lambda: process.catches(signal.SIGTERM))
        ended = interrupt(process)
    assert ended.code == 75, ended.log
    assert "as asked" in ended.log
    assert "Traceback" not in ended.log
    assert run.checkpoints() == []


def test_a_second_ctrl_c_ends_at_once(media: Media, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, media)
    with run.running(2) as process:
        process.wait_for(lambda: "loading" in process.log)
        ranks = process.family()
        assert len(ranks) == 2
        for rank in ranks:
            rank.suspend()  # one that would need long to end as it was asked to
        process.popen.send_signal(signal.SIGINT)
        time.sleep(0.3)
        before = time.monotonic()
        ended = interrupt(process, signal.SIGINT)
        assert time.monotonic() - before < 10
        _, alive = psutil.wait_procs(ranks, timeout=5)
    assert ended.code == 130, ended.log
    assert alive == []
