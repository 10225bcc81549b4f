"""Runs in the checkpoints of earlier versions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from arlow_trainer.config import load_run, stored_run, training_part, validate
from arlow_trainer.config.presets import deep_merge


def stored(**training: Any) -> dict[str, Any]:
    """As the version before wrote it: every field, with nulls."""
    run = load_run("tiny").model_dump(mode="json", by_alias=True)
    return deep_merge(run, {"spec": {"training": training}})


@pytest.mark.parametrize(
    ("training", "path"),
    [
        ({"picturesEverySteps": None}, "pictures_every_steps"),
        ({"batch": {"globalSize": None}}, "batch.global_size"),
        (
            {
                "probe": {
                    "data": {"path": "cifar10", "name": None, "split": "train", "column": None},
                    "testSplit": "test",
                    "label": None,
                    "limit": None,
                    "everySteps": None,
                }
            },
            "probe.limit",
        ),
    ],
)
def test_null_was_none_or_all(training: dict[str, Any], path: str) -> None:
    value: Any = stored_run(stored(**training)).spec.training
    for name in path.split("."):
        value = getattr(value, name)
    assert value == 0


def test_a_set_that_was_null_is_not_drawn_from() -> None:
    run = stored_run(stored(data={"videos": None, "videoProbability": 0.0}))
    assert list(run.spec.training.data.drawn) == ["image"]


def test_resources_are_nodes() -> None:
    document = stored()
    del document["spec"]["nodes"]
    document["spec"]["resources"] = {"nodes": 2, "gpusPerNode": 4, "gpu": "h100"}
    nodes = stored_run(document).spec.nodes
    assert (nodes.count, nodes.gpus, nodes.gpu_product) == (2, 4, "h100")


def test_metadata_was_not_checked() -> None:
    document = {**stored(), "metadata": {"name": "7b", "nmae": "x", "labels": {"team": "vision"}}}
    run = stored_run(document)
    assert (run.metadata.name, run.metadata.labels) == ("7b", None)
    assert run.run_url == "runs/7b"


def test_what_this_version_wrote_is_the_same_run() -> None:
    run = load_run("tiny")
    assert stored_run(training_part(run)) == run


def test_what_only_a_cluster_uses_is_not_saved() -> None:
    """Nor a field that a later version adds to it."""
    document = stored()
    document["metadata"] |= {
        "namespace": "team",
        "labels": {"a": "SECRET"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "SECRET"},
        "ownerReferences": [{"name": "SECRET"}],
    }
    document["status"] = {"message": "SECRET"}
    cluster = {
        "image": "registry/SECRET",
        "imagePullSecrets": [{"name": "SECRET"}],
        "serviceAccountName": "SECRET",
        "env": [{"name": "HF_TOKEN", "value": "SECRET"}],
        "dataVolumes": [{"claimName": "SECRET", "mountPath": "/SECRET"}],
        "cacheVolume": {"claimName": "SECRET"},
        "managedBy": "SECRET",
        "priorityClassName": "SECRET",
        "podTemplatePatch": {"spec": {"SECRET": "SECRET"}},
    }
    document["spec"] |= cluster
    document["spec"]["nodes"] |= {
        "count": 2,
        "nodeSelector": {"a": "SECRET"},
        "tolerations": [{"key": "SECRET"}],
    }
    document["spec"]["checkpoint"]["secretRef"] = {"name": "SECRET"}
    run = validate(document, "run.yaml")
    assert cluster.keys() <= document["spec"].keys() - training_part(run)["spec"].keys()
    assert "SECRET" not in json.dumps(training_part(run))
    assert training_part(run)["metadata"] == {"name": "tiny"}
    again = stored_run({**document, "spec": document["spec"] | {"laterSection": {"a": 1}}})
    assert "SECRET" not in again.model_dump_json()
    assert again.spec.training == run.spec.training
    assert again.spec.global_batch_size == run.spec.global_batch_size
    assert training_part(again) == training_part(run)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"spec": []},
        {**stored(), "metadata": {"name": "7B"}},
        {**stored(), "metadata": {"name": 7}},
        stored(probe=[], new=1),
    ],
)
def test_anything_else_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        stored_run(document)
