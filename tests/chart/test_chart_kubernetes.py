"""What is rendered has no field that Kubernetes or Prometheus' operator does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio import client
from rendering import CHART, EVERYTHING, MONITORING, helm, render

# The client's models are generated from Kubernetes' OpenAPI, and refuse unknown fields.
MODELS = {
    "ClusterRole": client.V1ClusterRole,
    "ClusterRoleBinding": client.V1ClusterRoleBinding,
    "ConfigMap": client.V1ConfigMap,
    "CustomResourceDefinition": client.V1CustomResourceDefinition,
    "Deployment": client.V1Deployment,
    "NetworkPolicy": client.V1NetworkPolicy,
    "Pod": client.V1Pod,
    "PodDisruptionBudget": client.V1PodDisruptionBudget,
    "Role": client.V1Role,
    "RoleBinding": client.V1RoleBinding,
    "Service": client.V1Service,
    "ServiceAccount": client.V1ServiceAccount,
    "ValidatingAdmissionPolicy": client.V1ValidatingAdmissionPolicy,
    "ValidatingAdmissionPolicyBinding": client.V1ValidatingAdmissionPolicyBinding,
}
MONITORING_SCHEMAS = {"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"}

PLACED: dict[str, Any] = {
    "commonLabels": {"team": "vision"},
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
    "priorityClassName": "high",
    "serviceAccount": {"annotations": {"a": "b"}},
    "podAnnotations": {"a": "b"},
    "openshift": True,
    "networkPolicy": {"enabled": True, "apiServer": {"cidrs": ["10.0.0.1/32", "fd00::1/128"]}},
    "runs": {"allowCpu": True, "networkPolicy": {"namespaces": ["a", "b"]}},
    "affinity": {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}
            ]
        }
    },
}
# Names that YAML would take for something else.
ODD: dict[str, Any] = {
    "watchNamespaces": ["1", "on", "1e3", "null"],
    "serviceAccount": {"name": "1"},
    "priorityClassName": "2",
    "imagePullSecrets": [{"name": "3"}],
    "commonLabels": {"4": "5", "empty": "", "off": "off"},
    "podAnnotations": {"a": "6", "b": "{"},
    "networkPolicy": {"enabled": True, "prometheusNamespace": "7"},
    "gpu": {"resource": "8", "productLabel": "9"},
    "image": {"operator": {"tag": "1"}, "trainer": {"tag": "2"}},
    "runs": {"networkPolicy": {"namespaces": ["true"]}, "serviceAccountName": "1"},
    "podMonitors": {"enabled": True, "labels": {"release": "1"}},
    "dashboards": {"enabled": True, "annotations": {"folder": "1"}},
}
VALUES = ({}, EVERYTHING, {**EVERYTHING, **PLACED, "watchNamespaces": []}, ODD)
NAMES = ("defaults", "everything", "placed", "odd names")


@pytest.mark.parametrize("values", VALUES, ids=NAMES)
def test_every_object_is_one_of_kubernetes(values: dict[str, Any]) -> None:
    for each in render(values, apis=MONITORING):
        if each["kind"] not in MONITORING_SCHEMAS:
            MODELS[each["kind"]].model_validate(each)


@pytest.mark.parametrize("values", VALUES, ids=NAMES)
def test_every_monitor_and_rule_is_one_of_prometheus_operator(values: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for each in render(values, apis=MONITORING):
        if name := MONITORING_SCHEMAS.get(each["kind"]):
            path = Path(__file__).parent / "monitoring" / f"{name}.json"
            schema = closed(json.loads(path.read_text("utf-8")))
            jsonschema.Draft202012Validator(schema).validate(each)


def closed(node: Any) -> Any:
    """Returns a schema that refuses unknown fields, as `kubectl apply` does."""
    if isinstance(node, list):
        return [closed(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {key: closed(value) for key, value in node.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


def test_a_mistake_would_be_seen() -> None:
    (deployment,) = [each for each in render() if each["kind"] == "Deployment"]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    for wrong in ({"imagePulPolicy": "Always"}, {"ports": {}}, {"image": 1}):
        broken = json.loads(json.dumps(deployment))
        broken["spec"]["template"]["spec"]["containers"][0] = container | wrong
        with pytest.raises(ValueError, match=next(iter(wrong))):
            client.V1Deployment.model_validate(broken)


def test_no_object_is_rendered_twice() -> None:
    for values in VALUES:
        names = [
            (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
            for each in render(values, apis=MONITORING)
        ]
        assert len(names) == len(set(names))


def test_the_same_values_render_the_same_text() -> None:
    """Else a GitOps tool would see changes that nobody made."""
    arguments = ("template", "arlow", str(CHART))
    assert helm(*arguments) == helm(*arguments)


def test_the_longest_name_of_a_release_leaves_room() -> None:
    text = helm("template", "r" * 53, str(CHART), "--namespace", "n" * 63)
    names = [
        each["metadata"]["name"]
        for each in yaml.safe_load_all(text)
        if each["kind"] in ("Service", "Pod", "Deployment")
    ]
    assert len(names) == 3
    assert max(map(len, names)) <= 63
    numbered = yaml.safe_load_all(helm("template", "42", str(CHART)))
    for each in numbered:
        MODELS[each["kind"]].model_validate(each)
