"""Retries without their waits."""

from __future__ import annotations

import pytest
from tenacity import stop_after_attempt

from arlow_trainer.storage import retries

ATTEMPTS = 6


def quick_retries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replaces five minutes of reading attempts by six attempts. Returns the waits, none waited."""
    waited: list[float] = []
    quick = retries.RETRYING.copy(sleep=waited.append, stop=stop_after_attempt(ATTEMPTS))
    monkeypatch.setattr(retries, "RETRYING", quick)
    return waited
