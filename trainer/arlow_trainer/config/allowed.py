"""Describes the values that a field allows, for error messages and the reference page alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from arlow_trainer.config.models import ArlowPretrain

Schema = Mapping[str, Any]


@cache
def run_schema() -> dict[str, Any]:
    """Returns the JSON schema of an `ArlowPretrain` manifest."""
    return ArlowPretrain.model_json_schema(by_alias=True)


def resolve(schema: Schema) -> Schema:
    """Returns a field's schema, without null, and with a reference to a section resolved.

    Of a list of sections, that of a section.
    """
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            schema = choice
    if "$ref" in schema.get("items", {}):
        schema = schema["items"]
    if "$ref" in schema:
        schema = run_schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def field_schema(path: Sequence[str]) -> Schema | None:
    """Returns the schema of the field at a path in the manifest, None where there is no field."""
    schema: Schema = run_schema()
    for part in path:
        section = resolve(schema)
        found = section.get("properties", {}).get(part, section.get("additionalProperties"))
        if not isinstance(found, Mapping):
            return None
        schema = found
    return schema


def describe_allowed(schema: Schema) -> str:
    """Returns a description of the values that a schema allows, such as "a number, at least 0"."""
    if "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
        return ", or ".join(map(describe_allowed, choices))
    if "$ref" in schema:
        return "a section of fields"
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    kind = {
        "boolean": "true or false",
        "object": "a section of fields",
        "string": "text",
        "integer": "a whole number",
        "number": "a number",
        "array": "a list",
    }[schema["type"]]
    if schema["type"] == "array":
        return f"{kind} of{_count(schema)} {_plural(describe_allowed(schema['items']))}"
    if schema["type"] == "string":
        return kind + _text_limits(schema)
    bounds = _bounds(schema)
    return f"{kind}, {bounds}" if bounds else kind


def _bounds(schema: Schema) -> str:
    terms = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    return " and ".join(f"{term} {schema[key]:,}" for key, term in terms.items() if key in schema)


def _text_limits(schema: Schema) -> str:
    limits = []
    if "pattern" in schema:
        limits.append(f"matching `{schema['pattern']}`")
    if "maxLength" in schema:
        limits.append(f"of at most {schema['maxLength']:,} characters")
    if schema.get("minLength"):
        limits.append("that is not empty")
    return "".join(f" {limit}" for limit in limits)


def _count(schema: Schema) -> str:
    minimum, maximum = schema.get("minItems"), schema.get("maxItems")
    if maximum is None:
        return ""
    return f" {maximum}" if minimum == maximum else f" at most {maximum}"


def _plural(description: str) -> str:
    for one, many in (
        ("a whole number", "whole numbers"),
        ("a number", "numbers"),
        ("a section", "sections"),
    ):
        description = description.replace(one, many)
    return description
