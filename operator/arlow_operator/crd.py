"""Writes the custom resource's definition: `python -m arlow_operator.crd charts/files/crd.yaml`.

Its one source are the pydantic models of `arlow_trainer.config` and of `status.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from arlow_operator.resource import MANAGER
from arlow_operator.schema import structural
from arlow_operator.status import Status
from arlow_trainer.config.allowed import run_schema
from arlow_trainer.config.models import KIND
from arlow_trainer.config.object_names import GROUP, PLURAL, VERSION
from arlow_trainer.config.yaml_text import write_document

SHORT_NAME = "apt"

HEADER = "# Written by `make docs` from the models of arlow_trainer/config; edit those.\n"

NEW_RUN = (
    "is fixed once an attempt was made (a null counts as a change, too): name a new run; "
    "its training.init can go on from this one"
)


def _since_attempt(rule: str) -> str:
    return f"!has(oldSelf.status) || !has(oldSelf.status.attempt) || ({rule})"


def _text(owner: str, path: str, default: str) -> str:
    """Returns the CEL expression of an optional text below an object, or its default."""
    *sections, _ = path.split(".")
    steps = [".".join(path.split(".")[: n + 1]) for n in range(len(sections) + 1)]
    exists = " && ".join(f"has({owner}.{step})" for step in steps)
    return f"({exists} ? {owner}.{path} : '{default}')"


# At the root stand only rules that compare old with new: one that an old object breaks would make
# it impossible to delete.
RULES: tuple[dict[str, Any], ...] = (
    {
        "rule": _since_attempt("self.spec.training == oldSelf.spec.training"),
        "message": f"spec.training {NEW_RUN}",
        "reason": "FieldValueForbidden",
        "fieldPath": ".spec.training",
    },
    {
        "rule": _since_attempt(
            f"{_text('self.spec', 'checkpoint.url', 'runs')} == "
            f"{_text('oldSelf.spec', 'checkpoint.url', 'runs')}"
        ),
        "message": f"spec.checkpoint.url {NEW_RUN}",
        "reason": "FieldValueForbidden",
        "fieldPath": ".spec.checkpoint",
    },
    {
        "rule": f"{_text('self.spec', 'managedBy', MANAGER)} == "
        f"{_text('oldSelf.spec', 'managedBy', MANAGER)}",
        "message": "spec.managedBy never changes",
        "reason": "FieldValueForbidden",
        "fieldPath": ".spec.managedBy",
    },
    {
        "rule": _since_attempt(
            "has(self.status) && has(self.status.attempt) && "
            "self.status.attempt.number >= oldSelf.status.attempt.number"
        ),
        "message": "the number of attempts never falls",
        "reason": "FieldValueForbidden",
    },
    {
        "rule": "oldSelf.hasValue() || (size(self.metadata.name) <= 52 && "
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$'))",
        "message": "metadata.name must have at most 52 characters, begin with a letter, and have "
        "only a-z, 0-9 and - in it: Jobs and Services are named after the run",
        "optionalOldSelf": True,
    },
)

COLUMNS: tuple[tuple[str, str, str, int], ...] = (
    ("Phase", "string", ".status.phase", 0),
    ("Step", "integer", ".status.progress.step", 0),
    ("Progress", "number", ".status.progress.percent", 0),
    ("Loss", "number", ".status.progress.loss", 0),
    ("Img/s", "number", ".status.progress.imagesPerSecond", 0),
    ("ETA", "string", ".status.progress.eta", 0),
    ("Ckpt-Age", "date", ".status.lastCheckpoint.time", 0),
    ("Restarts", "integer", ".status.restarts.total", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("MFU", "number", ".status.progress.mfu", 1),
    ("Last-Ckpt", "integer", ".status.lastCheckpoint.step", 1),
    ("Node", "string", ".status.attempt.nodes[0]", 1),
    ("Message", "string", ".status.message", 1),
)


def definition() -> dict[str, Any]:
    """Returns the custom resource's definition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root()},
                    "subresources": {"status": {}},
                    "selectableFields": [{"jsonPath": ".status.phase"}],
                    "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
                }
            ],
        },
    }


def _root() -> dict[str, Any]:
    schema = run_schema()
    spec = structural(schema["properties"]["spec"], schema["$defs"], by_users=True)
    # So that rules may read both without asking whether they are there.
    spec["default"] = {}
    training = spec["properties"]["training"]
    training["default"] = {}
    for always_there in (spec, training):
        always_there.pop("nullable", None)
    reported = Status.model_json_schema(by_alias=True, mode="serialization")
    status = structural(_optional(reported), _optional(reported["$defs"]), by_users=False)
    status["nullable"] = True
    status["properties"]["conditions"] |= {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    condition = status["properties"]["conditions"]["items"]
    condition["required"] = ["type", "status"]
    for key in condition["required"]:
        del condition["properties"][key]["nullable"]
    return {
        "description": "A training run.",
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": list(RULES),
    }


def _column(name: str, kind: str, path: str, priority: int) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    # The API server leaves a 0 out, and a list of versions that differs from what it keeps is a
    # conflict to all but Helm who apply it server-side.
    if priority:
        column["priority"] = priority
    return column


def _optional(node: Any) -> Any:
    """Returns a schema of which nothing is required: a part that is missing is no reason to refuse
    a whole status."""
    if not isinstance(node, dict):
        return node
    return {key: _optional(value) for key, value in node.items() if key != "required"}


def crd_yaml() -> str:
    """Returns the definition as the YAML that is committed."""
    return HEADER + write_document(definition())


if __name__ == "__main__":
    for file in sys.argv[1:]:
        Path(file).write_text(crd_yaml(), "utf-8")
        print(f"wrote {file}")
