"""Times and durations as telemetry stamps and shows them."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Returns the current time, in UTC."""
    return datetime.now(UTC)


def duration(seconds: float) -> str:
    """Returns a duration in its two largest units: 3 d 4 h, 12 min 5 s."""
    rest = round(max(0.0, seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])
