"""A sample before it is decoded, and one that cannot be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RawSample:
    """An undecoded sample."""

    name: str
    """What messages call it."""
    content: bytes | str
    """The file's bytes, or its path on this machine."""


class BrokenSample(Exception):
    """A sample that cannot be decoded; the run goes on with another."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"
