"""The table of a cluster's runs as a terminal shows it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from arlow_trainer.cluster.fleet import fleet_rows
from arlow_trainer.cluster.fleet_view import COLUMNS, fitting_rows, fleet_view, full_width
from support.fleet_objects import NOW, condition, fleet_object, fleet_objects, training


def screen(objects: list[dict[str, Any]], namespace: str | None = None, **size: Any) -> list[str]:
    """Returns the lines of the table."""
    rows = fleet_rows(objects, NOW)
    width = size.pop("width", None) or full_width(rows)
    console = Console(file=io.StringIO(), width=width)
    console.print(fleet_view(rows, namespace, width=width, **size))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_fleet_is_a_table_reasons_and_sums() -> None:
    lines = screen(fleet_objects())
    assert [" ".join(line.split()) for line in lines[:6]] == [
        "NAMESPACE NAME PHASE ATTEMPT STEP PROGRESS ETA LOSS IMG/S MFU GOODPUT RESTARTS CKPT-AGE "
        "GPUS",
        "research broken Failed 7 40/5,004 0.8% 0.9 50.0% 6 8",
        "research done Succeeded 9/9 100.0% 0",
        "team stalled Running, stalled 1 1,200/5,004 24.0% 3 h 12 min 0.2445 1,630 31.2% 90.0% 1 "
        "4 min 8",
        "team vision-3072 Running 2 1,200/5,004 24.0% 3 h 12 min 0.2445 1,630 31.2% 90.0% 1 "
        "4 min 8",
        "team waits Queued 1 8",
    ]
    # Numbers are below the ends of their heads, and texts below the beginnings.
    assert lines[4].index("Running") == lines[0].index("PHASE")
    assert {len(line) for line in lines[:6]} == {len(lines[0])}
    assert lines[6:] == [
        "",
        "research/broken: BudgetSpent: ended 6 times for the cause crash, and "
        "spec.failurePolicy.maxRestarts.crash is 5; the last end: rank 3 on node-7: CUDA error: an "
        "illegal memory access",
        "team/stalled: NoStep: no step after 300 for 700 s, and 600 s are allowed "
        "(spec.failurePolicy.stall); its stacks go to s3://arlow/runs/stalled/logs/1/",
        "team/waits: Queued: queued in the LocalQueue vision: couldn't assign flavors to pod set "
        "main",
        "",
        "5 runs in all namespaces: 1 Failed, 1 Queued, 2 Running (1 stalled), 1 Succeeded",
        "GPU hours: 304.0 productive, 32.0 lost, 16.0 starting, 88.0 queued",
        "  research: 16.0 productive, 16.0 lost, 0.0 starting, 0.0 queued",
        "  team: 288.0 productive, 16.0 lost, 16.0 starting, 88.0 queued",
    ]


@pytest.mark.parametrize(
    ("rate", "shown"), [(0.5, "0.5"), (999.96, "1000"), (1630.4, "1,630"), (123456.0, "123,456")]
)
def test_large_numbers_have_no_exponent(rate: float, shown: str) -> None:
    run = fleet_object("a", phase="Running", progress={"imagesPerSecond": rate})
    assert f" {shown} " in screen([run])[1]


def test_one_namespace_is_named_below() -> None:
    lines = screen([fleet_object("a", **training())], "team")
    assert lines[0].startswith("NAME ")
    assert "1 run in the namespace team: 1 Running" in lines
    assert lines[-1].startswith("GPU hours")


def test_no_runs_are_told_as_such() -> None:
    assert screen([]) == ["no runs in all namespaces"]
    assert screen([], "team") == ["no runs in the namespace team"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_columns_that_have_no_room_are_left_out_whole(width: int) -> None:
    objects = [each for each in fleet_objects() if each["metadata"]["name"] == "vision-3072"]
    head, run = screen(objects, width=width)[:2]
    # Not one more than there is need to.
    assert width - 13 <= len(run) <= width or width == 200
    assert "vision-3072" in run
    assert "Running" in run
    assert set(head.split()) <= {each.head for each in COLUMNS}
    assert ("MFU" in head) == (width == 200)


@pytest.mark.parametrize("height", [10, 15, 20, 40])
def test_what_is_not_well_has_room_first(height: int) -> None:
    bad = condition("Failed", "BudgetSpent", "crash")
    objects = [fleet_object(f"fine-{number:02}", **training()) for number in range(40)]
    objects.append(fleet_object("zbad", phase="Failed", conditions=[bad]))
    objects += [fleet_object(f"done-{number:02}", phase="Succeeded") for number in range(40)]
    lines = screen(objects, "team", width=160, height=height)
    assert len(lines) <= height
    assert any(line.startswith("zbad ") for line in lines)
    assert "zbad: BudgetSpent: crash" in lines
    [left] = [line for line in lines if line.startswith("no room for")]
    shown = sum(line.startswith("fine-") for line in lines)
    running = f"{40 - shown} Running, " if shown < 40 else ""
    assert f"no room for {running}40 Succeeded" in left


@pytest.mark.parametrize("width", [90, 120, 160])
@pytest.mark.parametrize("height", range(12, 24))
def test_a_screen_is_never_overfull(width: int, height: int) -> None:
    lines = screen(fleet_objects(), width=width, height=height)
    assert len(lines) <= height
    assert any("GPU hours" in line for line in lines)


def test_what_is_not_well_is_shown_in_its_place() -> None:
    rows = fleet_rows(fleet_objects(), NOW)
    assert fitting_rows(rows, None, 80, True) == rows
    few = fitting_rows(rows, 9, 120, True)
    assert [row.name for row in few] == ["broken", "stalled", "waits"]


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    words = "\x1b[2J\x07\u202e\r\nSucceeded"
    bad = condition("Failed", words, words)
    objects = [fleet_object("a", phase=words, message=words, conditions=[bad])]
    text = "\n".join(screen(objects))
    assert all(each.isprintable() or each == "\n" for each in text)
    assert "\\x1b[2J" in text


def test_square_brackets_are_no_markup() -> None:
    bad = condition("Failed", "BudgetSpent", "[red]list[/] [0]")
    assert any("[red]list[/] [0]" in line for line in screen([fleet_object("a", conditions=[bad])]))


@given(
    st.lists(st.sampled_from(fleet_objects()), max_size=30), st.integers(1, 200), st.integers(1, 60)
)
def test_a_terminal_of_any_size_is_drawn(
    objects: list[dict[str, Any]], width: int, height: int
) -> None:
    screen(objects, width=width, height=height)
