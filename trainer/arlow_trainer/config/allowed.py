"""What a field may hold, in words: one description for error messages and the reference page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from arlow_trainer.config.models import INT64_MAX, ArlowPretrain

Schema = Mapping[str, Any]


@cache
def run_schema() -> dict[str, Any]:
    """Returns the JSON schema of an `ArlowPretrain` manifest."""
    return ArlowPretrain.model_json_schema(by_alias=True)


def resolve(schema: Schema) -> Schema:
    """Returns a field's schema with its reference to a section followed, null left aside."""
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            schema = choice
    if "$ref" in schema:
        schema = run_schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def field_schema(path: Sequence[str]) -> Schema | None:
    """Returns the schema of the field at a path in the manifest, None where there is no field."""
    schema: Schema = run_schema()
    for part in path:
        schema = resolve(schema).get("properties", {}).get(part)
        if schema is None:
            return None
    return schema


def allowed(schema: Schema) -> str:
    """Says in words what a field of this schema may hold."""
    if "anyOf" in schema:
        return ", or ".join(allowed(choice) for choice in schema["anyOf"])
    if "$ref" in schema:
        return "a section of fields"
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    words = {
        "null": "null",
        "boolean": "true or false",
        "object": "a section of fields",
        "string": "text",
        "integer": "a whole number",
        "number": "a number",
        "array": "a list",
    }[schema["type"]]
    if schema["type"] == "array":
        return f"{words} of{_count(schema)} {_plural(allowed(schema['items']))}"
    if schema["type"] == "string":
        return words + _text_limits(schema)
    bounds = _bounds(schema)
    return f"{words}, {bounds}" if bounds else words


def _bounds(schema: Schema) -> str:
    said = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    # The 64-bit limit is a limit of the notation, and said only where it is broken.
    return " and ".join(
        f"{word} {schema[key]:g}"
        for key, word in said.items()
        if key in schema and schema[key] != INT64_MAX
    )


def _text_limits(schema: Schema) -> str:
    limits = []
    if "pattern" in schema:
        limits.append(f"matching `{schema['pattern']}`")
    if "maxLength" in schema:
        limits.append(f"of at most {schema['maxLength']} characters")
    if schema.get("minLength"):
        limits.append("that is not empty")
    return "".join(f" {limit}" for limit in limits)


def _count(schema: Schema) -> str:
    least, most = schema.get("minItems"), schema.get("maxItems")
    return f" {least}" if least is not None and least == most else ""


def _plural(words: str) -> str:
    return words.replace("a whole number", "whole numbers").replace("a number", "numbers")
