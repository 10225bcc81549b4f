"""Whether the definition in the cluster is the one of this version, by their fields. Pure.

Helm leaves a definition behind that is not its own, and users upgrade one without the other: then
fields that one of them does not know are dropped without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arlow_operator.crd import definition
from arlow_trainer.config.models import KIND
from arlow_trainer.config.object_names import GROUP, VERSION

Json = Mapping[str, Any]


def differing_fields(published: Json) -> set[str] | None:
    """Returns the fields of spec and status that only one of the two definitions has.

    Args:
        published: the API server's OpenAPI document of the group and version.

    Returns None where the document does not describe the kind.
    """
    theirs = _kind(published)
    if theirs is None:
        return None
    [ours] = (
        each["schema"]["openAPIV3Schema"]
        for each in definition()["spec"]["versions"]
        if each["name"] == VERSION
    )
    return _of_both(theirs) ^ _of_both(ours)


def _kind(document: Json) -> Json | None:
    wanted = {"group": GROUP, "version": VERSION, "kind": KIND}
    for schema in (document.get("components") or {}).get("schemas", {}).values():
        if wanted in schema.get("x-kubernetes-group-version-kind", ()):
            return dict(schema)
    return None


def _of_both(schema: Json) -> set[str]:
    properties = schema.get("properties", {})
    parts = {name: properties[name] for name in ("spec", "status") if name in properties}
    return set(_fields({"properties": parts}, ""))


def _fields(schema: Json, path: str) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield f"{path}{name}"
        yield from _fields(field, f"{path}{name}.")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            yield from _fields(schema[key], f"{path.removesuffix('.')}[].")
