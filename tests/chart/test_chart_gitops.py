"""The health checks of docs/installing.md, evaluated on what the operator writes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from rendering import CHART, EVERYTHING, of_kind, only, render

from arlow_operator.conditions import conditions_of
from arlow_operator.policies.situation import Decision
from arlow_operator.resource import read_run
from arlow_operator.status import TERMINAL, Phase, Reason, Status
from support.run_body import run_body

DOCS = CHART.parent / "docs" / "installing.md"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MESSAGE = "as the operator says"

# What a run is, as far as its health goes: phase, reason, and what else is so.
STATES: dict[str, tuple[Phase, Reason, dict[str, Any]]] = {
    "pending": ("Pending", "Pending", {}),
    "cannot start": ("Pending", "CannotStart", {}),
    "queued": ("Queued", "Queued", {}),
    "starting": ("Starting", "Starting", {}),
    "training": ("Running", "Training", {}),
    "stalled": ("Running", "Training", {"stalled": True}),
    "restarting": ("Restarting", "Restarting", {}),
    "suspending": ("Suspended", "Stopping", {"stopping": True}),
    "suspended": ("Suspended", "Suspended", {}),
    "succeeded": ("Succeeded", "Finished", {}),
    "failed": ("Failed", "BudgetSpent", {}),
    "invalid": ("Pending", "Invalid", {"spec": {"training": {"epochs": 0}}}),
}


def observed(state: str, *, generation: int = 1, seen: int = 1) -> dict[str, Any]:
    """Returns a run as the API has it, with the status that the operator writes in a state."""
    phase, reason, more = STATES[state]
    spec = {"checkpoint": {"url": "s3://bucket/runs"}, **more.get("spec", {})}
    body = run_body(spec, generation=generation)
    run, _ = read_run(body)
    status = Status(phase=phase, message=MESSAGE, observed_generation=seen)
    flags = {key: value for key, value in more.items() if key != "spec"}
    conditions = conditions_of(run, Decision(status, reason, **flags), NOW)
    body["status"] = status.model_copy(update={"conditions": conditions}).document()
    return body


def documented(key: str) -> Any:
    """Returns what a YAML block of the docs holds under a key."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    (found,) = [
        each[key]
        for block in blocks
        for each in yaml.safe_load_all(block)
        if isinstance(each, dict) and key in each
    ]
    return found


# --- Argo CD


def argo_health(run: dict[str, Any]) -> tuple[str, str]:
    """Returns health and message, by Lua 5.1 as in Argo CD."""
    lua51 = pytest.importorskip("lupa.lua51", reason="Lua is not installed: pip install lupa")
    lua = lua51.LuaRuntime()
    check = documented("resource.customizations.health.arlow.dev_ArlowPretrain")
    health = lua.execute(f"return function(obj) {check} end")(as_lua(lua, run))
    return health["status"], health["message"]


def as_lua(lua: Any, node: Any) -> Any:
    if isinstance(node, dict):
        return lua.table_from({key: as_lua(lua, value) for key, value in node.items()})
    if isinstance(node, list):
        return lua.table_from([as_lua(lua, each) for each in node])
    return node


@pytest.mark.parametrize(
    ("state", "health"),
    [
        ("pending", "Progressing"),
        ("cannot start", "Progressing"),
        ("queued", "Progressing"),
        ("starting", "Progressing"),
        ("training", "Healthy"),
        ("stalled", "Degraded"),
        ("restarting", "Progressing"),
        ("suspending", "Progressing"),
        ("suspended", "Suspended"),
        ("succeeded", "Healthy"),
        ("failed", "Degraded"),
        ("invalid", "Degraded"),
    ],
)
def test_argo_cd_shows_a_runs_health(state: str, health: str) -> None:
    found, message = argo_health(observed(state))
    assert found == health
    expected = r"epochs" if state == "invalid" else MESSAGE
    assert re.search(expected, message)


def test_argo_cd_waits_for_the_operator() -> None:
    run = observed("training")
    for before in (run | {"status": None}, run | {"status": {}}):
        assert argo_health(before) == ("Progressing", "waits for the operator")
    assert argo_health(observed("training", generation=2))[0] == "Progressing"
    # An end stays one, whatever is written into its spec.
    assert argo_health(observed("succeeded", generation=2))[0] == "Healthy"


# --- Flux


def flux_health(run: dict[str, Any]) -> str:
    """Returns the health, in the order in which Flux evaluates, generations first."""
    cel = pytest.importorskip(
        "cel", reason="CEL is not installed: pip install common-expression-language"
    )
    (check,) = documented("healthCheckExprs")
    assert (check["apiVersion"], check["kind"]) == (run["apiVersion"], run["kind"])
    seen = (run.get("status") or {}).get("observedGeneration")
    if seen is not None and seen != run["metadata"]["generation"]:
        return "InProgress"
    for name in ("inProgress", "failed", "current"):
        if name in check and cel.evaluate(check[name], run) is True:
            return {"failed": "Failed", "current": "Current"}.get(name, "InProgress")
    return "InProgress"


@pytest.mark.parametrize(
    ("state", "health"),
    [
        ("pending", "InProgress"),
        ("cannot start", "InProgress"),
        ("queued", "InProgress"),
        ("starting", "InProgress"),
        ("training", "Current"),
        ("stalled", "Current"),
        ("restarting", "InProgress"),
        ("suspending", "InProgress"),
        ("suspended", "Current"),
        ("succeeded", "Current"),
        ("failed", "Failed"),
        ("invalid", "Failed"),
    ],
)
def test_flux_waits_until_a_run_trains(state: str, health: str) -> None:
    assert flux_health(observed(state)) == health


def test_flux_waits_for_the_operator() -> None:
    run = observed("training")
    assert flux_health(run | {"status": {}}) == "InProgress"
    assert flux_health(observed("training", generation=2)) == "InProgress"


# --- kubectl wait


@pytest.mark.parametrize("state", STATES)
def test_finished_is_true_for_either_end_and_no_other_state(state: str) -> None:
    status = observed(state)["status"]
    held = {each["type"]: each["status"] for each in status["conditions"]}
    assert (held["Finished"] == "True") is (status["phase"] in TERMINAL)
    assert [held["Succeeded"], held["Failed"]].count("True") == (held["Finished"] == "True")
    # Flux and Helm take it for a final failure.
    assert "Stalled" not in held


# --- kubectl diff --server-side


def test_what_server_side_apply_takes_whole_has_its_defaults() -> None:
    """Else the API server's copy differs from ours: a conflict to all but Helm who apply it."""
    objects = render(EVERYTHING)
    rules = [
        rule
        for policy in of_kind(objects, "NetworkPolicy")
        for rule in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
    ]
    assert rules
    assert all("protocol" in port for rule in rules for port in rule.get("ports", []))
    [container] = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    sources = [each["valueFrom"]["fieldRef"] for each in container["env"] if "valueFrom" in each]
    assert sources
    assert all("apiVersion" in each for each in sources)
    constraints = only(objects, "ValidatingAdmissionPolicy")["spec"]["matchConstraints"]
    assert constraints.keys() >= {"matchPolicy", "namespaceSelector", "objectSelector"}
    assert all("scope" in rule for rule in constraints["resourceRules"])
