"""Which run and which checkpoint a URL names."""

from __future__ import annotations

from arlow_trainer.checkpoint.layout import checkpoint_step
from arlow_trainer.checkpoint.reader import newest_valid
from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage.store import Store


def open_url(url: str) -> tuple[Store, int | None]:
    """Returns the run's store and, where the URL is a checkpoint's, that checkpoint's step."""
    folder, _, name = url.rstrip("/").rpartition("/")
    step = checkpoint_step(name)
    return Store(url if step is None else folder or "."), step


def newest_step(store: Store) -> int:
    """Returns the step of the newest checkpoint whose files are all there.

    Raises StoreError where there is none.
    """
    newest = newest_valid(store, deep=False)
    if newest is None:
        raise StoreError(
            f"{store.url} holds no complete checkpoint; "
            f"`arlow checkpoints ls {store.url}` says why. "
            "Give the run's URL (<checkpoint url>/<run name>) or that of a checkpoint in it."
        )
    return newest.step
