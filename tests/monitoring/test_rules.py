"""Rules of runs, operator and Jobs: sound, each alert proven both ways, with a page."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.prometheus_server import needs_prometheus
from support.scraped_pages import operator_metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "charts" / "alerts"
FILES = sorted(FOLDER.glob("*.yaml"))
PROOFS = Path(__file__).parent / "alerts"
OURS = ("operator", "jobs")


def alerts(name: str = "*") -> dict[str, dict[str, Any]]:
    """Returns the alerts of a file of rules, or of all."""
    groups = [
        group
        for path in FOLDER.glob(f"{name}.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def promtool(*arguments: str) -> None:
    command = ["promtool", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
@pytest.mark.parametrize("name", OURS)
def test_promtool_accepts_the_rules(name: str) -> None:
    promtool("check", "rules", str(FOLDER / f"{name}.yaml"))


@needs_prometheus
@pytest.mark.parametrize("name", OURS)
def test_each_alert_fires_and_stays_quiet(name: str) -> None:
    promtool("test", "rules", str(PROOFS / f"{name}_test.yaml"))


@pytest.mark.parametrize("file", OURS)
def test_each_alert_is_proven_both_ways(file: str) -> None:
    tests = yaml.safe_load((PROOFS / f"{file}_test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    for name in alerts(file):
        expected = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == name}
        assert expected == {True, False}, name


@pytest.mark.parametrize("name", alerts())
def test_each_alert_has_a_runbook(name: str) -> None:
    rule = alerts()[name]
    page = ROOT / rule["annotations"]["runbook_url"]
    text = page.read_text()
    assert text.startswith(f"# {name}\n")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["What it means", "Look", "Act"]
    index = (page.parent / "README.md").read_text()
    severity = rule["labels"]["severity"]
    assert f"| [{name}]({page.name}) | {severity} |" in index
    assert severity in (("none",) if name == "ArlowRunJob" else ("critical", "warning"))


def test_no_runbook_without_alert() -> None:
    pages = {path.name for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README.md"}
    assert pages == {Path(rule["annotations"]["runbook_url"]).name for rule in alerts().values()}


def test_names_are_unique_over_all_files() -> None:
    named = [
        rule.get("alert") or rule["record"]
        for path in FILES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    assert len(set(named)) == len(named)


def test_the_rules_name_metrics_that_the_operator_serves() -> None:
    served = {
        sample.name for family in operator_metrics().registry.collect() for sample in family.samples
    }
    rules = (FOLDER / "operator.yaml").read_text()
    for word in re.findall(r"(?<![\w:])arlow_operator_\w+", rules):
        # A prefix of a name, or the whole.
        assert any(name.startswith(word) for name in served), word
    # Every number of runs is recorded.
    [pattern] = re.findall(r'__name__=~"(arlow_operator_run_[^"]+)"', rules)
    others = r"arlow_operator_run_(phase|restarts_total|goodput_seconds)"
    for name in served:
        if name.startswith("arlow_operator_run_"):
            assert re.fullmatch(pattern, name) or re.fullmatch(others, name), name


def test_the_documented_inhibition_silences_what_it_is_for_and_no_more() -> None:
    """The rules as documented, by Alertmanager's semantics, on what promtool has proven."""
    page = (ROOT / "docs" / "watching.md").read_text()
    [example] = re.findall(r"```yaml\n(inhibit_rules:.*?)```", page, re.DOTALL)
    rules = yaml.safe_load(example)["inhibit_rules"]
    tests = yaml.safe_load((PROOFS / "jobs_test.yaml").read_text())["tests"]
    silenced = []
    for test in tests[:2]:
        firing = [
            {"alertname": case["alertname"], **alert["exp_labels"]}
            for case in test["alert_rule_test"]
            for alert in case["exp_alerts"]
        ]
        silenced += [alert for alert in firing if inhibited(alert, firing, rules)]
    assert [(each["alertname"], each["job_name"]) for each in silenced] == [
        ("KubeJobNotCompleted", "quick-1"),
        ("KubeJobFailed", "quick-1"),
    ]
    of_run = {"namespace": "team", "run": "a"}
    both = [{"alertname": name, **of_run} for name in ("ArlowRunEndedFailed", "ArlowRunFailed")]
    assert [each for each in both if inhibited(each, both, rules)] == [both[1]]
    assert not inhibited(both[1] | {"run": "b"}, both, rules)


def inhibited(
    alert: dict[str, str], firing: list[dict[str, str]], rules: list[dict[str, Any]]
) -> bool:
    """Whether any rule silences an alert while others fire."""
    return any(
        matches(alert, rule["target_matchers"])
        and any(
            matches(other, rule["source_matchers"])
            and not matches(other, rule["target_matchers"])
            and all(alert.get(label, "") == other.get(label, "") for label in rule["equal"])
            for other in firing
        )
        for rule in rules
    )


def matches(alert: dict[str, str], matchers: list[str]) -> bool:
    for matcher in matchers:
        found = re.fullmatch(r'(\w+) ?(=~|=) ?"?([^"]*)"?', matcher)
        assert found, matcher
        pattern = found[3] if found[2] == "=~" else re.escape(found[3])
        if not re.fullmatch(pattern, alert.get(found[1], "")):
            return False
    return True
