"""A process group of one for the engine's tests."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from arlow_trainer.engine import Ranks


@pytest.fixture(scope="package")
def alone() -> Iterator[Ranks]:
    """This process as the only rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in group.items():
            patch.setenv(name, value)
        # Kept for the time after: DeepSpeed sets some of these, too.
        before = dict(os.environ)
        ranks = Ranks()
        yield ranks
        ranks.leave()
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
