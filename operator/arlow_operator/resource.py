"""The `ArlowPretrain` object as the operator reads it, and the names of what is made for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from arlow_operator.refusals import refusals
from arlow_operator.status import Status
from arlow_trainer.config import ArlowPretrain, ConfigError, validate

MANAGER = "arlow.dev/operator"
GENERATION_ANNOTATION = "arlow.dev/generation"
ADOPT_ANNOTATION = "arlow.dev/adopt"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
QUEUE_LABELS = (QUEUE_LABEL, PRIORITY_LABEL)


@dataclass(frozen=True)
class Run:
    """An `ArlowPretrain` object.

    Attributes:
        namespace, name, uid, generation, resource_version, deleted: of its metadata.
        labels, annotations: of its metadata.
        document: the object as the user wrote it: without status, and of the metadata only the
            name and the namespace.
        parsed: the object, validated; None where it is not valid anywhere.
        mistakes: why it cannot be in a cluster, one line each; empty where it can.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created: datetime
    deleted: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    document: Mapping[str, Any]
    parsed: ArlowPretrain | None
    mistakes: str

    @property
    def managed_by(self) -> str:
        """The controller that the object names."""
        spec = self.document.get("spec")
        named = spec.get("managedBy") if isinstance(spec, dict) else None
        return named if isinstance(named, str) else MANAGER

    @property
    def gpus(self) -> int:
        """GPUs that it asks for, on all nodes; 0 where it is not valid."""
        if self.parsed is None:
            return 0
        nodes = self.parsed.spec.nodes
        return nodes.count * nodes.gpus


def read_run(body: Mapping[str, Any]) -> tuple[Run, Status]:
    """Returns the run and the status of an object from the API."""
    metadata = body["metadata"]
    document = {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "spec": body.get("spec") or {},
    }
    parsed = None
    try:
        parsed = validate(document, metadata["name"])
    except ConfigError as error:
        lines = str(error).splitlines()
        mistakes = "\n".join(line.removeprefix(f"{metadata['name']}: ") for line in lines)
    else:
        mistakes = "\n".join(refusals(parsed))
    run = Run(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata["resourceVersion"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        deleted="deletionTimestamp" in metadata,
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        document=document,
        parsed=parsed,
        mistakes=mistakes,
    )
    return run, read_status(body.get("status"))


def read_status(document: object) -> Status:
    """Returns a status from the API; an empty one where somebody has written what is none."""
    try:
        return Status.model_validate(document or {})
    except ValidationError:
        return Status()


def attempt_name(run: str, number: int) -> str:
    """Returns the name of an attempt's Job and Service."""
    return f"{run}-{number}"
