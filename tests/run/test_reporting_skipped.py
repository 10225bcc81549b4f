"""The broken files of a run are kept in its checkpoints, so that their limit outlives a resume."""

from __future__ import annotations

from typing import Any

import pytest

from arlow_trainer.checkpoint.card import model_card
from arlow_trainer.checkpoint.training_state import Progress, TrainingState
from arlow_trainer.config import ArlowPretrain, load_run
from arlow_trainer.config.errors import DataError
from arlow_trainer.data import Skipped
from arlow_trainer.engine import Ranks
from arlow_trainer.run.reporting import StepReporter


class Recorder:
    """Records the files that telemetry is given as skipped."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def skipped(self, name: str, reason: str) -> None:
        self.names.append(name)


def state_with(run: ArlowPretrain, skipped: dict[str, str]) -> TrainingState:
    return TrainingState(
        step=7,
        next_sample=7 * run.spec.global_batch_size,
        seed=0,
        ranks=1,
        total_steps=100,
        set_sizes={"image": 25},
        precision="fp32",
        loss=0.25,
        loss_scaler={},
        overflows=0,
        skipped_files=skipped,
        run=run.model_dump(mode="json", by_alias=True, exclude={"status"}),
    )


def test_a_state_names_them_and_comes_back() -> None:
    run = load_run("tiny")
    state = state_with(run, {"a.jpg": "truncated", "b.mp4": "no frames"})
    back = TrainingState.from_bytes(state.to_bytes(), "there")
    assert back.skipped_files == {"a.jpg": "truncated", "b.mp4": "no frames"}
    assert "| Broken files skipped | 2 |" in model_card(run, back, 1000)


def test_the_limit_outlives_a_resume(alone: Ranks) -> None:
    run = load_run("tiny", ["data.maxSkipped=2"])
    nothing: Any = None

    def reporter(recorder: Recorder, progress: Progress) -> StepReporter:
        telemetry: Any = recorder
        return StepReporter(run, telemetry, nothing, alone, progress, 100, 1000)

    progress = Progress()
    first = reporter(Recorder(), progress)
    first.skip([Skipped("a.jpg", "truncated"), Skipped("b.jpg", "empty")])
    saved = state_with(run, progress.skipped_files)

    recorder, resumed = Recorder(), saved.progress
    second = reporter(recorder, resumed)
    # Skipped again in another epoch: neither counted nor reported a second time.
    second.skip([Skipped("a.jpg", "truncated")])
    assert recorder.names == []
    with pytest.raises(DataError, match=r"(?s)3 files cannot be decoded, more than 2.*c\.jpg"):
        second.skip([Skipped("c.jpg", "truncated")])
    assert recorder.names == ["c.jpg"]
    assert resumed.skipped_files == {"a.jpg": "truncated", "b.jpg": "empty", "c.jpg": "truncated"}


def test_a_file_whose_name_is_not_text_is_saved_and_known_again(alone: Ranks) -> None:
    run, recorder, nothing = load_run("tiny", ["data.maxSkipped=2"]), Recorder(), None
    broken = Skipped("b\udcfe.png", "b\udcfe.png: truncated")

    def skip(progress: Progress) -> None:
        telemetry: Any = recorder
        anything: Any = nothing
        StepReporter(run, telemetry, anything, alone, progress, 100, 1000).skip([broken])

    progress = Progress()
    skip(progress)
    saved = state_with(run, progress.skipped_files)
    resumed = TrainingState.from_bytes(saved.to_bytes(), "there").progress
    skip(resumed)
    assert recorder.names == [r"b\udcfe.png"]
    assert resumed.skipped_files == {r"b\udcfe.png": r"b\udcfe.png: truncated"}
