"""What a start must neither delete nor take for its own, and what a resume says has changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from training_runs import Ended, Media, Process, TrainingRun


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a run's checkpoints."""
    files = (path for path in folder.glob("checkpoint-*/**/*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(media: Media, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """A run of ten steps, with checkpoints at 5 and 10."""
    run = TrainingRun(tmp_path_factory.mktemp("finished"), media, maxStepsPerEpoch=10)
    assert run.train(1).code == 0
    assert run.checkpoints() == [5, 10]
    return run


@pytest.fixture
def begun(finished: TrainingRun, media: Media, tmp_path: Path) -> Callable[..., TrainingRun]:
    """Makes a run that continues what `finished` saved, to step 15."""

    def make(**training: object) -> TrainingRun:
        run = TrainingRun(tmp_path, media, **{"maxStepsPerEpoch": 15, **training})
        run.take_checkpoints(finished, 10)
        return run

    return make


def warnings(run: TrainingRun) -> str:
    return "\n".join(event["message"] for event in run.events() if event["kind"] == "warning")


def test_a_backup_that_is_half_restored_is_left_as_it_is(begun: Callable[..., TrainingRun]) -> None:
    run = begun()
    for step in (5, 10):
        (run.url / f"checkpoint-{step}" / "manifest.json").rename(run.url / f"{step}.json")
    before = snapshot(run.url)
    ended = run.train(1, "data.images.path=/nothing/there")
    assert ended.code == 74, ended.log
    assert "checkpoint-5; checkpoint-10: no manifest.json" in " ".join(ended.log.split())
    assert snapshot(run.url) == before
    ended = run.train(1)
    assert ended.code == 74, ended.log
    assert snapshot(run.url) == before

    (run.url / "10.json").rename(run.url / "checkpoint-10" / "manifest.json")
    ended = run.train(1)
    assert ended.code == 0, ended.log
    assert "checkpoint-5 has no manifest and is left alone" in warnings(run)
    assert run.checkpoints() == [10, 15]
    assert before.items() <= snapshot(run.url).items()


def test_a_killed_save_goes_once_the_data_is_open(begun: Callable[..., TrainingRun]) -> None:
    run = begun()
    left = run.url / "checkpoint-12"
    shutil.copytree(run.url / "checkpoint-10", left)
    (left / "manifest.json").unlink()
    (left / "save.json").write_text(
        '{"step": 12, "attempt": "%s", "started": "2026-01-01T00:00:00Z"}' % ("a" * 32)
    )
    before = snapshot(run.url)
    ended = run.train(1, "data.images.path=/nothing/there")
    assert ended.code == 65, ended.log
    assert snapshot(run.url) == before
    ended = run.train(1)
    assert ended.code == 0, ended.log
    assert "checkpoint-12 is deleted: it was left by a save that was cut" in warnings(run)
    assert not left.exists()
    assert run.checkpoints() == [5, 10, 15]


def test_what_changed_since_the_checkpoint_is_said(
    begun: Callable[..., TrainingRun], media: Media, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(media.images, images)
    run = begun(maxStepsPerEpoch=12, data=_data(images, media))
    assert run.train(1).code == 0
    for file in images.iterdir():
        os.utime(file, (1, 1))
    ended = run.train(1, "maxStepsPerEpoch=14", "logEverySteps=1")
    assert ended.code == 0, ended.log
    text = warnings(run)
    assert "spec.training.data.images: the times of its files are not those of step 12" in text
    assert "spec.training.maxStepsPerEpoch: 12 -> 14" in text
    assert "spec.training.logEverySteps: 2 -> 1" in text
    assert "the learning rate of step 13 of 14: 0 -> 0.001" in text


def _data(images: Path, media: Media) -> dict[str, object]:
    return {
        "images": {"path": str(images)},
        "videos": {"path": str(media.videos)},
        "imageSize": 32,
        "clipFrames": 4,
        "workers": 0,
    }


def test_a_run_of_another_namespace_is_refused(begun: Callable[..., TrainingRun]) -> None:
    run = begun()

    def train(namespace: str, *words: str) -> Ended:
        process = Process(
            [*run.command(1), *words], run.file.with_name("log"), {"ARLOW_NAMESPACE": namespace}
        )
        try:
            return process.ended()
        finally:
            process.kill()

    assert train("vision").code == 0
    before = snapshot(run.url)
    ended = train("speech")
    assert ended.code == 78
    text = " ".join(ended.log.split())
    assert "the run 'small' of the namespace 'vision'" in text
    assert "the run 'small' of the namespace 'speech'" in text
    assert snapshot(run.url) == before
    assert train("speech", "--adopt").code == 0
    assert train("vision").code == 78
