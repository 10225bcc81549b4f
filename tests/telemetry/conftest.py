"""A small run, and a Telemetry that reports it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from arlow_trainer.config import ArlowPretrain, validate
from arlow_trainer.telemetry import Telemetry, TelemetryOptions
from support.ports import free_port


@pytest.fixture
def run() -> ArlowPretrain:
    return validate(
        {
            "apiVersion": "arlow.dev/v1alpha1",
            "kind": "ArlowPretrain",
            "metadata": {"name": "quick"},
            "spec": {"training": {"preset": "tiny"}},
        },
        "quick",
    )


@pytest.fixture(name="free_port")
def a_free_port() -> int:
    return free_port()


@pytest.fixture
def telemetry(run: ArlowPretrain, free_port: int) -> Iterator[Callable[..., Telemetry]]:
    """Starts Telemetry on rank 0 of two, serving on `free_port`; closes it at the end."""
    opened: list[Telemetry] = []

    def start(rank: int = 0, **options: Any) -> Telemetry:
        values = {"port": free_port, "peak_flops": 1e12, **options}
        opened.append(Telemetry(run, rank, 2, TelemetryOptions(**values)))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
