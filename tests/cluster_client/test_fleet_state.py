"""What a watcher knows of a cluster's runs after lists, events and problems."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.cluster.fleet_watch import Fleet, after_event, after_list, after_problem
from support.fleet_objects import NOW, fleet_object

A, B = fleet_object("a"), fleet_object("b")
LISTED = after_list({"items": [A, B], "metadata": {"resourceVersion": "9"}})


def event(kind: str, body: Any) -> dict[str, Any]:
    return {"type": kind, "object": body}


def test_a_list_is_all_that_is_known() -> None:
    assert list(LISTED.runs.items()) == [(("team", "a"), A), (("team", "b"), B)]
    assert (LISTED.version, LISTED.problem) == ("9", "")
    assert after_list({"items": []}) == Fleet()


@pytest.mark.parametrize(
    ("told", "names"),
    [
        (event("ADDED", fleet_object("c")), ["a", "b", "c"]),
        (event("ADDED", fleet_object("a", "other")), ["a", "a", "b"]),
        (event("DELETED", A), ["b"]),
        (event("DELETED", fleet_object("c")), ["a", "b"]),
        (event("BOOKMARK", {"metadata": {"resourceVersion": "10"}}), ["a", "b"]),
        (event("ERROR", {"code": 410}), ["a", "b"]),
    ],
)
def test_an_event_changes_one_run(told: dict[str, Any], names: list[str]) -> None:
    found = after_event(LISTED, told)
    assert sorted(name for _, name in found.runs) == names
    assert len(LISTED.runs) == 2


def test_a_change_takes_the_place_of_what_was_known() -> None:
    changed = fleet_object("a", phase="Failed")
    assert after_event(LISTED, event("MODIFIED", changed)).runs["team", "a"] is changed


def test_a_problem_keeps_what_is_known_and_when_it_began() -> None:
    first = after_problem(LISTED, "no answer", NOW)
    second = after_problem(first, "no leader", NOW + timedelta(seconds=9))
    assert (second.runs, second.problem, second.since) == (LISTED.runs, "no leader", NOW)


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.sampled_from(["ADDED", "DELETED", "MODIFIED"]) | JSON, JSON)
def test_what_is_no_event_and_no_list_is_no_error(kind: Any, body: Any) -> None:
    after_event(LISTED, {"type": kind, "object": body})
    after_event(LISTED, {"type": "ADDED", "object": {"metadata": body}})
    after_list({"items": body, "metadata": body})
    after_list({"items": [body], "metadata": {"resourceVersion": body}})
