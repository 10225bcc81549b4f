"""Which run and which of its checkpoints a command reads."""

from __future__ import annotations

import pytest

from arlow_trainer.checkpoint.export import TOWER, WEIGHTS
from arlow_trainer.checkpoint.location import check_run_url, newest_step
from arlow_trainer.config.errors import ConfigError
from arlow_trainer.storage.store import Store
from support.stored_run import run_store, save_checkpoint, tiny_run

__all__ = ["run_store"]


@pytest.mark.parametrize("url", ["s3://b/r/run", "runs/demo/", "runs/checkpoint-x", ".", "/"])
def test_the_url_of_a_run_is_accepted(url: str) -> None:
    assert check_run_url(url) == url


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("s3://b/r/run/checkpoint-10", "s3://b/r/run --step 10"),
        ("/runs/demo/checkpoint-7/", "/runs/demo --step 7"),
        ("checkpoint-0", ". --step 0"),
    ],
)
def test_the_url_of_a_checkpoint_is_refused(url: str, instead: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_run_url(url)
    assert str(refused.value).startswith(f"{url}: this is the URL of a checkpoint; ")
    assert str(refused.value).endswith(f": {instead}")


def test_the_newest_step_by_sizes_and_by_bytes(store: Store) -> None:
    save_checkpoint(store, tiny_run(), 20)
    key = f"checkpoint-20/{TOWER}/{WEIGHTS}"
    store.write_bytes(key, store.read_bytes(key)[:-1] + b"x")
    assert newest_step(store) == 20
    assert newest_step(store, deep=True) == 10
