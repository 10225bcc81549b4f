"""Names, labels and the owner of all that is made for an attempt."""

from __future__ import annotations

from typing import Any

from arlow_operator.resource import GENERATION_ANNOTATION, MANAGER, QUEUE_LABELS, Run, attempt_name
from arlow_operator.run_defaults import RunDefaults
from arlow_trainer.config.models import API_VERSION, KIND
from arlow_trainer.config.object_names import ATTEMPT_LABEL, RUN_LABEL, RUN_UID_LABEL


def labels(run: Run, attempt: int) -> dict[str, str]:
    """Returns the labels by which an attempt's objects and pods are found."""
    return labels_of_run(run) | {ATTEMPT_LABEL: str(attempt)}


def labels_of_run(run: Run) -> dict[str, str]:
    """Returns the labels by which all that is made for a run is found."""
    return {
        "app.kubernetes.io/name": "arlow-pretrain",
        "app.kubernetes.io/managed-by": MANAGER.replace("/", "."),
        RUN_LABEL: run.name,
        RUN_UID_LABEL: run.uid,
    }


def owner(run: Run) -> dict[str, Any]:
    """Returns the reference to the run, with which what it owns is deleted."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": run.name,
        "uid": run.uid,
        "controller": True,
    }


def metadata(
    run: Run, attempt: int, defaults: RunDefaults, *, queued: bool = False
) -> dict[str, Any]:
    """Returns the metadata of an attempt's object, owned by the run and deleted with it.

    Args:
        run: the run.
        attempt: the attempt's number.
        defaults: of all runs.
        queued: whether it takes Kueue's labels of the run.
    """
    queue = {key: run.labels[key] for key in QUEUE_LABELS if key in run.labels}
    return {
        "name": attempt_name(run.name, attempt),
        "namespace": run.namespace,
        "labels": defaults.labels | labels(run, attempt) | (queue if queued else {}),
        "annotations": {GENERATION_ANNOTATION: str(run.generation)},
        "ownerReferences": [owner(run)],
    }
