"""Whether the cluster's definition is the operator's own."""

from __future__ import annotations

import copy
from typing import Any

from arlow_operator.crd import definition
from arlow_operator.definition import differing_fields


def published(schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns the document in which the API server publishes a definition."""
    if schema is None:
        schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    kind = {"group": "arlow.dev", "version": "v1alpha1", "kind": "ArlowPretrain"}
    schema = {**copy.deepcopy(schema), "x-kubernetes-group-version-kind": [kind]}
    # As the API server publishes it.
    reference = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    schema["properties"]["metadata"] = {"allOf": [{"$ref": reference}], "default": {}}
    other = {"type": "object", "properties": {"name": {"type": "string"}}}
    schemas = {"io.k8s.ObjectMeta": other, "dev.arlow.v1alpha1.ArlowPretrain": schema}
    return {"openapi": "3.0.0", "components": {"schemas": schemas}}


def fields(schema: dict[str, Any], *path: str) -> dict[str, Any]:
    """Returns the properties below a path."""
    for name in path:
        schema = schema["properties"][name]
    found: dict[str, Any] = schema["properties"]
    return found


def root() -> dict[str, Any]:
    found: dict[str, Any] = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return copy.deepcopy(found)


def test_the_same_definition_differs_in_nothing() -> None:
    assert differing_fields(published()) == set()


def test_a_field_that_the_cluster_does_not_know_is_named() -> None:
    schema = root()
    del fields(schema, "spec", "failurePolicy", "stall")["factor"]
    assert differing_fields(published(schema)) == {"spec.failurePolicy.stall.factor"}


def test_a_field_that_this_version_does_not_know_is_named() -> None:
    schema = root()
    fields(schema, "status")["later"] = {"type": "string"}
    items = schema["properties"]["status"]["properties"]["conditions"]["items"]
    items["properties"]["weight"] = {"type": "integer"}
    assert differing_fields(published(schema)) == {"status.later", "status.conditions[].weight"}


def test_a_document_without_the_kind_tells_nothing() -> None:
    assert differing_fields({"components": {"schemas": {}}}) is None
    assert differing_fields({}) is None
