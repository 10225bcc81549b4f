"""Who reaches whom, by the policies that the chart renders and those that the docs give."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from chart_network import Address, Peer, Pod, reaches
from rendering import CHART, NAMESPACE, of_kind, only, render

DOCS = CHART.parent / "docs" / "installing.md"

LABELS = only(render(), "Deployment")["spec"]["template"]["metadata"]["labels"]
OPERATOR = Pod(NAMESPACE, LABELS)
HELM_TEST = Pod(NAMESPACE, only(render(), "Pod")["metadata"]["labels"])
PROMETHEUS = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"})
RUN = Pod("team", {"arlow.dev/run": "run", "arlow.dev/attempt": "1"})
PEER = Pod("team", {"arlow.dev/run": "run", "arlow.dev/attempt": "1"})
OTHER = Pod("team", {"app": "notebook"})
ELSEWHERE = Pod("elsewhere", {"arlow.dev/run": "run"})
IMPOSTOR = Pod("elsewhere", LABELS)
STORE = Pod("store", {"app": "store"})
DNS = Pod("kube-system", {"k8s-app": "kube-dns"})
API, INTERNET = Address("10.0.0.1"), Address("198.51.100.7")

STATUS, METRICS, HEALTH, RENDEZVOUS = 9100, 8081, 8080, 29500


def policies(**values: Any) -> list[Any]:
    on: dict[str, Any] = {
        "networkPolicy": {"enabled": True},
        "runs": {"networkPolicy": {"namespaces": ["team"]}},
    }
    return of_kind(render(on | values), "NetworkPolicy")


def documented(name: str) -> Any:
    """Returns the policy of a name that docs/installing.md gives."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    found = [each for block in blocks for each in yaml.safe_load_all(block)]
    (policy,) = [
        each
        for each in found
        if each.get("kind") == "NetworkPolicy" and each["metadata"]["name"] == name
    ]
    return policy


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [
        (PROMETHEUS, OPERATOR, METRICS, True),
        (PROMETHEUS, OPERATOR, HEALTH, False),
        (HELM_TEST, OPERATOR, HEALTH, True),
        (HELM_TEST, OPERATOR, METRICS, False),
        (OTHER, OPERATOR, METRICS, False),
        (RUN, OPERATOR, METRICS, False),
        (INTERNET, OPERATOR, METRICS, False),
        (OPERATOR, RUN, STATUS, True),
        (OPERATOR, ELSEWHERE, STATUS, True),
        (OPERATOR, RUN, RENDEZVOUS, False),
        (OPERATOR, OTHER, STATUS, False),
        (OPERATOR, API, 443, True),
        (OPERATOR, API, 6443, True),
        (OPERATOR, INTERNET, 80, False),
        (OPERATOR, DNS, 53, False),
        (PROMETHEUS, RUN, STATUS, True),
        (PROMETHEUS, RUN, RENDEZVOUS, False),
        (PEER, RUN, RENDEZVOUS, True),
        (PEER, RUN, STATUS, True),
        (OTHER, RUN, STATUS, False),
        (ELSEWHERE, RUN, STATUS, False),
        (ELSEWHERE, RUN, RENDEZVOUS, False),
        (IMPOSTOR, RUN, STATUS, False),
        (INTERNET, RUN, STATUS, False),
        # What runs reach is left to the docs.
        (RUN, STORE, 9000, True),
        (RUN, INTERNET, 443, True),
        # A namespace that is not named has no policy.
        (OTHER, ELSEWHERE, STATUS, True),
    ],
)
def test_who_reaches_whom(source: Peer, target: Peer, port: int, expected: bool) -> None:
    assert reaches(policies(), source, target, port) is expected


def test_without_policies_everybody_reaches_everybody() -> None:
    assert not of_kind(render(), "NetworkPolicy")
    assert reaches([], OTHER, OPERATOR, METRICS)


def test_the_operator_of_some_namespaces_reaches_runs_of_those_alone() -> None:
    found = policies(watchNamespaces=["team"])
    assert reaches(found, OPERATOR, RUN, STATUS)
    assert not reaches(found, OPERATOR, ELSEWHERE, STATUS)


def test_the_api_can_be_named_by_its_addresses() -> None:
    api = {"ports": [8443], "cidrs": ["10.0.0.1/32"]}
    found = policies(networkPolicy={"enabled": True, "apiServer": api})
    assert reaches(found, OPERATOR, API, 8443)
    assert not reaches(found, OPERATOR, API, 443)
    assert not reaches(found, OPERATOR, INTERNET, 8443)


WEBHOOK = {"webhookSecret": {"name": "chat"}}
NODE_DNS, CHAT = Address("169.254.20.10"), Address("203.0.113.9")


@pytest.mark.parametrize(
    ("target", "port", "protocol", "expected"),
    [
        (CHAT, 443, "TCP", True),
        (CHAT, 8065, "TCP", True),
        (INTERNET, 443, "TCP", False),
        (CHAT, 22, "TCP", False),
        (DNS, 53, "UDP", True),
        (NODE_DNS, 53, "TCP", True),
        (DNS, 5353, "UDP", False),
    ],
)
def test_the_operator_reaches_its_webhook_and_dns(
    target: Peer, port: int, protocol: str, expected: bool
) -> None:
    to_api = {"cidrs": ["10.0.0.1/32"]}
    to_chat = {"ports": [443, 8065], "cidrs": ["203.0.113.0/24"]}
    policy = {"enabled": True, "apiServer": to_api, "webhook": to_chat}
    found = policies(notifications=WEBHOOK, networkPolicy=policy)
    assert reaches(found, OPERATOR, target, port, protocol) is expected
    # Nothing of it without a webhook.
    assert not reaches(policies(networkPolicy=policy), OPERATOR, target, port, protocol)


def test_dns_of_openshift_listens_at_another_port() -> None:
    on = {"enabled": True}
    found = policies(notifications=WEBHOOK, networkPolicy=on, openshift=True)
    for port in (53, 5353):
        assert reaches(found, OPERATOR, Pod("openshift-dns"), port, "UDP")


def test_prometheus_may_be_elsewhere() -> None:
    found = policies(networkPolicy={"enabled": True, "prometheusNamespace": "observability"})
    for target, port in ((OPERATOR, METRICS), (RUN, STATUS)):
        assert reaches(found, Pod("observability"), target, port)
        assert not reaches(found, PROMETHEUS, target, port)


def test_the_policy_of_the_docs_for_other_namespaces_is_the_charts() -> None:
    rendered = only(policies(), "NetworkPolicy", "arlow-runs")
    assert documented("arlow-runs")["spec"] == rendered["spec"]


@pytest.mark.parametrize(
    ("target", "port", "protocol", "expected"),
    [
        (DNS, 53, "UDP", True),
        (DNS, 53, "TCP", True),
        (STORE, 9000, "TCP", True),
        (STORE, 22, "TCP", False),
        (PEER, RENDEZVOUS, "TCP", True),
        (OTHER, 80, "TCP", False),
        (ELSEWHERE, RENDEZVOUS, "TCP", False),
        (INTERNET, 443, "TCP", False),
        (API, 443, "TCP", False),
    ],
)
def test_the_docs_policy_lets_runs_reach_the_store_and_their_peers_alone(
    target: Peer, port: int, protocol: str, expected: bool
) -> None:
    egress = documented("arlow-runs-egress")
    egress["metadata"]["namespace"] = "team"
    assert reaches([*policies(), egress], RUN, target, port, protocol) is expected
