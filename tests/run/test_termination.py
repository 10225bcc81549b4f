"""The termination message is written for every end, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from arlow_trainer.config.ending import PATH_VARIABLE
from arlow_trainer.config.errors import DataError, ExitCode
from arlow_trainer.run.termination import clear_ending, failures_written, write_ending


@pytest.fixture
def message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "message.json"
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    return path


@pytest.mark.parametrize("error", [DataError, RuntimeError])
def test_an_error_over_a_name_that_is_not_utf_8(message: Path, error: type[Exception]) -> None:
    with pytest.raises(error), failures_written():
        raise error("b\udcfe.png: truncated")
    content = json.loads(message.read_bytes())
    assert r"b\udcfe.png: truncated" in content["message"]


@pytest.mark.parametrize("where", ["missing/message.json", ".", "message.json/below"])
def test_a_message_that_cannot_be_written_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    (tmp_path / "message.json").touch()
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / where))
    write_ending(ExitCode.DATA, "no images")


def test_a_pipe_or_device_holds_no_attempt_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, "/dev/full", "/dev/null", "/dev/tty"):
        monkeypatch.setenv(PATH_VARIABLE, str(path))
        clear_ending()
        write_ending(ExitCode.DATA, "no images")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setenv(PATH_VARIABLE, str(fifo))
    write_ending(ExitCode.DATA, "no images")
    assert json.loads(os.read(reader, 4096))["message"] == "no images"
    # A reader that reads nothing any more.
    for _ in range(1000):
        write_ending(ExitCode.DATA, "no images")
    os.close(reader)


def test_a_shorter_message_replaces_a_longer_one(message: Path) -> None:
    write_ending(ExitCode.DATA, "no images" * 100)
    write_ending(ExitCode.DATA, "no images")
    assert json.loads(message.read_bytes())["message"] == "no images"


def test_an_attempt_begins_without_the_message_of_the_one_before(message: Path) -> None:
    clear_ending()
    assert not message.exists()
    write_ending(ExitCode.DATA, "no images")
    inode = message.stat().st_ino
    clear_ending()
    assert message.read_bytes() == b""
    assert message.stat().st_ino == inode, "in a pod it is a mount"


def test_only_a_regular_file_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, "/dev/null")
    clear_ending()
    assert Path("/dev/null").exists()
