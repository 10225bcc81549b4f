"""The manifests that users apply."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from kubernetes.aio import client
from pydantic import BaseModel

from arlow_operator.crd import definition
from arlow_operator.resource import read_run
from arlow_trainer.config import validate
from arlow_trainer.config.models import KIND, RunSpec
from arlow_trainer.config.yaml_text import read_documents

MANIFESTS = Path(__file__).parents[2] / "manifests"
# The client's models are generated from Kubernetes' OpenAPI, and refuse unknown fields.
MODELS = {
    "Deployment": client.V1Deployment,
    "Job": client.V1Job,
    "NetworkPolicy": client.V1NetworkPolicy,
    "PersistentVolumeClaim": client.V1PersistentVolumeClaim,
    "Secret": client.V1Secret,
    "Service": client.V1Service,
}
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
            MODELS[each["kind"]].model_validate(each)


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


def test_the_full_run_is_written_out_in_comments() -> None:
    """What is commented out is every default, and nothing else."""
    bare = MANIFESTS / "pretrain.yaml"
    head, _, spec = bare.read_text("utf-8").partition("\nspec:\n")
    lines = [re.sub(r"^( *)# ( *(?:- )?\w+:(?: |$))", r"\1\2", line) for line in spec.splitlines()]
    [written] = read_documents(f"{head}\nspec:\n" + "\n".join(lines))
    [short] = read_documents(bare.read_text("utf-8"))
    shown = [validate(each, bare.name).model_dump(exclude_none=True) for each in (written, short)]
    assert shown[0] == shown[1]

    missing = set(_fields(RunSpec)) - set(_paths(written["spec"]))
    # Sections that only some runs have, and fields of sources that the default sets do not need.
    optional = re.compile(
        r"training\.probe.*|training\.init.*|training\.data\.(images|videos|workers).*|.*\.options"
    )
    assert {path for path in missing if not optional.fullmatch(path)} == set()


def _paths(node: Json, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{key}.")


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        yield path
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{path}.")
