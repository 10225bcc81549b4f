"""Reads JSON that anybody may have written: bounded in depth and numbers, and always printable.

For the files of a run's URL. Python's own reader raises RecursionError for deep nesting, makes
integers that no float holds, and returns lone surrogates that cannot be written anywhere.
"""

from __future__ import annotations

import json
from typing import Any

from arlow_trainer.config.json_limits import MAX_DEPTH, MAX_NUMBER, is_readable
from arlow_trainer.config.shown_text import redact_tree

MAX_INTEGER_DIGITS = 19
"""Digits of the largest signed 64-bit integer."""


def parse_json(data: bytes | str) -> Any:
    """Returns what a JSON text holds. NaN and Infinity, which JSON lacks, are None.

    Bytes that are not UTF-8, and halves of surrogate pairs, become U+FFFD.

    Raises ValueError, saying in one clause what is wrong: not JSON, nested deeper than `MAX_DEPTH`,
    an integer beyond 64 bits, a number beyond `MAX_NUMBER`.
    """
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        content = _READER.decode(text)
    except json.JSONDecodeError:
        raise ValueError("it is not JSON") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(content)
    decoded = isinstance(data, bytes) or text.isascii()
    return content if decoded and "\\u" not in text else _without_surrogates(content)


def parse_object(line: bytes | str) -> dict[str, Any] | None:
    """Returns the object of a JSON line without the credentials of URLs; None where it is none."""
    try:
        content = parse_json(line)
    except ValueError:
        return None
    return redact_tree(content) if isinstance(content, dict) else None


_TOO_DEEP = f"it is JSON nested deeper than {MAX_DEPTH} levels"


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_INTEGER_DIGITS or not is_readable(int(text)):
        raise ValueError("it holds an integer of more than 64 bits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not is_readable(value):
        raise ValueError(f"it holds a number beyond {MAX_NUMBER:g}")
    return value


def _no_number(_: str) -> None:
    return None


_READER = json.JSONDecoder(
    parse_int=_integer, parse_float=_number, parse_constant=_no_number, strict=False
)


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(each) for each in value]
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value
