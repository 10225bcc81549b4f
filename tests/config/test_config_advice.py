"""Schedules that are allowed and yet cannot be meant."""

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
    for words in (
        "one pass over ILSVRC/imagenet-1k is 5,004 steps",
        "warm-up of 40,000 never ends",
        "data.repeat=true",
        "2,621,440 steps",
        "optimizer.warmupSteps to about 250",
    ):
        assert words in warning


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


def test_nothing_is_said_of_a_set_whose_size_is_unknown() -> None:
    run = load_run("arlow-vision-3072", ["data.images.path=./pictures"])
    assert known_set_size(run) is None
    assert list(advise(run, None)) == []
    assert len(list(advise(run, 1000))) == 2  # the warm-up, and no checkpoint before the end


def test_the_warm_up_of_a_repeated_run_is_checked_without_the_set() -> None:
    [warning] = advise(load_run("tiny", ["optimizer.warmupSteps=1000"]), None)
    assert "the run has 1,000 steps" in warning
    assert "data.repeat" not in warning


def test_a_checkpoint_interval_beyond_the_run() -> None:
    [warning] = advise(load_run("tiny", ["checkpoint.everySteps=1001"]), None)
    assert warning.startswith("spec.checkpoint.everySteps: 1,001 is more than the run's 1,000")


def test_a_global_batch_that_is_not_its_parts() -> None:
    run = load_run("tiny", ["batch={perDevice: 2, accumulation: 2, globalSize: 33}"])
    [warning] = advise(run, None)
    assert "33 is not perDevice x accumulation x devices = 32" in warning
    assert run.spec.global_batch_size == 33
