"""A run in W&B's own offline mode, read back from the file that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tracked_records import Tracked, picture, probed, scalars
from wandb_file import OfflineRun, read_offline_runs

pytest.importorskip("wandb", reason="the package wandb is not installed")

from arlow_trainer.trackers.wandb_run import WandbRun


@pytest.fixture
def wandb_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    return tmp_path


def only(folder: Path) -> OfflineRun:
    (run,) = read_offline_runs(folder)
    return run


def no_warning(text: str) -> None:
    raise AssertionError(text)


def test_scalars_pictures_and_settings_are_logged(wandb_folder: Path, tracked: Tracked) -> None:
    run = WandbRun(tracked(), no_warning)
    run.write(scalars([2, 4]))
    run.write([*scalars([6]), picture(6), *scalars([8])])
    run.end("finished")
    found = only(wandb_folder)
    assert found.id == "4f2a"
    assert found.config["preset"] == "tiny"
    assert found.config["optimizer"] == {"learningRate": 0.003, "betas": [0.9, 0.95]}
    losses = {step: values["loss"] for step, values in found.history.items()}
    assert losses == {2: 2.0, 4: 4.0, 6: 6.0, 8: 8.0}
    image = found.history[6]["reconstruction/image"]
    assert (image["width"], image["height"], image["caption"]) == (40, 30, "step 6")
    (png,) = wandb_folder.glob(f"wandb/offline-run-*/files/{image['path']}")
    assert png.stat().st_size > 0
    assert found.exit_code == 0


def test_what_comes_late_is_in_the_newest_row_with_its_step(
    wandb_folder: Path, tracked: Tracked
) -> None:
    run = WandbRun(tracked(), no_warning)
    run.write([*scalars([2, 4]), probed(2, 0.5), picture(2), *scalars([6])])
    run.end("failed")
    found = only(wandb_folder)
    row = found.history[4]
    assert (row["loss"], row["probe_accuracy/knn"], row["probe_step"]) == (4.0, 0.5, 2)
    assert row["reconstruction/image"]["caption"] == "step 2"
    assert sorted(found.history) == [2, 4, 6]
    assert found.exit_code == 1
