"""What the launcher sets for its ranks, where the user has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from arlow_trainer.run import launch
from arlow_trainer.run.devices import Devices
from arlow_trainer.run.launch import rank_environment

GPUS = Devices(True, 2, "")
COMPILED, THREADS = "TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (COMPILED, THREADS, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_compiled_blocks_are_kept_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert rank_environment(GPUS)[COMPILED] == str(tmp_path / ".cache" / "arlow" / "inductor")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert rank_environment(GPUS)[COMPILED] == "/c/arlow/inductor"
    monkeypatch.setenv(COMPILED, "/mine")
    assert rank_environment(GPUS)[COMPILED] == "/mine"


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (2, "1"), (6, "3"), (128, "4")])
def test_ranks_share_the_cores_that_compile(
    cores: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "usable_cores", lambda: float(cores))
    assert rank_environment(GPUS)[THREADS] == threads
