"""What the ranks of a real process group do for `test_commit_ranks`; one process each."""

from __future__ import annotations

import errno
import io
import logging
from pathlib import Path

from arlow_trainer.checkpoint.writer import BackgroundWriter, SaveEvent
from arlow_trainer.config.errors import ArlowError
from arlow_trainer.engine import Ranks
from arlow_trainer.storage.store import Store


def play(ranks: Ranks, folder: str) -> dict[str, str]:
    """Saves twice, with a full disk on rank 1 and then on rank 0; returns what came of it."""
    logged = io.StringIO()
    logging.basicConfig(stream=logged, level=logging.INFO)
    found: dict[str, str] = {}

    def on_event(event: SaveEvent) -> None:
        found[f"reported {event.step}"] = str(event.error)

    store, attempt = Store(folder), "a" * 32
    with BackgroundWriter(store, ranks.rank, 2, attempt, on_event, channel=ranks) as writer:
        for step, failing in ((10, 1), (20, 0)):
            files = {f"optimizer/rank-{ranks.rank}": _full if ranks.rank == failing else _fine}
            writer.submit(step, files)
            try:
                ranks.agree(writer.wait)
            except ArlowError as error:
                found[f"raised {step}"] = str(error)
    found["log"] = logged.getvalue()
    ranks.wait()
    return found


def _full(path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _fine(path: Path) -> None:
    path.write_bytes(b"fine")
