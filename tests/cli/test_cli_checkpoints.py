from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from arlow_trainer.checkpoint.store import Store
from arlow_trainer.checkpoint.writer import BackgroundWriter
from arlow_trainer.cli.app import app


def save(folder: Path, step: int) -> None:
    with BackgroundWriter(Store(str(folder)), 0, 1, "0" * 32, lambda event: None) as writer:
        writer.submit(step, {"file": b"content"})
        writer.wait()


def test_verify_passes_over_what_was_never_finished(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "file").write_bytes(b"cont")
    result = CliRunner().invoke(app, ["checkpoints", "verify", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "checkpoint-5: being written, or never finished" in result.output
    assert "checkpoint-10: every byte is as it was written" in result.output


def test_verify_names_the_damaged_file(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (tmp_path / "checkpoint-10" / "file").write_bytes(b"CONTENT")
    result = CliRunner().invoke(app, ["checkpoints", "verify", str(tmp_path)])
    assert result.exit_code == 74
    assert "checkpoint-10: file: its content has changed" in result.output
