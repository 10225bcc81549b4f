"""A checkpoint is addressed in one way: the run's URL, and `--step`."""

from __future__ import annotations

from pathlib import Path

import pytest

from arlow_trainer.storage.store import Store

COMMANDS = (
    ("checkpoints", "ls", "URL"),
    ("checkpoints", "verify", "URL"),
    ("curves", "URL"),
    ("export", "URL", "--out", "out"),
    ("probe", "URL", "--data", "./set"),
    ("reconstruct", "URL", "photo.png"),
    ("report", "URL"),
)


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_the_url_of_a_checkpoint_is_refused(arlow, store: Store, command: tuple[str, ...]) -> None:
    for url in (f"{store.url}/checkpoint-10", f"{store.url}/checkpoint-10/"):
        code, out, err = arlow(*(url if word == "URL" else word for word in command))
        assert (code, out) == (78, "")
        assert err == (
            f"error: {url}: this is the URL of a checkpoint; give the URL of its run and the "
            f"step: {store.url} --step 10\n"
        )
    assert not list(Path().iterdir())


def test_a_checkpoint_in_the_current_folder_is_refused(
    arlow, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.url)
    code, _, err = arlow("report", "checkpoint-10")
    assert code == 78
    assert err.endswith(": . --step 10\n")
