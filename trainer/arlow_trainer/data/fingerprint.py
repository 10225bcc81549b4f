"""What a listing says of a set: notices, without reading it, that the set is not what it was."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from arlow_trainer.storage.failures import describe

MAX_ENTRIES = 256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A file of a set: its name in the set, its size in bytes, and when it was changed.

    None where the store does not say, or where the file is gone.
    """

    name: str
    size: int | None
    time: str | None


def sampled_positions(size: int) -> list[int]:
    """Returns positions spread evenly over a set, at most MAX_ENTRIES, the same for a size."""
    count = min(size, MAX_ENTRIES)
    return [index * size // count for index in range(count)]


def fingerprint(entries: Sequence[Entry]) -> dict[str, str]:
    """Returns a digest of the names, one of the sizes and one of the times of a set's entries."""
    columns = zip(*map(astuple, entries), strict=True)
    return {
        what: hashlib.sha256(json.dumps(column).encode()).hexdigest()
        for what, column in zip(("names", "sizes", "times"), columns, strict=False)
    }


def without_fingerprint(name: str, error: Exception) -> list[Entry]:
    """Logs that nothing can be said of a set; its change would only be a warning."""
    log.warning("whether %s changes until a resume is not noticed: %s", name, describe(error))
    return []
