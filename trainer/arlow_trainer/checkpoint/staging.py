"""Where a rank writes a checkpoint's files before they are uploaded, one at a time."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path

from arlow_trainer.storage.errors import local_error
from arlow_trainer.storage.store import Store


class Staging:
    """A folder of one rank of one attempt, beside those of the run's other ranks.

    By default it lies inside a local store, so that files are moved there and not copied, and
    otherwise in the temporary directory.
    """

    def __init__(self, store: Store, attempt: str, rank: int, configured: Path | None) -> None:
        self._attempt = attempt
        self._run = _run_folder(store, configured)
        self._own = self._run / f"{attempt}-{rank}"

    def prepare(self) -> None:
        """Makes the folder and removes those of dead attempts; raises StoreError."""
        try:
            self._own.mkdir(parents=True, exist_ok=True)
            for left in self._run.iterdir():
                # The run's lease is held: whoever wrote another attempt's files lives no more.
                if not left.name.startswith(f"{self._attempt}-"):
                    shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise local_error(self._own, error) from error

    def path(self, name: str) -> Path:
        """Where to write the file that will be `name` in the checkpoint."""
        return self._own / Path(name).name

    def remove(self) -> None:
        """Removes the folder with all that is in it."""
        shutil.rmtree(self._own, ignore_errors=True)
        with contextlib.suppress(OSError):  # the other ranks' folders are still in it
            self._run.rmdir()


def _run_folder(store: Store, configured: Path | None) -> Path:
    if configured is None and store.local_path is not None:
        return store.local_path / ".staging"
    run = hashlib.sha256(store.url.encode()).hexdigest()[:16]
    return (configured or Path(tempfile.gettempdir())) / f"arlow-staging-{run}"
