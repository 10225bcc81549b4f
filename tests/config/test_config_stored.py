"""Runs in the checkpoints of earlier versions."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from arlow_trainer.config import load_run, stored_run
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
    assert (run.metadata.name, run.metadata.labels) == ("7b", {"team": "vision"})
    assert run.run_url == "runs/7b"


def test_what_this_version_wrote_is_the_same_run() -> None:
    run = load_run("tiny")
    assert stored_run(run.model_dump(mode="json", by_alias=True, exclude_none=True)) == run


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
