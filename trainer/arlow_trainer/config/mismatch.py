"""Fields that are valid by themselves but contradict each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mismatch:
    """A field that contradicts others.

    Attributes:
        field: dotted path of the field, from the section that checks it.
        value: its value.
        allowed: the values that would be allowed.
        reads: paths of all other fields that the check reads, so that a mistake in one of them is
            reported once.
    """

    field: str
    value: object
    allowed: str
    reads: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.field}: {self.value} is not allowed; allowed: {self.allowed}"


class Mismatches(ValueError):
    """Every contradiction that a section's check found."""

    def __init__(self, found: Iterable[Mismatch]) -> None:
        self.found = tuple(found)
        super().__init__("; ".join(str(mismatch) for mismatch in self.found))


def refuse(found: Iterable[Mismatch]) -> None:
    """Raises Mismatches if anything was found."""
    mismatches = Mismatches(found)
    if mismatches.found:
        raise mismatches
