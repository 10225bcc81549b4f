"""What an attempt's Job asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from world import SETTINGS, manifest

from arlow_operator.render import render_cache_claim, render_config_map, render_job, render_service
from arlow_operator.resource import read_run
from arlow_operator.run_defaults import RunDefaults
from arlow_operator.settings import GPU_PRODUCTS, Settings
from arlow_trainer.config import validate
from arlow_trainer.plan.hardware import HARDWARE

NONE = RunDefaults()


def job(settings: Settings = SETTINGS, body: dict[str, Any] | None = None, **spec: Any) -> Any:
    run, _ = read_run(body or manifest(**spec))
    assert run.parsed is not None
    return render_job(run, run.parsed, 3, "trainer:1", settings)


def pod(**spec: Any) -> Any:
    return job(**spec)["spec"]["template"]["spec"]


def trainer(**spec: Any) -> Any:
    return pod(**spec)["containers"][0]


def test_an_attempt_is_a_job_that_is_never_started_again() -> None:
    spec = job()["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 1, 1)
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    assert "ttlSecondsAfterFinished" not in spec
    assert job()["metadata"]["name"] == "run-3"
    assert job()["metadata"]["ownerReferences"][0]["uid"] == "run-1"


def test_gpus_and_memory_are_limits_and_cpus_a_request_alone() -> None:
    resources = trainer(nodes={"gpus": 8, "gpuProduct": "rtx-8000", "cpu": 12.5})["resources"]
    assert resources["limits"] == {"memory": "200Gi", "nvidia.com/gpu": "8"}
    assert resources["requests"] == {"memory": "200Gi", "nvidia.com/gpu": "8", "cpu": "12.5"}
    selector = pod(nodes={"gpuProduct": "rtx-8000", "nodeSelector": {"zone": "a"}})["nodeSelector"]
    assert selector == {"zone": "a", "nvidia.com/gpu.product": "Quadro-RTX-8000"}


def test_gpus_are_whole() -> None:
    affinity = pod(nodes={"gpus": 8})["affinity"]["nodeAffinity"]
    [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {
            "key": "nvidia.com/gpu.sharing-strategy",
            "operator": "NotIn",
            "values": ["time-slicing", "mps"],
        },
        {"key": "nvidia.com/gpu.slices.gi", "operator": "DoesNotExist"},
    ]
    assert "affinity" not in pod(nodes={"gpus": 0})


def test_without_gpus_a_run_fits_a_laptop() -> None:
    assert trainer(nodes={"gpus": 0})["resources"]["limits"] == {"memory": "4Gi"}
    assert "nodeSelector" not in pod(nodes={"gpus": 0, "gpuProduct": "rtx-8000"})
    assert trainer(nodes={"gpus": 0, "ranks": 2})["command"][-2:] == ["--ranks", "2"]


@pytest.mark.parametrize(
    ("nodes", "size"),
    [
        ({"gpus": 8}, "100Gi"),
        ({"gpus": 0, "memory": "3Gi"}, "1536Mi"),
        ({"gpus": 0, "memory": "3Gi", "sharedMemory": "1Gi"}, "1Gi"),
    ],
)
def test_shared_memory_is_half_of_the_memory(nodes: dict[str, Any], size: str) -> None:
    volumes = {each["name"]: each for each in pod(nodes=nodes)["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": size}


def test_pods_obey_pod_security_restricted_and_have_no_rights() -> None:
    found = pod()
    assert found["automountServiceAccountToken"] is False
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["runAsUser"] > 0
    context = found["containers"][0]["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False


def test_credentials_come_by_reference() -> None:
    checkpoint = {"url": "s3://bucket/runs", "secretRef": {"name": "store"}}
    assert trainer(checkpoint=checkpoint)["envFrom"] == [{"secretRef": {"name": "store"}}]


def test_what_is_kept_between_attempts_lies_on_the_cache_volume() -> None:
    env = {each["name"]: each.get("value", "") for each in trainer()["env"]}
    (cache,) = (each["mountPath"] for each in trainer()["volumeMounts"] if each["name"] == "cache")
    for name in ("HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert env[name].startswith(f"{cache}/"), name


def test_variables_of_the_user_come_last_and_replace_home() -> None:
    env = trainer(env=[{"name": "HOME", "value": "/data"}, {"name": "A", "value": "b"}])["env"]
    assert [each["value"] for each in env if each["name"] == "HOME"] == ["/data"]
    assert env[-1] == {"name": "A", "value": "b"}


def test_the_queue_goes_on_to_the_job_and_nothing_else_does() -> None:
    body = manifest()
    body["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "vision", "team": "a"}
    assert job(body=body)["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "vision"
    assert "team" not in job(body=body)["metadata"]["labels"]


def test_the_config_map_holds_the_run_as_it_was_written() -> None:
    run, _ = read_run(manifest())
    text = render_config_map(run, 3, NONE)["data"]["run.yaml"]
    assert json.loads(text)["spec"] == manifest()["spec"]
    assert validate(json.loads(text), "run.yaml") == run.parsed


def test_a_run_created_anew_has_config_maps_of_names_of_its_own() -> None:
    volumes = {each["name"]: each for each in pod()["volumes"]}
    name = volumes["config"]["configMap"]["name"]
    old, _ = read_run(manifest("11111111-2222"))
    new, _ = read_run(manifest("33333333-4444"))
    assert render_config_map(old, 1, NONE)["metadata"]["name"] == "run-1-11111111"
    assert render_config_map(new, 1, NONE)["metadata"]["name"] == "run-1-33333333"
    run, _ = read_run(manifest())
    assert render_config_map(run, 3, NONE)["metadata"]["name"] == name


def test_the_service_finds_the_pods_of_its_attempt_before_they_are_ready() -> None:
    run, _ = read_run(manifest())
    service = render_service(run, 3, NONE)
    assert service["spec"]["publishNotReadyAddresses"] is True
    labels = job()["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert pod()["subdomain"] == service["metadata"]["name"]


def test_the_trainer_knows_its_attempt_and_whether_cpus_stand_for_gpus() -> None:
    def variables(settings: Settings) -> dict[str, Any]:
        env = job(settings)["spec"]["template"]["spec"]["containers"][0]["env"]
        return {each["name"]: each.get("value") for each in env}

    assert variables(SETTINGS)["ARLOW_ATTEMPT"] == "3"
    assert "ARLOW_ALLOW_CPU" not in variables(SETTINGS)
    assert variables(Settings(image="trainer:1", allow_cpu=True))["ARLOW_ALLOW_CPU"] == "1"


def test_a_cache_of_a_size_is_a_claim_that_outlives_the_attempts() -> None:
    run, _ = read_run(manifest(cacheVolume={"size": "50Gi", "storageClassName": "fast"}))
    assert run.parsed is not None
    claim = render_cache_claim(run, run.parsed, NONE)
    assert claim is not None
    assert claim["spec"]["resources"] == {"requests": {"storage": "50Gi"}}
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["metadata"]["ownerReferences"][0]["uid"] == "run-1"
    volumes = {each["name"]: each for each in pod(cacheVolume={"size": "50Gi"})["volumes"]}
    assert volumes["cache"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    named, _ = read_run(manifest(cacheVolume={"claimName": "cache"}))
    assert named.parsed is not None
    assert render_cache_claim(named, named.parsed, NONE) is None


def test_every_gpu_of_the_hardware_table_has_a_label() -> None:
    assert set(GPU_PRODUCTS) == set(HARDWARE) - {"cpu"}
