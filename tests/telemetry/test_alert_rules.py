"""Alerts of a run as code: sound rules, each proven to fire and to stay quiet."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from telemetry_reports import make_report

from arlow_trainer.config import ArlowPretrain
from arlow_trainer.telemetry import CheckpointReport, Telemetry
from arlow_trainer.telemetry.scalars import SCALARS
from support.prometheus_server import needs_prometheus, sped_up

ROOT = Path(__file__).parents[2]
RULES = ROOT / "charts" / "alerts" / "trainer.yaml"
PROOF = Path(__file__).parent / "alerts" / "trainer_test.yaml"


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def promtool(*arguments: str) -> None:
    command = ["promtool", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", str(RULES))


@needs_prometheus
def test_each_alert_fires_and_stays_quiet() -> None:
    promtool("test", "rules", str(PROOF))


@needs_prometheus
def test_sped_up_rules_hold_no_original_time(tmp_path: Path) -> None:
    quick = sped_up(RULES, tmp_path, 120)
    promtool("check", "rules", str(quick))
    before, after = (
        [
            (rule["expr"], rule.get("for", "0s"))
            for group in yaml.safe_load(path.read_text())["groups"]
            for rule in group["rules"]
        ]
        for path in (RULES, quick)
    )
    for (slow, wait), (fast, short_wait) in zip(before, after, strict=True):
        # Ranges, offsets and steps of subqueries.
        old, new = _seconds(slow), _seconds(fast)
        assert new == pytest.approx([seconds / 120 for seconds in old])
        assert _seconds(short_wait) == pytest.approx([seconds / 120 for seconds in _seconds(wait)])
        limits = {float(number) for number in re.findall(r"(?<![\w.])\d{3,}(?![\w.])", slow)}
        unchanged = {float(number) for number in re.findall(r"(?<![\w.])\d{3,}(?![\w.])", fast)}
        assert unchanged == {limit for limit in limits if limit < 300}


def _seconds(expr: str) -> list[float]:
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    found = re.findall(r"\b(\d+)(ms|[smhd])\b", expr)
    return [float(number) * units[unit] for number, unit in found]


@pytest.mark.parametrize("name", alerts())
def test_each_alert_is_proven_both_ways(name: str) -> None:
    tests = yaml.safe_load(PROOF.read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    expected = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == name]
    assert {True, False} == set(expected)


@pytest.fixture
def metric_names(telemetry: Any, run: ArlowPretrain) -> set[str]:
    """Names of all samples of a run in which everything has happened."""
    started: Telemetry = telemetry(port=None)
    started.step(make_report(1, readout=dict.fromkeys(SCALARS, 1.0)))
    started.checkpoint(CheckpointReport(1, "runs/quick/checkpoint-1", 1.0, 9, 0.1))
    started.probe(1, "knn", 0.7)
    families = started._metrics.registry.collect()
    return {sample.name for family in families for sample in family.samples}


def test_rules_dashboard_and_docs_name_metrics_that_exist(metric_names: set[str]) -> None:
    dashboard = (ROOT / "charts" / "dashboards" / "run.json").read_text()
    for text in (RULES.read_text(), dashboard):
        named = set(re.findall(r"(?<!:)\barlow_[a-z_]+", text))
        assert named <= metric_names | {"arlow_tokens"}


def test_every_metric_is_documented(metric_names: set[str]) -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in metric_names}
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(arlow_[a-z_]+)`", page, re.MULTILINE)) == families
