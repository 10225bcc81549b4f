"""JSON that anybody may have written."""

from __future__ import annotations

import pytest

from arlow_trainer.storage.json_text import MAX_DEPTH, parse_json, parse_object


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ('{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
        ("[NaN, -Infinity]", [None, None]),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        ('"caf\\u00e9 \\ud83d\\ude00"', "caf\u00e9 \U0001f600"),
        ('["\\ud800", {"\\udfff": 1}]', ["\ufffd", {"\ufffd": 1}]),
        ('"\ud800"', "\ufffd"),
        (b'"\xff"', "\ufffd"),
    ],
)
def test_what_is_read(text: str | bytes, content: object) -> None:
    assert parse_json(text) == content


def test_nesting_is_bounded() -> None:
    parse_json(nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, 900, 1_000_000):
        with pytest.raises(ValueError, match="nested deeper than 64 levels"):
            parse_json(nested(depth))
        with pytest.raises(ValueError, match="nested deeper than 64 levels"):
            parse_json('{"a": ' * depth + "1" + "}" * depth)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{nope", "not JSON"),
        ("", "not JSON"),
        (b"\x00", "not JSON"),
        (str(2**63), "64 bits"),
        ("-" + "9" * 5000, "64 bits"),
        ("1e999", "beyond 1e"),
        ("-1e101", "beyond 1e"),
        ("9" * 400 + ".0", "beyond 1e"),
    ],
)
def test_what_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


def test_only_an_object_is_a_line() -> None:
    assert parse_object(b'{"url": "http://u:SECRET@h"}') == {"url": "http://***@h"}
    for line in (b"[]", b"1", b"nope", b"[" * 100_000):
        assert parse_object(line) is None
