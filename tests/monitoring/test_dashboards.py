"""The dashboards as committed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.prometheus_server import DASHBOARDS
from support.scraped_pages import operator_metrics

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "charts" / "src" / "dashboards.py"
ALERTS = ROOT / "charts" / "alerts"
NAMES = ("fleet", "gpus", "operator", "run")
# Grafana 10 to 12 have these; graph, singlestat and table-old are the ones that were taken out.
PANELS = {"row", "stat", "table", "timeseries"}


def dashboard(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return found


def expressions(name: str) -> list[str]:
    document = dashboard(name)
    panels = [target["expr"] for each in document["panels"] for target in each.get("targets", ())]
    marks = document.get("annotations", {}).get("list", ())
    queries = [each["query"] for each in variables(name) if each["type"] == "query"]
    return [*panels, *(each["expr"] for each in marks), *queries]


def variables(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard(name)["templating"]["list"]
    return found


def test_committed_dashboards_are_current(tmp_path: Path) -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="comes with the extra `dev`")
    subprocess.run([sys.executable, SOURCE, tmp_path], check=True, timeout=60)
    built = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in DASHBOARDS.glob("*.json")}
    assert built == committed, "run: python charts/src/dashboards.py"
    assert committed.keys() == {f"{name}.json" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_panels_fill_their_rows_and_say_what_they_show(name: str) -> None:
    panels = dashboard(name)["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    assert {panel["type"] for panel in panels} <= PANELS
    charts = [panel for panel in panels if panel["type"] != "row"]
    assert all(panel["description"] and panel["targets"] for panel in charts)
    for panel in charts:
        position = panel["gridPos"]
        assert position["x"] + position["w"] <= 24
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


@pytest.mark.parametrize("name", NAMES)
def test_links_keep_time_and_variables(name: str) -> None:
    document = dashboard(name)
    assert [each["name"] for each in variables(name)] == [
        "datasource",
        "cluster",
        "namespace",
        "run",
    ]
    [link] = document["links"]
    assert link["type"] == "dashboards"
    assert link["keepTime"] is True
    assert link["includeVars"] is True
    assert set(link["tags"]) <= set(document["tags"])
    assert document["uid"] == f"arlow-{name}"


def test_a_row_of_the_fleet_leads_to_its_run() -> None:
    [panel] = [
        each
        for each in dashboard("fleet")["panels"]
        if each["type"] == "table" and each["title"] == "Runs"
    ]
    [url] = [
        link["url"]
        for override in panel["fieldConfig"]["overrides"]
        if override["matcher"]["options"] == "run"
        for value in override["properties"]
        if value["id"] == "links"
        for link in value["value"]
    ]
    path, _, query = url.partition("?")
    assert path == f"/d/{dashboard('run')['uid']}"
    assert set(query.split("&")) == {
        "${datasource:queryparam}",
        "${cluster:queryparam}",
        "${__url_time_range}",
        "var-namespace=${__data.fields.namespace}",
        "var-run=${__data.fields.run}",
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_selector_asks_for_the_chosen_cluster(name: str) -> None:
    for expression in expressions(name):
        selectors = expression.count("{")
        asked = expression.count('cluster=~"$cluster"')
        # The choice of clusters is among all of them.
        assert asked == selectors or expression.endswith(", cluster)"), expression


@pytest.mark.parametrize("name", ["fleet", "gpus"])
def test_what_is_of_runs_asks_for_the_chosen_namespace(name: str) -> None:
    for expression in expressions(name):
        if ":" in expression and not expression.startswith("label_values"):
            assert expression.count('namespace=~"$namespace"') == expression.count("{"), expression


def test_no_profiling_metric_is_needed() -> None:
    assert not [each for each in expressions("gpus") if "DCGM_FI_PROF" in each]


@pytest.mark.parametrize("name", ["fleet", "gpus", "operator"])
def test_dashboards_name_series_that_exist(name: str) -> None:
    rules = [
        rule
        for path in ALERTS.glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    families = operator_metrics().registry.collect()
    served = {sample.name for family in families for sample in family.samples}
    served |= {"ALERTS"}
    for expression in expressions(name):
        for word in re.findall(r"\b(?:\w*:\w+:\w+|arlow_operator_\w+|ALERTS)\b", expression):
            assert word in recorded | served, (word, expression)
