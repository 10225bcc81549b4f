"""What experiment trackers are given of a run, and what each of them does with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Outcome = Literal["finished", "stopped", "failed"]
PROBE = "probe_accuracy/"
"""Begins the names of probes' scalars, which come long after those of their step."""


@dataclass(frozen=True, slots=True)
class Scalars:
    """Values at a step, finite, by their names; `time` in seconds since the epoch."""

    step: int
    time: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG in the run's URL, by its key there. Its bytes are read where it is written."""

    step: int
    time: float
    name: str
    key: str


Record = Scalars | Picture


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run as a tracker opens it.

    Attributes:
        id: the same in all attempts, and no other run's.
        name: the run's name.
        url: the run's URL.
        attempt: the attempt's number.
        step: steps done before this attempt, of the checkpoint that it resumes from.
        settings: the manifest's training section with all defaults, as it is written.
        read: returns an object in the run's URL, None where it is gone; raises StoreError.
    """

    id: str
    name: str
    url: str
    attempt: int
    step: int
    settings: Mapping[str, Any]
    read: Callable[[str], bytes | None]


class Tracker(Protocol):
    """One place that records go to. Used by one thread; may block and raise anything.

    A write that has raised is repeated, with more records. What an attempt repeats, since it
    resumes from an earlier step, must not be shown twice.
    """

    def write(self, records: Sequence[Record]) -> None:
        """Writes records, in the order in which they were made."""

    def end(self, outcome: Outcome) -> None:
        """Says how the attempt ended; nothing is written afterwards."""


def flat_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested settings as one level: `optimizer.learningRate`, as `--set` names them."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": inner for key, inner in flat_settings(value).items()}
        else:
            found[name] = value
    return found
