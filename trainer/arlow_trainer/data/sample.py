"""A sample before it is decoded, one that cannot be, and the set that it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


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


class Source(Protocol):
    """A set of images or videos; picklable, so that decoding processes can open it too."""

    name: str
    """What messages call the set."""

    def __len__(self) -> int:
        """Samples of the set."""

    def read(self, position: int) -> RawSample:
        """Returns one undecoded sample.

        Raises BrokenSample when there is nothing to decode, StoreError when the set is out of reach
        for minutes, CredentialsError when it refuses access, DataError otherwise.
        """
