"""A real Prometheus answers every expression of the dashboards, whoever scrapes.

It scrapes the operator's own page, filled from statuses, and a recorded page of dcgm-exporter that
is replayed: a test machine has no GPU. tests/telemetry does the same for a run's own page.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.ports import free_port
from support.prometheus_server import (
    DASHBOARDS,
    Prometheus,
    needs_prometheus,
    panel_queries,
    prometheus,
    unanswered_panels,
)
from support.scraped_pages import (
    NODE,
    STATUSES,
    dcgm_page,
    operator_metrics,
    replayed,
    working_operator,
)

RULES = Path(__file__).parents[2] / "charts" / "alerts" / "operator.yaml"
NUMBERS = "cluster_namespace_run_metric:arlow_operator_run:max"


def scrape(name: str, port: int, namespace: str, *, honor_labels: bool) -> dict[str, Any]:
    """A scrape of a pod: the target has labels that its series have as well."""
    labels = {"namespace": namespace, "pod": f"{name}-abcde", "container": name}
    return {
        "job_name": name,
        "honor_labels": honor_labels,
        "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels}],
    }


@pytest.fixture(scope="module", params=[True, False], ids=["honorLabels", "exported_namespace"])
def scraped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes both pages, by either way of a clash of labels."""
    operator, dcgm = free_port(), free_port()
    jobs = [
        scrape("operator", operator, "arlow-system", honor_labels=request.param),
        scrape("dcgm-exporter", dcgm, "gpu-operator", honor_labels=request.param),
    ]
    with ExitStack() as stack:
        stack.enter_context(working_operator(operator_metrics(), operator))
        stack.enter_context(replayed(dcgm_page(), dcgm))
        folder = tmp_path_factory.mktemp("prometheus")
        server = stack.enter_context(prometheus(folder, [], [RULES], jobs=jobs))
        server.wait_for("cluster_namespace_run_metric:DCGM_FI_DEV:avg", 30)
        server.wait_for("cluster_namespace_cause:arlow_operator_run_restarts:increase1h", 30)
        time.sleep(4)
        yield server


@needs_prometheus
@pytest.mark.parametrize("dashboard", ["fleet", "operator", "gpus"])
def test_every_panel_has_data(scraped: Prometheus, dashboard: str) -> None:
    assert unanswered_panels(scraped, ".*", dashboard=dashboard) == []


@needs_prometheus
def test_what_the_operator_tells_of_a_run_has_data(scraped: Prometheus) -> None:
    of_trainer = r"(?<!:)\barlow_(?!operator)"
    told = [expr for _, expr, _ in panel_queries("quick") if not re.search(of_trainer, expr)]
    assert len(told) == 9
    unanswered = unanswered_panels(scraped, "quick")
    assert not [each for each in unanswered if not re.search(of_trainer, each)]


@needs_prometheus
@pytest.mark.parametrize("dashboard", ["fleet", "operator", "gpus", "run"])
def test_every_variable_has_choices(scraped: Prometheus, dashboard: str) -> None:
    document = json.loads((DASHBOARDS / f"{dashboard}.json").read_text())
    for variable in document["templating"]["list"]:
        if variable["type"] == "query" and variable["name"] != "cluster":
            query = variable["query"].replace("$cluster", ".*").replace("$namespace", ".*")
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
            assert found, query
            values = {each["metric"][found[2]] for each in scraped.query(found[1])}
            expected = {"namespace": {"team", "other"}, "run": {run for _, run in STATUSES}}
            assert values == expected[variable["name"]]


@needs_prometheus
def test_a_series_of_a_run_has_the_namespace_of_the_run(scraped: Prometheus) -> None:
    found = {
        (each["metric"]["namespace"], each["metric"]["run"])
        for each in scraped.query(f'{NUMBERS}{{metric="gpus"}}')
    }
    assert found == STATUSES.keys()


@needs_prometheus
def test_gpus_are_told_by_run_in_both_spellings(scraped: Prometheus) -> None:
    recorded = 'cluster_namespace_run_Hostname_gpu_metric:DCGM_FI_DEV:max{metric="GPU_TEMP"}'
    found = [
        {key: value for key, value in each["metric"].items() if key != "__name__"}
        for each in scraped.query(recorded)
    ]
    of_run = {"namespace": "team", "run": "quick", "Hostname": NODE, "metric": "GPU_TEMP"}
    assert found == [of_run | {"gpu": "0"}, of_run | {"gpu": "1"}]


@needs_prometheus
def test_the_fleet_table_tells_of_a_run_what_its_status_says(scraped: Prometheus) -> None:
    document = json.loads((DASHBOARDS / "fleet.json").read_text())
    [panel] = [
        each for each in document["panels"] if each["type"] == "table" and each["title"] == "Runs"
    ]
    [organized] = [each for each in panel["transformations"] if each["id"] == "organize"]
    columns = {
        column: target["expr"]
        for target in panel["targets"]
        for key, column in organized["options"]["renameByName"].items()
        if key == f"Value #{target['refId']}"
    }
    row = {}
    for column, expr in columns.items():
        expr = re.sub(r"\$(cluster|namespace)", ".*", expr).replace("$run", "quick")
        [answer] = scraped.query(expr)
        row[column] = float(answer["value"][1])
        assert answer["metric"]["run"] == "quick"
    age = row.pop("checkpoint age")
    assert 7 * 60 < age < 20 * 60
    assert row == pytest.approx(
        {
            "is in": 1,
            "progress": 0.05,
            "ETA": 86_400,
            "loss": 0.61,
            "images/s": 812.5,
            "MFU": 0.31,
            "goodput": 30_000 / 30_900,
            "restarts": 1,
            "stalled": 0,
            "GPUs": 8,
        }
    )
