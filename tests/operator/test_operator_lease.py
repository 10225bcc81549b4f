"""When an operator may take the Lease."""

from __future__ import annotations

from typing import Any

from arlow_operator.lease import DURATION_S, Watch


def lease(version: str, holder: str) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": holder}}


def test_it_is_free_when_it_is_ours_or_nobodys() -> None:
    assert Watch().is_free(lease("1", "me"), "me", 0)
    assert Watch().is_free(lease("1", ""), "me", 0)
    assert not Watch().is_free(lease("1", "other"), "me", 0)


def test_anothers_is_free_when_it_was_not_renewed_for_too_long() -> None:
    watch = Watch()
    assert not watch.is_free(lease("1", "other"), "me", 100)
    assert not watch.is_free(lease("1", "other"), "me", 100 + DURATION_S)
    assert not watch.is_free(lease("2", "other"), "me", 101 + DURATION_S)
    assert watch.is_free(lease("2", "other"), "me", 102 + 2 * DURATION_S)
