"""Runs that cannot continue: each ends with a code of its own, one message, and nothing lost."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import Ended, Media, TrainingRun

FAST = "maxStepsPerEpoch=4"


@pytest.fixture(scope="module")
def finished(media: Media, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """A run of four steps on two ranks, over a folder with three broken files."""
    folder = tmp_path_factory.mktemp("finished")
    run = TrainingRun(folder, with_broken_files(media, folder / "images"))
    ended = run.train(2, FAST)
    assert ended.code == 0, ended.log
    return run


def with_broken_files(media: Media, folder: Path) -> Media:
    """The photographs among a truncated one, an empty one, and one that is a text."""
    folder.mkdir()
    for path in media.images.iterdir():
        (folder / path.name).symlink_to(path)
    whole = next(media.images.iterdir()).read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not a picture")
    return replace(media, images=folder)


BROKEN = {"truncated.jpg", "empty.jpg", "text.jpg"}


def test_broken_files_are_skipped_counted_and_named(finished: TrainingRun) -> None:
    skips = [event for event in finished.events() if event["kind"] == "skip"]
    named = [Path(event["name"]).name for event in skips]
    assert sorted(named) == sorted(BROKEN), "each once, whichever rank met it"
    assert all(event["reason"] for event in skips)


@pytest.fixture(scope="module")
def failures(
    media: Media, finished: TrainingRun, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Ended]:
    """All the runs that fail, two at a time."""
    folder = tmp_path_factory.mktemp("failures")
    file, empty = folder / "file", folder / "empty"
    file.write_text("")
    empty.mkdir()
    few = with_broken_files(media, folder / "few")
    nothing = replace(media, images=empty)

    def run(name: str, media: Media = media) -> TrainingRun:
        return TrainingRun(folder / name, media)

    runs = {
        "too many broken": lambda: run("broken", few).train(2, "data.maxSkipped=2"),
        "no files": lambda: run("no-files", nothing).train(1),
        "no store": lambda: run("no-store").train(1, f"checkpoint.url={file}/runs"),
        "not finite": lambda: run("not-finite").train(
            2, "optimizer.learningRate=1e9", "optimizer.weightDecay=1e9"
        ),
        "too many ranks": lambda: run("ranks").train(2, "batch.globalSize=1"),
        "another model": lambda: finished.train(
            1, FAST, "model.hiddenSize=72", "mae.maskRatio=0.5"
        ),
    }
    with ThreadPoolExecutor(2) as pool:
        ended = {name: pool.submit(train) for name, train in runs.items()}
        return {name: future.result() for name, future in ended.items()}


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("too many broken", 65, ["3 files cannot be decoded, more than 2", "data.maxSkipped"]),
        ("no files", 65, ["/empty"]),
        ("no store", 74, ["/file/runs"]),
        ("not finite", 3, ["10 steps in a row were not finite", "optimizer.learningRate"]),
        ("too many ranks", 78, ["2 ranks cannot share a global batch of 1", "globalSize"]),
        (
            "another model",
            78,
            [
                "spec.training.model.hiddenSize: 64 in",
                "spec.training.mae.maskRatio: 0.75 in",
                "metadata.name",
            ],
        ),
    ],
)
def test_failure(failures: dict[str, Ended], name: str, code: int, words: list[str]) -> None:
    ended = failures[name]
    assert ended.code == code, ended.log
    errors = "\n".join(line for line in ended.log.splitlines() if line.startswith("error: "))
    for word in words:
        assert word in errors, ended.log
    assert "Traceback" not in ended.log
    assert "internal error" not in ended.log


def test_broken_files_are_all_named(failures: dict[str, Ended]) -> None:
    for name in BROKEN:
        assert name in failures["too many broken"].log


def test_no_data_fails_before_the_model_is_built(failures: dict[str, Ended]) -> None:
    assert "opening the data" in failures["no files"].log
    assert "building the model" not in failures["no files"].log


def test_where_numbers_were_not_finite_is_reported(failures: dict[str, Ended]) -> None:
    log = failures["not finite"].log
    assert "module tower." in log or "module decoder." in log


def test_another_model_leaves_the_run_as_it_was(
    failures: dict[str, Ended], finished: TrainingRun
) -> None:
    assert failures["another model"].code == 78
    assert finished.checkpoints() == [4]
    assert finished.weights(4)["vision_encoder.merger.mlp.2.bias"].shape == (64,)


PLAIN = """
import sys
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
with torch.no_grad():
    visual, deepstack = model(torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32))
assert not any(name.startswith("arlow_trainer") for name in sys.modules)
torch.save([visual, *deepstack], sys.argv[2])
"""


def test_the_export_loads_without_this_project(finished: TrainingRun, tmp_path: Path) -> None:
    from arlow_trainer.model import ArlowVLVisionModel

    folder = finished.url / "checkpoint-4" / "vision_encoder"
    # -I and the working directory keep this project's folders off the path.
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, str(folder), str(tmp_path / "out.pt")],
        cwd=tmp_path,
        env={"PATH": "", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours = ArlowVLVisionModel.from_pretrained(folder).eval()
    with torch.no_grad():
        visual, deepstack = ours(torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32))
    loaded = torch.load(tmp_path / "out.pt")
    assert len(loaded) == 4
    assert all(torch.equal(a, b) for a, b in zip(loaded, [visual, *deepstack], strict=True))
