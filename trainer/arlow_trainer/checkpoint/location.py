"""Which run and which of its checkpoints a command reads."""

from __future__ import annotations

from arlow_trainer.checkpoint.contents import content_problems
from arlow_trainer.checkpoint.layout import checkpoint_step
from arlow_trainer.checkpoint.reader import newest_valid
from arlow_trainer.config.errors import ConfigError, StoreError
from arlow_trainer.storage.store import Store


def check_run_url(url: str) -> str:
    """Returns the URL of a run. Raises ConfigError where it is the URL of a checkpoint in it."""
    run_url, _, name = url.rstrip("/").rpartition("/")
    step = checkpoint_step(name)
    if step is not None:
        raise ConfigError(
            f"{url}: this is the URL of a checkpoint; give the URL of its run and the step: "
            f"{run_url or '.'} --step {step}"
        )
    return url


def newest_step(store: Store, deep: bool = False) -> int:
    """Returns the step of the newest complete checkpoint.

    Complete means that every file has the size its manifest states, and that the state and the
    headers of the tensors can be read; with `deep`, also that every file has the manifest's
    SHA-256, for which all of them are read.

    Raises StoreError where there is none.
    """
    newest = newest_valid(store, deep=deep, contents=content_problems)
    if newest is None:
        raise StoreError(
            f"{store.url} holds no complete checkpoint; "
            f"`arlow checkpoints ls {store.url}` says why. "
            "Give the run's URL: <checkpoint url>/<run name>."
        )
    return newest.step
