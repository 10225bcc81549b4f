"""The fields that only a cluster uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arlow_trainer.config import ConfigError, load_run, validate
from arlow_trainer.config.cluster import ignored_here
from arlow_trainer.config.yaml_text import read_documents

HEAD = {"apiVersion": "arlow.dev/v1alpha1", "kind": "ArlowPretrain", "metadata": {"name": "a"}}

WHOLE = """
training: {preset: tiny}
checkpoint:
  url: s3://arlow/runs
  everySteps: 500
  everyMinutes: 30
  keepLast: 3
  keepEvery: 10000
  secretRef: {name: arlow-store}
  options:
    {endpoint: https://minio.example, anonymous: false, requesterPays: true, pathStyle: false}
nodes:
  count: 2
  gpus: 8
  gpuProduct: rtx-8000
  cpu: 32
  memory: 200Gi
  sharedMemory: 64Gi
  ephemeralStorage: 20Gi
  nodeSelector: {topology.kubernetes.io/zone: a}
  tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
image: registry.example/arlow:1
imagePullPolicy: IfNotPresent
imagePullSecrets: [{name: registry}]
serviceAccountName: trainer
env:
  - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: hub, key: token}}}
  - {name: NCCL_DEBUG, value: INFO}
dataVolumes: [{claimName: imagenet, mountPath: /data, subPath: train, readOnly: true}]
cacheVolume: {size: 500Gi, storageClassName: fast}
suspend: false
managedBy: arlow.dev/operator
failurePolicy:
  maxRestarts: {total: 100, outOfMemory: 2, nonFiniteLoss: 3, store: 10, stalled: 3, crash: 5,
    cacheFull: 1, unknown: 5, withoutProgress: 3}
  stall: {factor: 20, minSeconds: 600, action: Report}
