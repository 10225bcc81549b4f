"""What JSON of ours may hold: the bounds within which every reader reads it back as it was."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from arlow_trainer.config.mismatch import Mismatch, refuse

MAX_DEPTH = 64
MAX_NUMBER = 1e100
MIN_INTEGER, END_OF_INTEGERS = -(2**63), 2**63
# Less than MAX_DEPTH by what it may be part of.
MAX_PART_DEPTH = 50


def is_readable(value: object) -> bool:
    """Whether a number, or what else JSON has that holds nothing, is within the bounds."""
    if isinstance(value, int):
        return MIN_INTEGER <= value < END_OF_INTEGERS
    return not isinstance(value, float) or -MAX_NUMBER <= value <= MAX_NUMBER


def _check(content: dict[str, Any]) -> dict[str, Any]:
    level: list[object] = [content]
    for _ in range(MAX_PART_DEPTH):
        for value in level:
            if not is_readable(value):
                allowed = f"whole numbers of 64 bits, other numbers of at most {MAX_NUMBER:g}"
                refuse([Mismatch("", value, allowed)])
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return content
    refuse([Mismatch("", content, f"at most {MAX_PART_DEPTH} levels of nesting")])
    return content


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


JsonObject = Annotated[dict[str, Any], AfterValidator(_check)]
"""An object of any fields, which is read back from JSON as it is."""
