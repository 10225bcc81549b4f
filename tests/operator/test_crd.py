"""The custom resource's definition says what the models say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arlow_operator.crd import crd_yaml, definition
from arlow_operator.schema import structural

MANIFEST = Path(__file__).parents[2] / "charts" / "files" / "crd.yaml"


def test_the_committed_definition_is_current() -> None:
    assert MANIFEST.read_text("utf-8") == crd_yaml(), "run `make docs`"


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def root() -> dict[str, Any]:
    version = definition()["spec"]["versions"][0]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def test_every_node_is_structural() -> None:
    for path, node in nodes(root()):
        assert isinstance(node.get("type"), str) or node["x-kubernetes-int-or-string"], path
        assert not node.keys() & {"$ref", "anyOf", "oneOf", "title", "const"}, path
        assert not ("properties" in node and "additionalProperties" in node), path


def test_only_spec_and_training_have_defaults_since_others_would_overwrite_presets() -> None:
    found = [path for path, node in nodes(root()) if "default" in node]
    assert found == [".spec", ".spec.training"]


def test_every_list_and_text_of_a_user_is_bounded() -> None:
    spec = root()["properties"]["spec"]
    for path, node in nodes(spec, ".spec"):
        if "x-kubernetes-int-or-string" in node:
            assert {"pattern", "maxLength", "minimum", "maximum"} <= node.keys(), path
            continue
        if node["type"] == "array":
            assert "maxItems" in node, path
        free = path.endswith("[]") or ".podTemplatePatch" in path
        if node["type"] == "string" and "enum" not in node and not free:
            assert "maxLength" in node, path


def test_a_null_is_an_absent_field() -> None:
    spec = root()["properties"]["spec"]["properties"]
    assert spec["checkpoint"]["nullable"]
    assert spec["training"]["properties"]["seed"]["nullable"]
    assert "nullable" not in spec["training"]["properties"]["probe"]["properties"]["data"]
    # An enum would refuse it.
    for path, node in nodes(root()["properties"]["spec"]):
        assert not ("nullable" in node and "enum" in node), path


def test_a_default_set_can_be_changed_in_part() -> None:
    training = root()["properties"]["spec"]["properties"]["training"]["properties"]
    assert "required" not in training["data"]["properties"]["videos"]
    assert training["probe"]["properties"]["data"]["required"] == ["path"]


def test_descriptions_tell_defaults_and_bounds() -> None:
    spec = root()["properties"]["spec"]["properties"]
    ratio = spec["training"]["properties"]["mae"]["properties"]["maskRatio"]
    assert ratio["description"].endswith("Allowed: a number, above 0 and below 1. Default: 0.75.")
    assert (ratio["minimum"], ratio["exclusiveMinimum"]) == (0, True)


def test_no_maximum_is_near_2_to_the_63_where_kubernetes_overflows() -> None:
    assert all(node.get("maximum", 0) < 2**53 for _, node in nodes(root()))


def test_a_union_is_refused() -> None:
    union = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    with pytest.raises(ValueError, match="union of 2 types"):
        structural(union, {}, by_users=False)


def test_columns_are_as_the_api_server_gives_them_back() -> None:
    [version] = definition()["spec"]["versions"]
    for column in version["additionalPrinterColumns"]:
        assert column.get("priority") != 0
