"""What all runs get is laid under their manifests, and what is the operator's own is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio import client
from world import manifest

from arlow_operator.render import (
    render_cache_claim,
    render_config_map,
    render_environment,
    render_job,
    render_service,
)
from arlow_operator.resource import Run, read_run
from arlow_operator.run_defaults import CA_VARIABLES, RunDefaults, read_defaults
from arlow_operator.settings import Settings, settings_from
from arlow_trainer.config import ConfigError

DEFAULTS: dict[str, Any] = {
    "imagePullPolicy": "Always",
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccountName": "trainer",
    "storeEndpoint": "https://minio.store:9000",
    "env": {"HTTPS_PROXY": "http://proxy:3128", "HF_HOME": "/mirror"},
    "caBundle": "-----BEGIN CERTIFICATE-----\n",
    "labels": {"team": "vision"},
    "doNotDisrupt": False,
    "fixedIds": False,
}


def settings(**defaults: Any) -> Settings:
    return Settings(image="trainer:1", defaults=RunDefaults.model_validate(defaults))


def attempt(settings: Settings, **spec: Any) -> tuple[Run, Any]:
    run, _ = read_run(manifest(**spec))
    assert run.parsed is not None, run.mistakes
    return run, render_job(run, run.parsed, 3, "trainer:1", settings)


def pod(settings: Settings, **spec: Any) -> Any:
    return attempt(settings, **spec)[1]["spec"]["template"]["spec"]


def test_a_run_that_says_nothing_gets_the_defaults() -> None:
    found = pod(settings(**DEFAULTS))
    assert found["imagePullSecrets"] == [{"name": "registry"}]
    assert found["serviceAccountName"] == "trainer"
    assert found["automountServiceAccountToken"] is False
    assert found["containers"][0]["imagePullPolicy"] == "Always"
    assert found["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_what_a_run_says_wins() -> None:
    spec: dict[str, Any] = {
        "imagePullPolicy": "Never",
        "imagePullSecrets": [{"name": "own"}],
        "serviceAccountName": "me",
    }
    found = pod(settings(**DEFAULTS), **spec)
    assert found["imagePullSecrets"] == [{"name": "own"}]
    assert found["serviceAccountName"] == "me"
    assert found["containers"][0]["imagePullPolicy"] == "Never"
    assert "imagePullSecrets" not in pod(settings(**DEFAULTS), imagePullSecrets=[])


def test_variables_are_beneath_the_secret_and_the_manifest() -> None:
    checkpoint = {"url": "s3://bucket/runs", "secretRef": {"name": "store"}}
    env = [{"name": "HTTPS_PROXY", "value": "http://mine:1"}]
    run, job = attempt(settings(**DEFAULTS), checkpoint=checkpoint, env=env)
    container = job["spec"]["template"]["spec"]["containers"][0]
    config_map = render_environment(run, 3, settings(**DEFAULTS).defaults)
    assert config_map is not None
    # Kubernetes: env wins over envFrom, and of its sources the last one.
    assert container["envFrom"] == [
        {"configMapRef": {"name": config_map["metadata"]["name"]}},
        {"secretRef": {"name": "store"}},
    ]
    assert container["env"][-1] == env[0]
    assert "HF_HOME" not in [each["name"] for each in container["env"]]
    assert config_map["data"] == {
        "HTTPS_PROXY": "http://proxy:3128",
        "HF_HOME": "/mirror",
        "AWS_ENDPOINT_URL": "https://minio.store:9000",
        **dict.fromkeys(CA_VARIABLES, "/etc/arlow/ca.crt"),
    }


def test_certificates_are_beside_the_manifest() -> None:
    run, job = attempt(settings(**DEFAULTS))
    data = render_config_map(run, 3, settings(**DEFAULTS).defaults)["data"]
    assert set(data) == {"run.yaml", "ca.crt"}
    mounts = job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "config", "mountPath": "/etc/arlow", "readOnly": True} in mounts


def test_labels_are_on_all_that_is_made_and_select_nothing() -> None:
    given = settings(**DEFAULTS)
    run, job = attempt(given, cacheVolume={"size": "1Gi"})
    assert run.parsed is not None
    service = render_service(run, 3, given.defaults)
    made = [
        job,
        job["spec"]["template"],
        service,
        render_config_map(run, 3, given.defaults),
        render_environment(run, 3, given.defaults),
        render_cache_claim(run, run.parsed, given.defaults),
    ]
    assert all(each["metadata"]["labels"]["team"] == "vision" for each in made)
    assert all(each["metadata"]["labels"]["arlow.dev/run"] == "run" for each in made)
    assert "team" not in service["spec"]["selector"]


@pytest.mark.parametrize("defaults", [{}, DEFAULTS])
def test_all_that_is_made_is_what_kubernetes_knows(defaults: dict[str, Any]) -> None:
    given = settings(**defaults)
    checkpoint = {"url": "s3://bucket/runs", "secretRef": {"name": "store"}}
    run, job = attempt(given, checkpoint=checkpoint, cacheVolume={"size": "1Gi"})
    assert run.parsed is not None
    # The client's models are generated from Kubernetes' OpenAPI, and refuse unknown fields.
    client.V1Job.model_validate(job)
    client.V1Service.model_validate(render_service(run, 3, given.defaults))
    client.V1ConfigMap.model_validate(render_config_map(run, 3, given.defaults))
    if environment := render_environment(run, 3, given.defaults):
        client.V1ConfigMap.model_validate(environment)
    claim = render_cache_claim(run, run.parsed, given.defaults)
    client.V1PersistentVolumeClaim.model_validate(claim)


def test_without_defaults_there_is_no_environment_and_nodes_are_held() -> None:
    run, job = attempt(settings())
    assert render_environment(run, 3, settings().defaults) is None
    template = job["spec"]["template"]
    assert "envFrom" not in template["spec"]["containers"][0]
    assert template["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    assert template["spec"]["securityContext"]["runAsUser"] == 65532
    released = attempt(settings(doNotDisrupt=False))[1]["spec"]["template"]["metadata"]
    assert released["annotations"] == {"sidecar.istio.io/inject": "false"}


def test_the_users_object_is_as_it_was() -> None:
    before, after = manifest(), manifest()
    run, _ = read_run(after)
    assert run.parsed is not None
    render_job(run, run.parsed, 3, "trainer:1", settings(**DEFAULTS))
    assert after == before
    assert (
        "minio" not in render_config_map(run, 3, settings(**DEFAULTS).defaults)["data"]["run.yaml"]
    )


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"imge": "x"}, "imge: Extra inputs"),
        ({"env": {"ARLOW_POD": "x"}}, "env: ARLOW_POD is not allowed"),
        ({"env": {"A=B": "x"}}, "env.A=B"),
        ({"env": {"A": 1}}, "env.A: Input should be a valid string"),
        ({"labels": {"arlow.dev/run": "x"}}, "labels: arlow.dev/run is not allowed"),
        ({"storeEndpoint": "minio:9000"}, "storeEndpoint"),
        ({"imagePullPolicy": "Sometimes"}, "imagePullPolicy"),
    ],
)
def test_a_mistake_is_told_with_its_field(
    tmp_path: Path, document: dict[str, Any], words: str
) -> None:
    path = tmp_path / "runs.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    with pytest.raises(ConfigError) as caught:
        read_defaults(str(path))
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_the_file_is_named_by_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "runs.yaml"
    path.write_text(yaml.safe_dump(DEFAULTS), "utf-8")
    environ = {"ARLOW_TRAINER_IMAGE": "trainer:1"}
    found = settings_from(environ | {"ARLOW_RUN_DEFAULTS": str(path)})
    assert found.defaults == RunDefaults.model_validate(DEFAULTS)
    assert settings_from(environ).defaults == RunDefaults()
    with pytest.raises(ConfigError, match="cannot be read"):
        settings_from(environ | {"ARLOW_RUN_DEFAULTS": str(tmp_path / "missing.yaml")})
    path.write_text("a: [", "utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_defaults(str(path))
