"""Fields of an object that anybody may have written: of the expected type, or absent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from arlow_trainer.config.shown_text import shown

LONGEST_TEXT = 500
# Of a text so much is looked at; a credential is found where all of it is.
SEARCHED_TEXT = 16 * LONGEST_TEXT
# What a status holds is below; a larger number would only fill the screen.
LARGEST = 2.0**53


def section(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns a mapping of an object; an empty one where there is none."""
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def number(body: Mapping[str, Any], name: str) -> float | None:
    """Returns a number of an object that is not negative; None where there is none."""
    found = body.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    # Neither NaN nor what is too large for a float is.
    return float(found) if 0 <= found <= LARGEST else None


def count(body: Mapping[str, Any], name: str) -> int | None:
    """Returns a whole number of an object that is not negative; None where there is none."""
    found = number(body, name)
    return int(found) if found is not None and found.is_integer() else None


def text(body: Mapping[str, Any], name: str) -> str:
    """Returns a text of an object as one line that is safe to show; empty where there is none."""
    found = body.get(name)
    if not isinstance(found, str):
        return ""
    words = "; ".join(filter(None, map(str.strip, shown(found[:SEARCHED_TEXT]).split("\n"))))
    return words if len(words) <= LONGEST_TEXT else f"{words[: LONGEST_TEXT - 1]}…"


def moment(body: Mapping[str, Any], name: str) -> datetime | None:
    """Returns a time of an object, in UTC; None where there is none, or it has no time zone."""
    found = body.get(name)
    try:
        time = datetime.fromisoformat(found) if isinstance(found, str) else None
        return time.astimezone(UTC) if time and time.tzinfo else None
    except (ValueError, OverflowError):
        return None
