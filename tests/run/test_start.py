"""What a start does while it waits, and the seconds of its parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from arlow_trainer.config import ArlowPretrain, load_run
from arlow_trainer.config.errors import StoreError
from arlow_trainer.run import early_check
from arlow_trainer.run.early_check import EarlyCheck
from arlow_trainer.run.start_times import StartTimes
from arlow_trainer.storage.store import Store
from support.checkpoints import flip_byte, save

WEIGHTS = "checkpoint-2/vision_encoder/model.safetensors"


def test_parts_follow_each_other() -> None:
    clock = iter([12.0, 15.5, 16.0])
    times = StartTimes(10.0, lambda: next(clock))
    assert times.end("imports") == {"imports": 2.0}
    assert times.end("data") == {"imports": 2.0, "data": 3.5}
    assert times.end("data") == {"imports": 2.0, "data": 4.0}


def test_the_early_check_imports_no_torch() -> None:
    code = "import sys, arlow_trainer.run.early_check; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture
def run(tmp_path: Path) -> ArlowPretrain:
    return load_run("tiny", [f"checkpoint.url={tmp_path}"])


def test_what_was_found_intact_is_not_read_again(
    run: ArlowPretrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(run.run_url)
    save(store, 1, 2)
    early = EarlyCheck(run)
    assert early.verify(store, 1) == []
    monkeypatch.setattr(early_check, "verify", None)
    assert early.verify(store, 2) == []


def test_damage_and_a_checkpoint_that_came_later_are_read_again(run: ArlowPretrain) -> None:
    store = Store(run.run_url)
    save(store, 1, 2)
    flip_byte(store, WEIGHTS)
    early = EarlyCheck(run)
    assert len(early.verify(store, 2)) == 1
    flip_byte(store, WEIGHTS)
    assert early.verify(store, 2) == [], "it was being written before"
    save(store, 3)
    assert early.verify(store, 3) == []


def test_a_url_without_checkpoints_has_nothing_to_check(run: ArlowPretrain) -> None:
    with pytest.raises(StoreError, match="is no checkpoint"):
        EarlyCheck(run).verify(Store(run.run_url), 1)
