"""The liveness probe fails when no full pass was made for too long."""

from __future__ import annotations

import pytest

from arlow_operator.health import TOO_OLD_S, Health, Unhealthy


def test_the_probe_fails_when_the_last_full_pass_is_old() -> None:
    now = 0.0
    health = Health(lambda: now)
    now = TOO_OLD_S
    assert health.check() == TOO_OLD_S
    now += 1
    with pytest.raises(Unhealthy, match="no full pass for 181 s"):
        health.check()
    health.full_pass()
    assert health.check() == 0
