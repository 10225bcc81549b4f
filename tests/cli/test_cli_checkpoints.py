from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from arlow_trainer.cli.app import app
from arlow_trainer.storage.store import Store
from support.stored_run import save_checkpoint, tiny_run


def save(folder: Path, step: int) -> None:
    save_checkpoint(Store(str(folder)), tiny_run(), step, instead={"file": b"content"})


def test_verify_skips_unfinished_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "file").write_bytes(b"cont")
    result = CliRunner().invoke(app, ["checkpoints", "verify", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "checkpoint-5: skipped, it is being written or was never finished" in result.output
    assert "checkpoint-10: intact, every byte is as it was written" in result.output


def test_verify_names_the_damaged_file(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (tmp_path / "checkpoint-10" / "file").write_bytes(b"CONTENT")
    result = CliRunner().invoke(app, ["checkpoints", "verify", str(tmp_path)])
    assert result.exit_code == 74
    assert "checkpoint-10: file: its content has changed" in result.output


def test_ls_says_that_it_checks_sizes_only(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (tmp_path / "checkpoint-10" / "file").write_bytes(b"CONTENT")
    (tmp_path / "checkpoint-20").mkdir()
    (tmp_path / "checkpoint-20" / "file").write_bytes(b"cont")
    result = CliRunner().invoke(app, ["checkpoints", "ls", str(tmp_path)])
    assert result.exit_code == 0, result.output
    [first, second] = [line.split() for line in result.stdout.splitlines()[1:]]
    assert first[:2] == ["10", "complete"]
    assert second[:2] == ["20", "unfinished:"]
    assert (
        "checked by file sizes, state and headers; `arlow checkpoints verify` reads every byte"
        in result.stderr
    )


@pytest.mark.parametrize("command", ["ls", "verify"])
def test_a_url_without_checkpoints_is_a_failure(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(app, ["checkpoints", command, str(tmp_path / "typo")])
    assert result.exit_code == 74
    assert f"{tmp_path}/typo holds no checkpoints" in result.stderr
