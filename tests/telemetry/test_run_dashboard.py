"""The Run dashboard as committed."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from support.prometheus_server import (
    has_numbers,
    needs_prometheus,
    panel_queries,
    prometheus,
)

ROOT = Path(__file__).parents[2]


def test_every_expression_asks_for_the_chosen_run() -> None:
    for title, expression, _ in panel_queries("quick"):
        assert expression.count('run="quick"') == expression.count("{"), title


@pytest.mark.parametrize("section", ["Learning", "Speed"])
def test_every_metric_of_learning_and_speed_is_drawn(section: str) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    table = page.split(f"## {section}\n")[1].split("\n## ")[0]
    metrics = re.findall(r"^\| `(arlow_[a-z_]+)`", table, re.MULTILINE)
    drawn = "\n".join(expression for _, expression, _ in panel_queries("quick"))
    assert [metric for metric in metrics if metric not in drawn] == []


@needs_prometheus
def test_an_answer_of_nothing_but_nan_is_no_data(tmp_path: Path) -> None:
    with prometheus(tmp_path, []) as server:
        assert not has_numbers(server.query("vector(0) / 0"))
        assert not has_numbers(server.query_range("vector(0) / 0", 10))
        assert not has_numbers(server.query("absent_metric"))
        assert has_numbers(server.query("vector(0)"))
        assert has_numbers(server.query_range("vector(0)", 10))
        # A curve may begin with NaN: a share before the first step.
        late = f"(vector(time()) > bool {time.time() - 5})"
        assert has_numbers(server.query_range(f"{late} / {late}", 10))
