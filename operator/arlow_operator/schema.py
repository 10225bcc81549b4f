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


def structural(schema: Schema, definitions: Schema, *, by_users: bool) -> dict[str, Any]:
    """Returns a JSON schema of pydantic's as a structural one.

    References are inlined; optional fields and sections are nullable, since a null means an absent
    field; defaults stand in the descriptions, as those of the schema would overwrite presets.

    Args:
        schema: the JSON schema of a field or section.
        definitions: its `$defs`.
        by_users: whether users write it: then the descriptions tell defaults and bounds, and what
            may be left out may be null, enums included.

    Raises ValueError for what no structural schema can say.
    """
    found: dict[str, Any] = {}
    node = dict(schema)
    if "anyOf" in node:
        arms = [arm for arm in node.pop("anyOf") if arm.get("type") != "null"]
        if [arm.get("type") for arm in arms] == ["integer", "string"] and "pattern" in arms[1]:
            return _int_or_string(schema, arms, by_users)
        if len(arms) != 1:
            raise ValueError(f"a union of {len(arms)} types has no structural schema: {schema}")
        node = {**arms[0], **node}
    if "$ref" in node:
        name = node.pop("$ref").rpartition("/")[2]
        node = {**definitions[name], **node}
    if description := _description(schema, node, by_users):
        found["description"] = description
    if "const" in node:
        node = {"enum": [node["const"]], "type": _type_of(node["const"]), **node}
    found["type"] = node["type"]
    found |= {key: node[key] for key in COPIED if key in node}
    found |= _bounds(node)
    if node["type"] == "array":
        found["items"] = structural(node["items"], definitions, by_users=by_users)
    if node["type"] == "object":
        found |= _fields(node, definitions, by_users)
    return found


def _int_or_string(schema: Schema, arms: list[Schema], by_users: bool) -> dict[str, Any]:
    """Returns the schema of a number or a text of some form: Kubernetes' own union.

    A bound says nothing of a text, and a pattern nothing of a number.
    """
    found: dict[str, Any] = {"x-kubernetes-int-or-string": True}
    if description := _description(schema, schema, by_users):
        found["description"] = description
    for arm in arms:
        found |= {key: arm[key] for key in COPIED if key in arm} | _bounds(arm)
    return found


def _fields(node: Schema, definitions: Schema, by_users: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "properties" in node:
        # A section that has a default is laid over it, so that none of it has to be written.
        given = node.get("default") or {}
        required = [name for name in node.get("required", ()) if name not in given]
        fields = {
            name: structural(field, definitions, by_users=by_users)
            for name, field in node["properties"].items()
        }
        found["properties"] = {
            name: field if name in required else _nullable(field, by_users)
            for name, field in fields.items()
        }
        if required:
            found["required"] = required
    elif isinstance(values := node.get("additionalProperties"), dict) and values:
        found["additionalProperties"] = structural(values, definitions, by_users=by_users)
        if "maxProperties" in node:
            found["maxProperties"] = node["maxProperties"]
    else:
        found["x-kubernetes-preserve-unknown-fields"] = True
    return found


def _nullable(field: Schema, by_users: bool) -> dict[str, Any]:
    """Returns the schema of a field that may be null.

    An enum refuses a null, whatever else is said: what it allows becomes a rule, which nulls skip.
    """
    found = dict(field) | {"nullable": True}
    if not by_users:
        return found
    values = found.pop("enum", None)
    if values is None:
        return found
    if found["type"] == "integer":
        return found | {"minimum": min(values), "maximum": max(values)}
    shown = ", ".join(map(str, values))
    rule = {"rule": f"self in {list(values)}", "message": f"must be one of {shown}"}
    return found | {"maxLength": 63, "x-kubernetes-validations": [rule]}


def _bounds(node: Schema) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in node:
            found |= {bound: node[exclusive], exclusive: True}
        elif bound in node and abs(node[bound]) < MAX_EXACT:
            found[bound] = node[bound]
    return found


def _description(schema: Schema, node: Schema, by_users: bool) -> str:
    """Returns what `kubectl explain` shows: it shows neither defaults nor bounds by itself."""
    parts = [" ".join(str(schema.get("description") or node.get("description") or "").split())]
    if by_users and "properties" not in resolve(schema):
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
