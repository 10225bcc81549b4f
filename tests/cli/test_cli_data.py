"""`arlow data fetch`."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from arlow_trainer.cli.app import app
from arlow_trainer.config.errors import DataError
from support.class_folders import write_folders

run = CliRunner()


def test_fetch_opens_the_sets_that_a_run_draws_from(tmp_path: Path) -> None:
    write_folders(tmp_path, train=3, test=0)
    images = ("--set", f"data.images.path={tmp_path}")
    result = run.invoke(app, ["data", "fetch", "tiny", *images, "--set", "data.videoProbability=0"])
    assert result.exit_code == 0, result.output
    *_, last = result.output.splitlines()  # What is drawn from may be logged before.
    assert last.endswith(" images")
    assert str(tmp_path) in last
    assert "videos" not in result.output


def test_fetch_says_which_set_is_missing(tmp_path: Path) -> None:
    sets = [f"data.{each}.path={tmp_path}/none" for each in ("images", "videos")]
    result = run.invoke(app, ["data", "fetch", "tiny", "--set", sets[0], "--set", sets[1]])
    assert isinstance(result.exception, DataError)
    assert f"{tmp_path}/none" in str(result.exception)
