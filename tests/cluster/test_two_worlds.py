"""A manifest means the same to `arlow train FILE` and in a cluster, however it is sent there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kube import Cluster

from arlow_operator.resource import read_run
from arlow_trainer.config import load_run

WAYS = (("apply",), ("apply", "--server-side"), ("create",))

# YAML as users write it; a null is an absent field.
FIELDS: dict[str, tuple[str, ...]] = {
    "training.preset": ("tiny", "arlow-vision-3072", "null"),
    "training.seed": ("0", "9223372036854774784", "0x1F", "null"),
    "training.epochs": ("3", "null"),
    "training.precision": ("bf16", "null"),
    "training.picturesEverySteps": ("0", "7", "null"),
    "training.probe": ("null", "{data: {path: ./a}, limit: 0}", "{data: {path: ./a, name: null}}"),
    "training.model": ("{}", "null", "{mlpRatio: 4, deepstackVisualIndexes: null}"),
    "training.mae.maskRatio": ("0.5", ".5", "7.5e-1", "null"),
    "training.data.videos": ("null", "{split: test}", "{path: ./videos}"),
    "training.data.videoProbability": ("0", "1", "1.0", "null"),
    "training.data.workers": ("0", "null"),
    "training.batch.globalSize": ("0", "64", "null"),
    "training.optimizer.learningRate": ("3e-3", "1e-4", "3.0e-3", "1", "null"),
    "training.optimizer.betas": ("[0, 0.999]", "null"),
    "checkpoint.everyMinutes": ("1.5", "0", "null"),
    "checkpoint.keepEvery": ("5", "null"),
    "checkpoint.options": ("null", "{endpoint: 'http://store:9000', anonymous: true}"),
    "nodes": ("{gpus: 0, ranks: 2}", "{gpuProduct: h100, cpu: 2}", "null"),
    "env": ("[{name: A, value: 'on'}, {name: B, value: '0o17'}]", "[]", "null"),
    "suspend": ("true", "no", "null"),
    "failurePolicy": ("{stall: {action: None}}", "{maxRestarts: {crash: 0}}", "null"),
    "podTemplatePatch": ("{}", "null"),
}


@st.composite
def manifests(draw: st.DrawFn) -> str:
    """Draws the text of a manifest."""
    chosen = draw(st.lists(st.sampled_from(sorted(FIELDS)), unique=True, max_size=8))
    spec: dict[str, Any] = {"checkpoint": {"url": "s3://bucket/runs"}}
    for path in chosen:
        node = spec
        *sections, last = path.split(".")
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):  # the text of the whole section was drawn before
                break
        else:
            node[last] = f"@{draw(st.sampled_from(FIELDS[path]))}@"
    text = json.dumps(spec, indent=1).replace('"@', "").replace('@"', "")
    head = "apiVersion: arlow.dev/v1alpha1\nkind: ArlowPretrain\n"
    return f"{head}metadata: {{name: run, namespace: default}}\nspec: {text}\n"


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=manifests())
def test_a_manifest_means_the_same_everywhere(cluster: Cluster, tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    assert_the_same(cluster, file)


def assert_the_same(cluster: Cluster, file: Path) -> None:
    here = load_run(str(file))
    for way in WAYS:
        answer = cluster.kubectl(*way, "--dry-run=server", "-o", "json", "-f", str(file))
        body = json.loads(answer)
        body["metadata"] |= {"resourceVersion": "1"}
        there, _ = read_run(body)
        assert there.parsed is not None, (way, there.mistakes)
        assert there.parsed.spec == here.spec, way


@pytest.mark.parametrize("name", ["demo", "pretrain"])
def test_the_manifests_of_this_repository_mean_the_same(cluster: Cluster, name: str) -> None:
    assert_the_same(cluster, Path(__file__).parents[2] / "manifests" / f"{name}.yaml")