startDeadlineSeconds: 3600
activeDeadlineSeconds: 86400
ttlSecondsAfterFinished: 0
terminationGracePeriodSeconds: 180
priorityClassName: training
podTemplatePatch: {spec: {hostNetwork: true, dnsPolicy: null}}
"""


def of_spec(spec: dict[str, Any]) -> dict[str, Any]:
    return {**HEAD, "spec": spec}


def test_the_whole_object() -> None:
    [spec] = read_documents(WHOLE)
    run = validate(of_spec(spec), "run.yaml")
    assert run.spec.nodes.devices == 16
    assert run.spec.checkpoint.every_minutes == 30
    assert run.spec.pod_template_patch == {"spec": {"hostNetwork": True}}
    written = run.model_dump(mode="json", by_alias=True, exclude_none=True)["spec"]
    del spec["podTemplatePatch"]["spec"]["dnsPolicy"]
    for name, value in spec.items():
        if name not in ("training", "nodes"):
            assert written[name] == value, name


def test_what_an_empty_spec_asks_of_a_cluster() -> None:
    spec = load_run("arlow-vision-3072").spec
    assert (spec.nodes.count, spec.nodes.gpus, spec.nodes.gpu_product) == (1, 8, None)
    assert (spec.termination_grace_period_seconds, spec.suspend) == (180, False)
    assert spec.failure_policy.max_restarts.model_dump(by_alias=True) == {
        "total": 100,
        "outOfMemory": 2,
        "nonFiniteLoss": 3,
        "store": 10,
        "stalled": 3,
        "crash": 5,
        "cacheFull": 1,
        "unknown": 5,
        "withoutProgress": 3,
    }


def test_devices_without_gpus_are_ranks() -> None:
    run = validate(of_spec({"nodes": {"count": 2, "gpus": 0, "ranks": 3}}), "run.yaml")
    assert run.spec.nodes.devices == 6


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"resources": {"nodes": 1}}, "spec.resources: unknown field"),
        (
            {"nodes": {"gpus": 8, "ranks": 4}},
            "spec.nodes.ranks: 4 is not allowed; allowed: 1, since",
        ),
        ({"nodes": {"count": 10**6}}, "at most 1,000"),
        ({"nodes": {"memory": "200GB"}}, 'spec.nodes.memory: "200GB" is not allowed'),
        (
            {"nodes": {"memory": "1Gi", "sharedMemory": "1024Mi"}},
            'spec.nodes.sharedMemory: "1024Mi" is not allowed; allowed: less than memory, 1Gi',
        ),
        (
            {"nodes": {"tolerations": [{}, {"effect": "No"}]}},
            'spec.nodes.tolerations[1].effect: "No" is not allowed; allowed: one of NoSchedule',
        ),
        (
            {"dataVolumes": [{"claimName": "a", "mountPath": "data"}]},
            'spec.dataVolumes[0].mountPath: "data" is not allowed; allowed: text matching `^/`',
        ),
        (
            {"dataVolumes": [{"claimName": "a"}]},
            "spec.dataVolumes[0].mountPath: is required and missing",
        ),
        (
            {"dataVolumes": [{"claimName": "a", "mountPath": "/a", "readonly": True}]},
            "spec.dataVolumes[0].readonly: unknown field (value true); did you mean readOnly?",
        ),
        (
            {"env": [{"name": "A"}, {"name": "ARLOW_PORT", "value": "1"}]},
            'spec.env[1].name: "ARLOW_PORT" is not allowed; allowed: a name that the operator does',
        ),
        (
            {"env": [{"name": "A", "valueFrom": {}}]},
            "spec.env[0].valueFrom: {} is not allowed; allowed: exactly one of secretKeyRef",
        ),
        (
            {"env": [{"name": "A", "value": 5}]},
            "spec.env[0].value: 5 is not allowed; allowed: text",
        ),
        (
            {"cacheVolume": {}},
            "spec.cacheVolume: {} is not allowed; allowed: either claimName",
        ),
        (
            {"cacheVolume": {"claimName": "a", "storageClassName": "b"}},
            "spec.cacheVolume.storageClassName",
        ),
        (
            {"failurePolicy": {"maxRestarts": {"oom": 1}}},
            "spec.failurePolicy.maxRestarts.oom: unknown field",
        ),
        ({"terminationGracePeriodSeconds": 0}, "at least 1 and at most 86,400"),
        (
            {"checkpoint": {"url": "runs", "options": {"anonymous": True}}},
            'spec.checkpoint.options: {"anonymous": true} is not allowed; allowed: no options',
        ),
        (
            {"checkpoint": {"url": "s3://b", "options": {"endpoint": "minio:9000"}}},
            "spec.checkpoint.options.endpoint",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place(spec: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(of_spec(spec), "run.yaml")
    [found] = str(caught.value).splitlines()
    assert line in found


def test_a_mistake_in_a_list_hides_no_other() -> None:
    spec = {
        "env": [{"name": "A", "value": 5}],
        "nodes": {"gpus": 8, "ranks": 4},
        "training": {"data": {"imageSize": 225}},
    }
    with pytest.raises(ConfigError) as caught:
        validate(of_spec(spec), "run.yaml")
    fields = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert sorted(fields) == [
        "spec.env[0].value",
        "spec.nodes.ranks",
        "spec.training.data.imageSize",
    ]


def test_what_is_ignored_is_said_where_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SET_HERE", "1")
    spec = {
        "suspend": True,
        "dataVolumes": [
            {"claimName": "a", "mountPath": str(tmp_path)},
            {"claimName": "b", "mountPath": str(tmp_path / "none")},
        ],
        "env": [{"name": "SET_HERE", "value": "2"}, {"name": "NOT_SET_HERE", "value": "3"}],
        "image": "ignored",
    }
    lines = list(ignored_here(validate(of_spec(spec), "run.yaml")))
    assert [line.split(":")[0] for line in lines] == [
        "spec.suspend",
        "spec.dataVolumes[1].mountPath",
        "spec.env",
    ]
    assert "NOT_SET_HERE is not set here" in lines[2]
    assert list(ignored_here(load_run("tiny"))) == []
