"""With one registry set, no pod names another one: neither those of the chart nor those of runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from rendering import MONITORING, only, pod_templates, render

from arlow_operator.render import render_job
from arlow_operator.resource import read_run
from arlow_operator.run_defaults import RunDefaults
from arlow_operator.settings import Settings
from support.run_body import run_body

REGISTRY = "registry.example.com/mirror"
ENABLED: dict[str, Any] = {
    "image": {"registry": REGISTRY},
    "podMonitors": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
    "networkPolicy": {"enabled": True},
    "podDisruptionBudget": {"enabled": True},
}


def images(node: Any) -> Iterator[str]:
    """Yields the value of every field `image`, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "image" and isinstance(value, str):
                yield value
            yield from images(value)
    elif isinstance(node, list):
        for each in node:
            yield from images(each)


def operators_pods() -> Iterator[Any]:
    """Yields pods that the operator of this release makes, of runs of every kind."""
    objects = render(ENABLED)
    container = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    environ = {each["name"]: each.get("value", "") for each in container["env"]}
    written = only(objects, "ConfigMap", "arlow-operator-runs")["data"]["runs.yaml"]
    defaults = RunDefaults.model_validate(yaml.safe_load(written))
    settings = Settings(image=environ["ARLOW_TRAINER_IMAGE"], defaults=defaults)
    specs: tuple[dict[str, Any], ...] = (
        {"nodes": {"gpus": 0}},
        {"nodes": {"gpus": 8, "gpuProduct": "rtx-8000"}},
        {"cacheVolume": {"size": "1Gi"}, "dataVolumes": [{"claimName": "a", "mountPath": "/a"}]},
    )
    for spec in specs:
        run, _ = read_run(run_body({"checkpoint": {"url": "s3://bucket/runs"}, **spec}))
        assert run.parsed is not None
        yield render_job(run, run.parsed, 1, settings.image, settings)["spec"]["template"]


def test_every_image_is_of_the_one_registry() -> None:
    pods = [*pod_templates(render(ENABLED, apis=MONITORING)), *operators_pods()]
    found = [image for pod in pods for image in images(pod)]
    assert len(found) == len(pods) == 5
    assert all(image.startswith(f"{REGISTRY}/arlow-") for image in found), found


def test_no_object_names_an_image_elsewhere() -> None:
    found = set(images(render(ENABLED, apis=MONITORING)))
    assert found == {f"{REGISTRY}/arlow-operator:0.1.0"}
    text = json.dumps(render(ENABLED, apis=MONITORING))
    assert not re.search(r"(docker|ghcr|quay|gcr)\.io/", text)
