"""From a pydantic model to the structural schema that Kubernetes asks of a custom resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arlow_trainer.config.allowed import describe_allowed, resolve

Schema = Mapping[str, Any]

# A larger maximum overflows where Kubernetes reads it; int64 is enforced without one.
MAX_EXACT = 2**53
COPIED = (
    "enum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "format",
)


def structural(schema: Schema, definitions: Schema, *, described: bool) -> dict[str, Any]:
    """Returns a JSON schema of pydantic's as a structural one.

    References are inlined; optional fields and sections are nullable, since a null means an absent
    field; defaults stand in the descriptions, as those of the schema would overwrite presets.

    Args:
        schema: the JSON schema of a field or section.
        definitions: its `$defs`.
        described: whether defaults and bounds are added to the descriptions.

    Raises ValueError for what no structural schema can say.
    """
    found: dict[str, Any] = {}
    nullable = False
    node = dict(schema)
    if "anyOf" in node:
        arms = [arm for arm in node.pop("anyOf") if arm.get("type") != "null"]
        if len(arms) != 1:
            raise ValueError(f"a union of {len(arms)} types has no structural schema: {schema}")
        nullable = True
        node = {**arms[0], **node}
    if "$ref" in node:
        name = node.pop("$ref").rpartition("/")[2]
        node = {**definitions[name], **node}
    if description := _description(schema, node, described):
        found["description"] = description
    if "const" in node:
        node = {"enum": [node["const"]], "type": _type_of(node["const"]), **node}
    if nullable:
        found["nullable"] = True
    found["type"] = node["type"]
    found |= {key: node[key] for key in COPIED if key in node}
    found |= _bounds(node)
    if node["type"] == "array":
        found["items"] = structural(node["items"], definitions, described=described)
    if node["type"] == "object":
        found |= _fields(node, definitions, described)
    return found


def _fields(node: Schema, definitions: Schema, described: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "properties" in node:
        required = node.get("required", [])
        found["properties"] = {
            name: structural(field, definitions, described=described)
            | ({} if name in required else {"nullable": True})
            for name, field in node["properties"].items()
        }
        if required:
            found["required"] = required
    elif isinstance(values := node.get("additionalProperties"), dict) and values:
        found["additionalProperties"] = structural(values, definitions, described=described)
        if "maxProperties" in node:
            found["maxProperties"] = node["maxProperties"]
    else:
        found["x-kubernetes-preserve-unknown-fields"] = True
    return found


def _bounds(node: Schema) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in node:
            found |= {bound: node[exclusive], exclusive: True}
        elif bound in node and abs(node[bound]) < MAX_EXACT:
            found[bound] = node[bound]
    return found


def _description(schema: Schema, node: Schema, described: bool) -> str:
    """Returns what `kubectl explain` shows: it shows neither defaults nor bounds by itself."""
    parts = [" ".join(str(schema.get("description") or node.get("description") or "").split())]
    if described and "properties" not in resolve(schema):
        allowed = describe_allowed(schema)
        if allowed not in ("text", "true or false", "a section of fields"):
            parts.append(f"Allowed: {allowed}.")
        default = schema.get("default")
        if default is not None and default != {}:
            parts.append(f"Default: {_as_yaml(default)}.")
    return " ".join(filter(None, parts))


def _as_yaml(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _type_of(value: object) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return kinds[type(value)]
