"""Describes a run's events as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from arlow_trainer.storage.events import Event

Fields = Mapping[str, Any]


def describe_event(event: Event) -> str:
    """Returns a description of an event; of an unknown kind, or with fields missing, its fields."""
    try:
        return _DESCRIPTIONS[event.kind](event.fields)
    except (AttributeError, KeyError, ValueError, TypeError):
        known = ((name, value) for name, value in event.fields.items() if value not in (None, ""))
        fields = ", ".join(
            f"{name} {value if isinstance(value, str) else json.dumps(value)}"
            for name, value in known
        )
        return _joined(event.kind, fields)


def _joined(head: str, rest: object) -> str:
    return f"{head}: {rest}" if rest not in (None, "") else head


def _started(fields: Fields) -> str:
    ranks = fields["ranks"]
    return f"started on {ranks:,} rank{'' if ranks == 1 else 's'}"


def _first_step(fields: Fields) -> str:
    parts = fields["seconds"]
    seconds = ", ".join(f"{part.replace('_', ' ')} {value:.1f} s" for part, value in parts.items())
    return f"started after {sum(parts.values()):.1f} s: {seconds}"


def _probed(fields: Fields) -> str:
    return f"probe of step {fields['step']:,}: {fields['method']} {fields['accuracy']:.1%}"


def _url(fields: Fields) -> object:
    # Events of earlier versions have `uri`.
    return fields.get("url", fields.get("uri"))


_DESCRIPTIONS: Mapping[str, Callable[[Fields], str]] = {
    "start": _started,
    "started": _first_step,
    "resume": lambda f: _joined(f"resumed from step {f['step']:,}", _url(f)),
    "phase": lambda f: _joined(f["phase"], f.get("message")),
    "checkpoint": lambda f: _joined(f"checkpoint of step {f['step']:,}", _url(f)),
    "probe": _probed,
    "skip": lambda f: _joined(f"skipped {f['name']}", f.get("reason")),
    "warning": lambda f: _joined("warning", f["message"]),
    "end": lambda f: f"ended: {f['phase']}",
}
