"""The line in the termination message, as supervisors read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arlow_trainer.config.ending import (
    CONTRACT,
    NODE_VARIABLE,
    PATH_VARIABLE,
    Ending,
    termination_log,
)
from arlow_trainer.config.errors import ExitCode
from arlow_trainer.config.reference import reference_page
from arlow_trainer.config.shown_text import printable_lines


def test_the_line_is_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NODE_VARIABLE, "node-7")
    line = Ending.of(ExitCode.KILLED, "rank 3 was killed", rank=3, step=12, saved=10).line()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "contract": CONTRACT,
        "exitCode": 5,
        "cause": "outOfMemory",
        "message": "rank 3 was killed",
        "remedy": ExitCode.KILLED.remedy,
        "rank": 3,
        "node": "node-7",
        "step": 12,
        "saved": 10,
        "finished": False,
    }


def test_what_is_not_known_is_null() -> None:
    content = json.loads(Ending.of(ExitCode.CONFIG, "no such file").line())
    assert (content["rank"], content["step"], content["saved"]) == (None, None, None)
    assert content["node"]


@pytest.mark.parametrize("code", list(ExitCode))
@pytest.mark.parametrize("letter", ["x", '"', "\n", "\0", "ü", "🦉", "\udcff"])
def test_it_is_shorter_than_3_kib_whatever_the_texts(
    monkeypatch: pytest.MonkeyPatch, code: ExitCode, letter: str
) -> None:
    if letter != "\0":
        monkeypatch.setenv(NODE_VARIABLE, letter * 5_000)
    line = Ending.of(code, letter * 10_000, rank=10_000, step=10**12, saved=10**12).line()
    assert len(line.encode()) <= 3 * 1024
    read = Ending.model_validate_json(line)
    assert read.message.rstrip("…") in printable_lines(letter * 10_000)
    assert len(read.message) > 100
    assert (read.cause, read.saved) == (code.cause, 10**12)


def test_readers_ignore_keys_that_they_do_not_know() -> None:
    newer = json.loads(Ending.of(ExitCode.STORE, "away").line()) | {"novelty": [1]}
    assert Ending.model_validate(newer).exit_code == 74


def test_only_a_finished_run_is_finished() -> None:
    assert [code for code in ExitCode if Ending.of(code, "").finished] == [ExitCode.FINISHED]


def test_the_environment_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, "/x/end.json")
    assert termination_log() == Path("/x/end.json")


def test_the_page_explains_every_key_and_code() -> None:
    page = reference_page()
    for field in Ending.model_fields.values():
        assert f"`{field.alias}`" in page
    for code in ExitCode:
        assert f"| {int(code)} | `{code.cause}` |" in page


def test_text_of_others_is_made_fit_to_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NODE_VARIABLE, "node\udcff\x1b[2J")
    ending = Ending.of(ExitCode.INTERNAL, "b\udcfe.png: \x1b[2J http://user:SECRET@host refused")
    read = Ending.model_validate_json(ending.line())
    assert read.message == r"b\udcfe.png: \x1b[2J http://***@host refused"
    assert read.node == r"node\udcff\x1b[2J"
