"""Checkpoints by time, in real ranks."""

from __future__ import annotations

from pathlib import Path

from training_runs import Media, TrainingRun


def test_checkpoints_by_minutes_are_those_of_all_ranks(media: Media, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, media, maxStepsPerEpoch=6)
    ended = run.train(2, "checkpoint.everySteps=0", "checkpoint.everyMinutes=0.000001")
    assert ended.code == 0, ended.log
    # Every step is longer than that.
    assert run.checkpoints() == [1, 2, 3, 4, 5, 6]
