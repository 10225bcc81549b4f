"""What follows a save: its report, its probe and pruning; one failure does not stop the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arlow_trainer.config import load_run
from arlow_trainer.run.reporting import on_saved
from arlow_trainer.storage.store import Store
from support.checkpoints import flip_byte, save


class Recorder:
    """Records the calls of telemetry and of the probe, in order, and what is saved."""

    saved: int | None = None

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def checkpoint(self, report: Any) -> None:
        self.calls.append(("checkpoint", report.step))

    def warning(self, text: str) -> None:
        self.calls.append(("warning", text))

    def start(self, step: int) -> None:
        self.calls.append(("probe", step))


def test_a_failure_to_prune_is_a_warning(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs" / "run"))
    [*_, last] = save(store, 1, 2)
    (tmp_path / "runs").rename(tmp_path / "away")
    (tmp_path / "runs").write_bytes(b"a file in the way")
    recorder: Any = Recorder()
    on_saved(recorder, store, load_run("tiny"), recorder, recorder)(last, 0.0)
    assert [kind for kind, _ in recorder.calls] == ["checkpoint", "probe", "warning"]
    assert recorder.saved == 2
    assert "not deleted" in recorder.calls[-1][1]
    assert store.url in recorder.calls[-1][1]


def test_a_checkpoint_that_does_not_read_back_is_a_warning(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    [*_, last] = save(store, 1, 2)
    flip_byte(store, "checkpoint-2/trainer_state.json")
    recorder: Any = Recorder()
    run = load_run("tiny", ["checkpoint.keepLast=1"])
    on_saved(recorder, store, run, recorder, recorder)(last, 0.0)
    [warning] = [text for kind, text in recorder.calls if kind == "warning"]
    assert f"{store.url}/checkpoint-2 does not read back" in warning
    assert "trainer_state.json" in warning
    assert store.list_dirs() == ["checkpoint-1", "checkpoint-2"]
