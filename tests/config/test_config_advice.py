"""Warnings about schedules that are allowed but probably unintended."""

from __future__ import annotations

import pytest

from arlow_trainer.config import advise, known_set_size, load_run, steps_per_epoch, total_steps

IMAGENET = 1_281_167


def test_the_default_run_is_advised_about_its_warm_up() -> None:
    run = load_run("arlow-vision-3072")
    assert known_set_size(run) == IMAGENET
    assert total_steps(run, IMAGENET) == 5004
    [warning] = advise(run, known_set_size(run))
    assert warning.startswith("spec.training.optimizer.warmupSteps: ")
    for text in (
        "one pass over ILSVRC/imagenet-1k is 5,004 steps",
        "25% of them clips, so that it shows 75% of the images",
        "warm-up of 40,000 never ends",
        "data.repeat=true",
        "2,621,440 steps",
        "optimizer.warmupSteps to about 250",
    ):
        assert text in warning


@pytest.mark.parametrize("override", ["data.repeat=true", "optimizer.warmupSteps=250"])
def test_following_the_advice_ends_it(override: str) -> None:
    run = load_run("arlow-vision-3072", [override])
    assert list(advise(run, known_set_size(run))) == []


def test_tiny_needs_no_advice() -> None:
    assert list(advise(load_run("tiny"), None)) == []


def test_an_epoch_is_one_pass_in_whole_batches_and_at_most_the_limit() -> None:
    one_pass = load_run("tiny", ["data.repeat=false", "maxStepsPerEpoch=50"])
    assert steps_per_epoch(one_pass, 32 * 10 + 31) == 10
    assert steps_per_epoch(one_pass, 32 * 51) == 50
    assert steps_per_epoch(one_pass, 5) == 1
    repeated = load_run("tiny", ["maxStepsPerEpoch=50", "epochs=3"])
    assert total_steps(repeated, 5) == 150


def test_a_pass_of_images_alone_shows_them_all() -> None:
    run = load_run("arlow-vision-3072", ["data.videoProbability=0"])
    [warning] = advise(run, known_set_size(run))
    assert "5,004 steps of 256 samples, and the run has 5,004 steps" in warning


def test_a_set_of_unknown_size_is_assumed_to_last_for_the_maximum_of_steps() -> None:
    run = load_run("arlow-vision-3072", ["data.images.path=./photographs"])
    assert known_set_size(run) is None
    assert list(advise(run, None)) == []
    assert len(list(advise(run, 1000))) == 2  # the warm-up, and no checkpoint before the end
    short = load_run("arlow-vision-3072", ["data.images.path=./x", "maxStepsPerEpoch=500"])
    warmup, checkpoint = advise(short, None)
    assert "the run has at most 500 steps (epochs x maxStepsPerEpoch), so a warm-up" in warmup
    assert "data.repeat" not in warmup  # it would not make the run longer
    assert "more than the run's at most 500 steps" in checkpoint


def test_more_epochs_make_room_for_a_warm_up() -> None:
    settings = ["data.images.path=./x", "maxStepsPerEpoch=500", "epochs=100"]
    assert list(advise(load_run("arlow-vision-3072", settings), None)) == []


def test_a_pass_that_is_cut_is_not_called_one() -> None:
    run = load_run("arlow-vision-3072", ["maxStepsPerEpoch=2000"])
    [warning] = advise(run, IMAGENET)
    assert "an epoch over ILSVRC/imagenet-1k is cut at maxStepsPerEpoch = 2,000 steps" in warning
    assert "one pass" not in warning
    assert "data.repeat" not in warning


def test_the_warm_up_of_a_repeated_run_is_checked_without_the_set() -> None:
    [warning] = advise(load_run("tiny", ["optimizer.warmupSteps=1000"]), None)
    assert "the run has 1,000 steps" in warning
    assert "data.repeat" not in warning


def test_a_checkpoint_interval_beyond_the_run() -> None:
    [warning] = advise(load_run("tiny", ["checkpoint.everySteps=1001"]), None)
    assert warning.startswith("spec.checkpoint.everySteps: 1,001 is more than the run's 1,000")


def test_memory_ends_with_the_process() -> None:
    [warning] = advise(load_run("tiny", ["checkpoint.url=memory://runs"]), None)
    assert warning.startswith("spec.checkpoint.url: memory://runs is this process's memory")


@pytest.mark.parametrize("repeat", ["true", "false"])
def test_a_global_batch_that_is_not_its_parts(repeat: str) -> None:
    batch = "batch={perDevice: 2, accumulation: 2, globalSize: 33}"
    run = load_run("tiny", [batch, f"data.repeat={repeat}", "data.images.path=./x"])
    [warning] = advise(run, None)
    assert "33 is not perDevice x accumulation x devices = 32" in warning
    assert run.spec.global_batch_size == 33
