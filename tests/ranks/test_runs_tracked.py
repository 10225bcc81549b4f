"""Experiment trackers of real runs: what they show after a resume, and what they cannot break."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from training_runs import EVERY, Ended, Media, Process, TrainingRun, interrupt, same

from support.class_folders import write_folders
from support.silent_server import silent_server

pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SHORT = {"maxStepsPerEpoch": 10, "optimizer": {"learningRate": 2e-3, "warmupSteps": 1}}
LAST = 10
LONG_STEPS = 200
needs_mlflow = pytest.mark.skipif(
    find_spec("mlflow") is None, reason="the package mlflow-skinny is not installed"
)
needs_wandb = pytest.mark.skipif(
    find_spec("wandb") is None, reason="the package wandb is not installed"
)


def read_back(run: TrainingRun) -> EventAccumulator:
    everything = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(run.url / "tensorboard"), size_guidance=everything).Reload()


def trained(run: TrainingRun, environment: Mapping[str, str], *options: str) -> Ended:
    process = Process([*run.command(1), *options], run.file.parent / "log.txt", environment)
    try:
        return process.ended()
    finally:
        process.kill()


def warnings_of(run: TrainingRun) -> list[str]:
    return [event["message"] for event in run.events() if event["kind"] == "warning"]


def test_a_resumed_run_is_one_curve_with_pictures_and_probes(media: Media, tmp_path: Path) -> None:
    probe = {"data": {"path": str(write_folders(tmp_path / "labelled"))}, "everySteps": 20}
    # Longer than until the first files are written, by which the run is killed.
    run = TrainingRun(
        tmp_path, media, picturesEverySteps=20, probe=probe, maxStepsPerEpoch=LONG_STEPS
    )
    with run.running(2) as first:
        first.wait_for(lambda: len(run.checkpoints()) > 1)
        first.wait_for(lambda: (run.url / "tensorboard").exists())
        first.kill()
    ended = run.train(2)
    assert ended.code == 0, ended.log
    [resumed_at] = [event["step"] for event in run.events() if event["kind"] == "resume"]
    assert resumed_at < LONG_STEPS
    found = read_back(run)
    history = {}
    for line in (run.url / "history.jsonl").read_text().splitlines():
        point = json.loads(line)
        history[point["step"]] = point
    for name in ("loss", "image_loss", "learning_rate", "grad_norm", "images_per_second"):
        curve = {event.step: event.value for event in found.Scalars(name)}
        assert len(curve) == len(found.Scalars(name)), "no step twice"
        expected = {step: p[name] for step, p in history.items() if p[name] is not None}
        # Of the attempt that was killed both may lack what its last seconds brought.
        both = curve.keys() & expected.keys()
        assert [curve[s] for s in both] == pytest.approx([expected[s] for s in both])
        logged = {step for step in range(resumed_at + 3, LONG_STEPS + 1) if step % 2 == 0}
        assert logged <= curve.keys()
    assert "phase_seconds/backward" in found.Tags()["scalars"]
    assert 0 <= found.Scalars("probe_accuracy/knn")[-1].value <= 1
    for modality in ("image", "video"):
        images = found.Images(f"reconstruction/{modality}")
        assert images[-1].step == LONG_STEPS
        stored = run.url / "pictures" / f"step-{LONG_STEPS}-{modality}.png"
        assert images[-1].encoded_image_string == stored.read_bytes()
    text = found.Tensors("training")[0].tensor_proto.string_val[0].decode()
    assert "preset: tiny" in text


@pytest.fixture(scope="module")
def untroubled(media: Media, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    run = TrainingRun(tmp_path_factory.mktemp("untroubled"), media, **SHORT)
    ended = run.train(1)
    assert ended.code == 0, ended.log
    assert warnings_of(run) == []
    return run


def test_a_tracker_that_fails_changes_nothing(
    media: Media, tmp_path: Path, untroubled: TrainingRun
) -> None:
    run = TrainingRun(tmp_path, media, **SHORT)
    run.url.mkdir(parents=True)
    (run.url / "tensorboard").write_text("in the way")
    ended = trained(run, {})
    assert ended.code == 0, ended.log
    assert same(run, untroubled, LAST)
    refused, lost = warnings_of(run)
    assert refused.startswith("scalars and pictures cannot be written to TensorBoard: ")
    assert str(run.url / "tensorboard") in refused
    assert lost.startswith("the last scalars and pictures (")


@needs_mlflow
@needs_wandb
def test_trackers_that_hang_change_nothing(
    media: Media, tmp_path: Path, untroubled: TrainingRun
) -> None:
    run = TrainingRun(tmp_path, media, **SHORT)
    with silent_server() as silent:
        environment = {
            "MLFLOW_TRACKING_URI": silent,
            "WANDB_BASE_URL": silent,
            "WANDB_API_KEY": "0" * 40,
            "WANDB_DIR": str(tmp_path),
        }
        ended = trained(run, environment)
    assert ended.code == 0, ended.log
    assert same(run, untroubled, LAST)
    warnings = warnings_of(run)
    for name in ("MLflow", "Weights & Biases"):
        assert any(f"did not reach {name} within 30 s" in text for text in warnings), warnings
    assert [event.step for event in read_back(run).Scalars("loss")] == [2, 4, 6, 8, 10]


@needs_mlflow
def test_a_stop_does_not_wait_for_a_tracker_that_hangs(media: Media, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, media)
    command = [*run.command(1, "maxStepsPerEpoch=40000"), "--grace", "30"]
    with silent_server() as silent:
        process = Process(command, tmp_path / "stopped.txt", {"MLFLOW_TRACKING_URI": silent})
        try:
            process.wait_for(lambda: bool(run.checkpoints()))
            ended = interrupt(process)
        finally:
            process.kill()
    assert ended.code == 75, ended.log
    assert any("did not reach MLflow within 5 s" in text for text in warnings_of(run))
    assert run.events()[-1]["kind"] == "end"


@needs_wandb
def test_offline_runs_of_both_attempts_have_one_id_and_leave_no_process(
    media: Media, tmp_path: Path
) -> None:
    run = TrainingRun(tmp_path, media, **SHORT)
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    first = Process(run.command(1), tmp_path / "first.txt", environment)
    try:
        first.wait_for(lambda: EVERY in run.checkpoints())
        first.rank(0).kill()
        first.ended()
    finally:
        first.kill()
    ended = trained(run, environment)
    assert ended.code == 0, ended.log
    folders = list((tmp_path / "wandb").glob("offline-run-*"))
    known = json.loads((run.url / "run.json").read_text())["id"]
    assert len(folders) == 2
    assert {path.name.rpartition("-")[2] for path in folders} == {known}
    left = [p for p in psutil.process_iter(["environ"]) if _is_of(p, str(tmp_path))]
    assert psutil.wait_procs(left, timeout=30)[1] == []


def _is_of(process: psutil.Process, folder: str) -> bool:
    return (process.info["environ"] or {}).get("WANDB_DIR") == folder
