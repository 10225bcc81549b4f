"""A stored run, a labelled set, and the command itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from arlow_trainer.cli import main
from support.class_folders import class_set
from support.stored_run import run_store

__all__ = ["class_set", "run_store"]


@pytest.fixture
def arlow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; returns exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["arlow", *arguments])
        capsys.readouterr()  # What fixtures and first imports have written is not the command's.
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def empty_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a new, empty folder the current one."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
