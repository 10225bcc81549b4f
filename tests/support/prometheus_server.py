"""A real Prometheus for tests: scrapes processes of this machine and answers PromQL."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from .ports import free_port

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="Prometheus is missing: apt-get install prometheus",
)

TIMEOUT_S = 30.0
"""How long the server may take to start, and to end."""
DASHBOARDS = Path(__file__).parents[2] / "charts" / "dashboards"
DASHBOARD = DASHBOARDS / "run.json"


class Prometheus:
    """A running server, queried over HTTP."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Answers PromQL now: a series each with its `metric` (labels) and `value`."""
        result = self._get("query", query=expression)["result"]
        assert isinstance(result, list)
        return result

    def query_range(self, expression: str, seconds: float) -> list[dict[str, Any]]:
        """Answers PromQL over the last seconds, as a panel's curve does."""
        end = time.time()
        answer = self._get(
            "query_range", query=expression, start=end - seconds, end=end, step=seconds / 20
        )
        result = answer["result"]
        assert isinstance(result, list)
        return result

    def firing(self) -> dict[str, dict[str, str]]:
        """Labels and annotations of the alerts that fire now, by name."""
        alerts = self._get("alerts")["alerts"]
        return {
            alert["labels"]["alertname"]: alert["labels"] | alert["annotations"]
            for alert in alerts
            if alert["state"] == "firing"
        }

    def wait_for(self, expression: str, seconds: float = 20.0) -> list[dict[str, Any]]:
        """Waits until PromQL has an answer, and returns it."""
        end = time.monotonic() + seconds
        while not (result := self.query(expression)):
            assert time.monotonic() < end, f"no answer to {expression} within {seconds} s"
            time.sleep(0.2)
        return result

    def _get(self, path: str, **parameters: Any) -> dict[str, Any]:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error


@contextmanager
def prometheus(
    folder: Path,
    targets: Sequence[str],
    rules: Sequence[Path] = (),
    interval: str = "500ms",
    jobs: Sequence[Mapping[str, Any]] = (),
    flags: Sequence[str] = (),
) -> Iterator[Prometheus]:
    """Starts a Prometheus that scrapes HOST:PORT targets and evaluates rule files.

    `jobs` are further scrape configurations, `flags` of the server's command line.
    """
    config = folder / "prometheus.yml"
    document = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(rule) for rule in rules],
        "scrape_configs": [
            {"job_name": "arlow", "static_configs": [{"targets": list(targets)}]},
            *jobs,
        ],
    }
    config.write_text(yaml.safe_dump(document))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *flags,
    ]
    log = folder / "prometheus.log"
    with log.open("w") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            _wait_until_ready(port, process, log)
            yield Prometheus(port)
        finally:
            process.terminate()
            try:
                process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)


def panel_queries(
    run: str, rate_interval: str = "4s", dashboard: str = "run"
) -> list[tuple[str, str, bool]]:
    """Every expression of a dashboard, as (panel or annotation, PromQL, instant).

    Variables are expanded as Grafana expands them, cluster and namespace to all.
    """
    document = json.loads((DASHBOARDS / f"{dashboard}.json").read_text())
    found = [
        (panel["title"], target["expr"], bool(target.get("instant")))
        for panel in document["panels"]
        for target in panel.get("targets", [])
    ]
    marks = document.get("annotations", {}).get("list", [])
    found += [(one["name"], one["expr"], False) for one in marks]
    variables = {
        "$cluster": ".*",
        "$namespace": ".*",
        "$run": run,
        "$__rate_interval": rate_interval,
    }
    return [(title, _expanded(expr, variables), instant) for title, expr, instant in found]


def unanswered_panels(
    server: Prometheus,
    run: str,
    absent: Sequence[str] = (),
    seconds: float = 10.0,
    dashboard: str = "run",
    rate_interval: str = "4s",
) -> list[str]:
    """The expressions of a dashboard without a number.

    `absent` names metrics that a run may lack.
    """
    missing = []
    for title, expr, instant in panel_queries(run, rate_interval, dashboard):
        if any(metric in expr for metric in absent):
            continue
        answer = server.query(expr) if instant else server.query_range(expr, seconds)
        if not has_numbers(answer):
            missing.append(f"{title}: {expr}")
    return missing


def has_numbers(answer: list[dict[str, Any]]) -> bool:
    """Whether an answer of `query` or `query_range` holds a value that is not NaN.

    A share of nothing is NaN: a series, and an empty panel.
    """
    samples = [pair for series in answer for pair in series.get("values", [series.get("value")])]
    return any(value != "NaN" for _, value in samples)


def sped_up(rules: Path, folder: Path, factor: float) -> Path:
    """Writes rules whose durations and limits in seconds are divided by a factor.

    Ratios, counts, codes and limits below 300, which are no times, stay as they are.
    """

    def shorter(match: re.Match[str]) -> str:
        seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
        return f"{max(1, round(1000 * seconds / factor))}ms"

    def smaller(match: re.Match[str]) -> str:
        limit = float(match[0])
        return match[0] if limit < 300 else f"{limit / factor:.3f}"

    document = yaml.safe_load(rules.read_text())
    for rule in (rule for group in document["groups"] for rule in group["rules"]):
        # A digit within a name (`rate10m`) begins no word, and is left alone.
        expr = re.sub(r"\b(\d+)([smhd])\b", shorter, rule["expr"])
        rule["expr"] = re.sub(r"(?<![\w.$])\d+(?![\w.])", smaller, expr)
        if "for" in rule:
            rule["for"] = re.sub(r"^(\d+)([smhd])$", shorter, rule["for"])
    target = folder / rules.name
    target.write_text(yaml.safe_dump(document))
    return target


def _expanded(expression: str, variables: dict[str, str]) -> str:
    for name, value in variables.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"unknown variable in {expression}"
    return expression
