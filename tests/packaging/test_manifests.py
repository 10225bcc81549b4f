"""The manifests that users apply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from arlow_operator.crd import definition
from arlow_operator.resource import KIND, read_run
from arlow_trainer.config.yaml_text import read_documents

MANIFESTS = Path(__file__).parents[2] / "manifests"
KUBERNETES = "1.35"
FILES = sorted(path.name for path in MANIFESTS.glob("*.yaml"))
# `make demo` trains it without a cluster.
LOCAL = "demo.yaml"

Json = dict[str, Any]


def objects(file: str) -> list[Json]:
    return read_documents((MANIFESTS / file).read_text("utf-8"))


def of_kind(file: str, kind: str) -> list[Json]:
    return [each for each in objects(file) if each["kind"] == kind]


def closed(schema: Json) -> Json:
    """Returns a structural schema that refuses unknown fields, as `kubectl apply` does."""
    found = {key: value for key, value in schema.items() if key != "format"}
    if "properties" in found:
        found["properties"] = {name: closed(each) for name, each in found["properties"].items()}
        found["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = closed(found[key])
    if found.get("exclusiveMinimum") is True:
        found["exclusiveMinimum"] = found.pop("minimum")
    if found.get("exclusiveMaximum") is True:
        found["exclusiveMaximum"] = found.pop("maximum")
    return found


@pytest.fixture(scope="module")
def run_schema() -> Json:
    (version,) = definition()["spec"]["versions"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


@pytest.mark.parametrize("file", FILES)
def test_every_object_is_what_its_kind_allows(file: str, run_schema: Json) -> None:
    for each in objects(file):
        if each["kind"] == KIND:
            jsonschema.validate(each, run_schema)
        else:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize("file", [each for each in FILES if each != LOCAL])
def test_the_operator_takes_every_run(file: str) -> None:
    for each in of_kind(file, KIND):
        metadata = {"namespace": "vision", "uid": "1", "generation": 1, "resourceVersion": "1"}
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
        run, _ = read_run({**each, "metadata": metadata | each["metadata"]})
        assert run.mistakes == ""


@pytest.mark.parametrize("file", FILES)
def test_every_pod_keeps_to_pod_security_restricted(file: str) -> None:
    for each in (o for kind in ("Deployment", "Job") for o in of_kind(file, kind)):
        pod = each["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
