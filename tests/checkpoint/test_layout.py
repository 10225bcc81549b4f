"""Names and records of a run's folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from arlow_trainer.checkpoint.layout import (
    Manifest,
    check_file_name,
    checkpoint_name,
    checkpoint_step,
    manifest_key,
)

ATTEMPT = "0123456789abcdef" * 2
HASH = "ab" * 32


def manifest(**changes: object) -> Manifest:
    fields: dict[str, object] = {
        "step": 5,
        "created": datetime(2026, 11, 23, 21, 0, 0, 123456, tzinfo=UTC),
        "attempt": ATTEMPT,
        "ranks": 2,
        "files": {"a/b": {"size": 3, "sha256": HASH}, "c": {"size": 4, "sha256": HASH}},
    }
    return Manifest.model_validate({**fields, **changes})


@given(st.integers(min_value=0, max_value=10**12))
def test_names_and_steps_agree(step: int) -> None:
    assert checkpoint_step(checkpoint_name(step)) == step
    assert manifest_key(step) == f"checkpoint-{step}/manifest.json"


@pytest.mark.parametrize(
    "name", ["checkpoint-", "checkpoint-05", "checkpoint--1", "checkpoint-1a", "x", "checkpoint-1/"]
)
def test_other_names_are_no_checkpoints(name: str) -> None:
    assert checkpoint_step(name) is None


def test_a_negative_step_has_no_name() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        checkpoint_name(-1)


@pytest.mark.parametrize(
    "name",
    ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a\\b", "manifest.json"],
)
def test_file_names_stay_inside(name: str) -> None:
    with pytest.raises(ValueError, match="checkpoint"):
        check_file_name(name)
    with pytest.raises(ValidationError):
        manifest(files={name: {"size": 1, "sha256": HASH}})


def test_a_manifest_comes_back() -> None:
    written = manifest()
    assert Manifest.from_bytes(written.to_bytes()) == written
    assert written.total_bytes == 7
    content = json.loads(written.to_bytes())
    assert content["format_version"] == 1
    assert content["created"] == "2026-11-23T21:00:00.123456Z"
    assert content["files"]["a/b"] == {"size": 3, "sha256": HASH}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format_version", 2),
        ("step", -1),
        ("ranks", 0),
        ("attempt", "x"),
        ("created", datetime(2026, 1, 1)),
        ("created", datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
        ("files", {"a": {"size": -1, "sha256": HASH}}),
        ("files", {"a": {"size": 1, "sha256": HASH.upper()}}),
        ("files", {"a": {"size": 1}}),
        ("unknown", 1),
    ],
)
def test_a_wrong_field_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        manifest(**{field: value})


@given(st.data())
def test_a_flipped_bit_never_passes_as_another_manifest(data: st.DataObject) -> None:
    good = manifest().to_bytes()
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = Manifest.from_bytes(bytes(bad))
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert found == manifest()


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"\xff", b'{"digest": 1}'])
def test_what_is_no_manifest_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it") as caught:
        Manifest.from_bytes(data)
    assert "\n" not in str(caught.value)


def test_a_wrong_manifest_with_a_right_digest_names_the_field() -> None:
    from arlow_trainer.checkpoint.layout import _digest

    content = json.loads(manifest().to_bytes())
    del content["digest"]
    content["ranks"] = 0
    content["digest"] = _digest({key: value for key, value in content.items() if key != "digest"})
    with pytest.raises(ValueError, match="ranks: Input should be greater"):
        Manifest.from_bytes(json.dumps(content).encode())
