"""What each value of the chart does to what it renders."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from rendering import (
    CHART,
    EVERYTHING,
    MONITORING,
    NAMESPACE,
    RefusedByHelm,
    helm,
    of_kind,
    only,
    pod_templates,
    render,
)

from arlow_operator.run_defaults import RunDefaults


def operator(values: dict[str, Any] | None = None) -> Any:
    """Returns the template of the operator's pods."""
    return only(render(values), "Deployment")["spec"]["template"]


def container(values: dict[str, Any] | None = None) -> Any:
    return operator(values)["spec"]["containers"][0]


def variables(values: dict[str, Any] | None = None) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in container(values)["env"]}


def run_defaults(runs: dict[str, Any], **values: Any) -> RunDefaults:
    """Returns the defaults of runs as the operator reads them."""
    config = only(render({"runs": runs, **values}), "ConfigMap", "arlow-operator-runs")
    return RunDefaults.model_validate(yaml.safe_load(config["data"]["runs.yaml"]))


def notes(*settings: str) -> str:
    """Returns NOTES.txt."""
    flags = [flag for each in settings for flag in ("--set", each)]
    arguments = ("install", "arlow", str(CHART), "--dry-run=client", "-n", NAMESPACE)
    return " ".join(helm(*arguments, *flags).partition("NOTES:")[2].split())


# --- what is always there


def test_lint_has_nothing_to_say() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


def test_there_is_one_operator_and_never_two_at_once() -> None:
    spec = only(render(), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_the_operator_is_alive_while_it_makes_passes() -> None:
    probe = container()["livenessProbe"]
    assert probe["httpGet"] == {"path": "/healthz", "port": "health"}
    assert {"name": "health", "containerPort": 8080} in container()["ports"]


def test_every_pod_obeys_pod_security_restricted() -> None:
    for values in ({}, {"openshift": True}):
        for pod in pod_templates(render(values)):
            spec = pod["spec"]
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
            assert all(set(v) <= {"name", "emptyDir", "configMap"} for v in spec.get("volumes", ()))
            for each in spec["containers"]:
                assert each["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }


def test_helm_test_is_a_pod_of_its_own_that_no_selector_of_the_operator_finds() -> None:
    objects = render()
    pod = only(objects, "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    selector = only(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= pod["metadata"]["labels"].items()
    service = only(objects, "Service")
    assert service["spec"]["selector"] == selector
    assert service["metadata"]["name"] in pod["spec"]["containers"][0]["command"][-1]
    compile(pod["spec"]["containers"][0]["command"][2], "helm_test.py", "exec")


# --- images


def test_one_registry_is_for_both_images() -> None:
    values = {"image": {"registry": "registry.example.com/arlow"}}
    assert container(values)["image"] == "registry.example.com/arlow/arlow-operator:0.1.0"
    trainer = "registry.example.com/arlow/arlow-trainer:0.1.0"
    assert variables(values)["ARLOW_TRAINER_IMAGE"] == trainer


def test_a_digest_counts_instead_of_a_tag() -> None:
    digest = "sha256:" + "a" * 64
    image = {"registry": "r.io", "operator": {"tag": "1", "digest": digest}}
    assert container({"image": image})["image"] == f"r.io/arlow-operator@{digest}"
    image = {"registry": "r.io", "trainer": {"repository": "x/trainer", "tag": "2"}}
    assert variables({"image": image})["ARLOW_TRAINER_IMAGE"] == "r.io/x/trainer:2"


def test_images_are_pulled_as_asked() -> None:
    values = {"image": {"pullPolicy": "Always"}, "imagePullSecrets": [{"name": "registry"}]}
    for pod in pod_templates(render(values)):
        assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Always"


# --- scope


def test_with_namespaces_there_is_no_role_of_the_cluster() -> None:
    objects = render({"watchNamespaces": ["a", "b"]})
    assert not of_kind(objects, "ClusterRole")
    assert not of_kind(objects, "ClusterRoleBinding")
    bindings = {
        (each["metadata"]["namespace"], each["metadata"]["name"])
        for each in of_kind(objects, "RoleBinding")
    }
    assert bindings == {
        ("a", "arlow-operator"),
        ("b", "arlow-operator"),
        (NAMESPACE, "arlow-operator-lease"),
    }
    assert variables({"watchNamespaces": ["a", "b"]})["ARLOW_NAMESPACES"] == "a,b"
    assert "ARLOW_NAMESPACES" not in variables()


def test_a_namespace_of_the_operator_itself_has_both_roles() -> None:
    objects = render({"watchNamespaces": [NAMESPACE], "userRoles": {"enabled": False}})
    names = [each["metadata"]["name"] for each in of_kind(objects, "Role")]
    assert names == ["arlow-operator", "arlow-operator-lease"]


# --- the definition, the policy, the roles of users


def test_the_definition_stays_unless_it_is_told_otherwise() -> None:
    keep = {"helm.sh/resource-policy": "keep"}
    assert only(render(), "CustomResourceDefinition")["metadata"]["annotations"] == keep
    mine = only(render({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert "annotations" not in mine["metadata"]
    assert not of_kind(render({"crds": {"enabled": False}}), "CustomResourceDefinition")


def test_the_definition_is_rendered_as_it_was_written() -> None:
    rendered = only(render(), "CustomResourceDefinition")
    committed = yaml.safe_load((CHART / "files" / "crd.yaml").read_text("utf-8"))
    assert rendered["spec"] == committed["spec"]


def test_the_admission_policy_can_be_left_out() -> None:
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    for kind in kinds:
        assert only(render(), kind)
        assert not of_kind(render({"admissionPolicy": {"enabled": False}}), kind)


def test_roles_of_users_can_be_left_out() -> None:
    names = {each["metadata"]["name"] for each in of_kind(render(), "ClusterRole")}
    assert names == {"arlow-operator", "arlow-edit", "arlow-view"}
    left = of_kind(render({"userRoles": {"enabled": False}}), "ClusterRole")
    assert [each["metadata"]["name"] for each in left] == ["arlow-operator"]


# --- the operator's pods


def test_the_service_account_may_be_another_one() -> None:
    mine = {"create": False, "name": "mine"}
    objects = render({"serviceAccount": mine})
    assert not of_kind(objects, "ServiceAccount")
    assert only(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        assert only(objects, kind)["subjects"][0]["name"] == "mine"
    account = only(render({"serviceAccount": {"annotations": {"a": "b"}}}), "ServiceAccount")
    assert account["metadata"]["annotations"] == {"a": "b"}


def test_the_operator_is_placed_as_asked() -> None:
    placed = {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "resources": {"requests": {"cpu": "1"}},
        "podAnnotations": {"note": "hello"},
    }
    pod = operator(placed)
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert pod["spec"][key] == placed[key]
    assert pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "1"
    assert pod["metadata"]["annotations"]["note"] == "hello"


def test_a_disruption_budget_lets_the_node_be_drained() -> None:
    assert not of_kind(render(), "PodDisruptionBudget")
    budget = only(render({"podDisruptionBudget": {"enabled": True}}), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    deployment = only(render(), "Deployment")
    assert budget["selector"] == deployment["spec"]["selector"]


def test_labels_of_the_installation_are_on_everything_and_select_nothing() -> None:
    values = {**EVERYTHING, "commonLabels": {"cost-centre": "42", "app.kubernetes.io/name": "x"}}
    objects = render(values, apis=MONITORING)
    for each in [*objects, *pod_templates(objects)]:
        assert each["metadata"]["labels"]["cost-centre"] == "42", each["metadata"]
        assert each["metadata"]["labels"]["app.kubernetes.io/name"] != "x"
    assert "cost-centre" not in only(objects, "Deployment")["spec"]["selector"]["matchLabels"]


def test_openshift_gives_the_ids() -> None:
    ids = {"runAsUser", "runAsGroup", "fsGroup"}
    for pod in pod_templates(render({"openshift": True})):
        assert not ids & pod["spec"]["securityContext"].keys()
    assert operator()["spec"]["securityContext"]["runAsUser"] == 65532
    assert run_defaults({}, openshift=True).fixed_ids is False
    assert run_defaults({}).fixed_ids is True


def test_names_of_gpus_and_the_interval_go_to_the_operator() -> None:
    products = {"h100": "nvidia-h100", "h200": "nvidia-h200"}
    gpu = {"resource": "amd.com/gpu", "productLabel": "amd.com/product", "products": products}
    values = {"gpu": gpu}
    found = variables({**values, "progressSeconds": 5})
    assert found["ARLOW_GPU_RESOURCE"] == "amd.com/gpu"
    assert found["ARLOW_GPU_LABEL"] == "amd.com/product"
    assert found["ARLOW_GPU_PRODUCTS"] == "h100=nvidia-h100,h200=nvidia-h200"
    assert found["ARLOW_PROGRESS_SECONDS"] == "5"
    assert "ARLOW_ALLOW_CPU" not in found
    assert variables({"runs": {"allowCpu": True}})["ARLOW_ALLOW_CPU"] == "1"


# --- the webhook


def test_the_webhook_is_a_secret_that_is_mounted_and_may_be_missing() -> None:
    values = {"notifications": {"webhookSecret": {"name": "chat", "key": "slack"}}}
    volumes = {each["name"]: each for each in operator(values)["spec"]["volumes"]}
    mounts = {each["name"]: each for each in container(values)["volumeMounts"]}
    assert volumes["webhook"]["secret"] == {
        "secretName": "chat",
        "items": [{"key": "slack", "path": "url"}],
        "optional": True,
    }
    folder = mounts["webhook"]["mountPath"]
    assert mounts["webhook"]["readOnly"] is True
    assert variables(values)["ARLOW_WEBHOOK_FILE"] == f"{folder}/url"
    assert "ARLOW_WEBHOOK_FILE" not in variables()
    assert "webhook" not in {each["name"] for each in operator()["spec"]["volumes"]}
    # A file below a subPath would never be renewed.
    assert "subPath" not in mounts["webhook"]


# --- runs


def test_defaults_of_runs_go_to_the_operator() -> None:
    runs: dict[str, Any] = {
        "imagePullPolicy": "Always",
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccountName": "trainer",
        "storeEndpoint": "http://minio.minio:9000",
        "env": {"HTTPS_PROXY": "http://proxy:3128", "N": "1", "YES": "yes"},
        "caBundle": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "labels": {"team": "vision"},
        "doNotDisrupt": False,
    }
    assert run_defaults(runs) == RunDefaults.model_validate(runs)
    assert run_defaults({}) == RunDefaults()


def test_the_operator_reads_the_defaults_and_starts_anew_with_others() -> None:
    found = operator()
    volumes = {each["name"]: each for each in found["spec"]["volumes"]}
    assert volumes["run-defaults"]["configMap"]["name"] == "arlow-operator-runs"
    mounts = {e["name"]: e["mountPath"] for e in found["spec"]["containers"][0]["volumeMounts"]}
    assert variables()["ARLOW_RUN_DEFAULTS"] == f"{mounts['run-defaults']}/runs.yaml"
    sums = {
        operator(values)["metadata"]["annotations"]["checksum/run-defaults"]
        for values in ({}, {"runs": {"storeEndpoint": "http://a"}}, {"openshift": True})
    }
    assert len(sums) == 3


# --- monitoring


def test_pod_monitors_scrape_the_operator_and_the_runs() -> None:
    values = {"podMonitors": {"enabled": True, "labels": {"release": "prometheus"}}}
    objects = render(values, apis=MONITORING)
    of_operator = only(objects, "PodMonitor", "arlow-operator")
    of_runs = only(objects, "PodMonitor", "arlow-runs")
    pod = only(objects, "Deployment")["spec"]["template"]
    ports = {each["name"] for each in pod["spec"]["containers"][0]["ports"]}
    (endpoint,) = of_operator["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in ports
    # Its series name the namespace of a run.
    assert endpoint["honorLabels"] is True
    assert of_runs["spec"]["podMetricsEndpoints"] == [{"port": "status", "interval": "15s"}]
    assert of_runs["spec"]["namespaceSelector"] == {"any": True}
    for each in (of_operator, of_runs):
        assert each["metadata"]["labels"]["release"] == "prometheus"
    scoped = render({**values, "watchNamespaces": ["a", "b"]}, apis=MONITORING)
    found = only(scoped, "PodMonitor", "arlow-runs")["spec"]["namespaceSelector"]
    assert found == {"matchNames": ["a", "b"]}


def test_the_alerts_are_those_of_the_repository_with_links() -> None:
    rule = {"enabled": True, "labels": {"release": "prometheus"}}
    values = {"prometheusRule": {**rule, "runbookBaseUrl": "https://example.com/runbooks/"}}
    found = only(render(values, apis=MONITORING), "PrometheusRule")
    assert found["metadata"]["labels"]["release"] == "prometheus"
    written = [
        group
        for path in sorted((CHART / "alerts").glob("*.yaml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    ]
    folder = CHART.parent / "docs" / "runbooks"
    for group in written:
        for each in group["rules"]:
            if "alert" in each:
                name = each["annotations"]["runbook_url"].removeprefix("docs/runbooks/")
                assert (folder / name).is_file()
                each["annotations"]["runbook_url"] = f"https://example.com/runbooks/{name}"
    assert found["spec"]["groups"] == written
    assert "{{ $labels.run }}" in yaml.safe_dump(written)


def test_bounds_of_alerts_are_values() -> None:
    bounds = {
        "restarts": 7,
        "queuedSeconds": 9_000_000,
        "checkpointSeconds": 61,
        "goodput": 0.5,
        "apiErrors": "0.25",
    }
    values = {"prometheusRule": {"enabled": True, "bounds": bounds}}
    rules = only(render(values, apis=MONITORING), "PrometheusRule")
    text = "\n".join(rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"])
    found = re.findall(r"[<>] (\S+) # bounds\.(\w+)", text)
    assert {name: float(bound) for bound, name in found} == {
        name: float(bound) for name, bound in bounds.items()
    }


def test_each_dashboard_is_a_config_map_that_the_sidecar_finds() -> None:
    values = {"dashboards": {"enabled": True, "annotations": {"grafana_folder": "Training"}}}
    objects = render(values)
    paths = sorted((CHART / "dashboards").glob("*.json"))
    assert paths
    for path in paths:
        config = only(objects, "ConfigMap", f"arlow-dashboard-{path.stem}")
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert config["metadata"]["annotations"] == {"grafana_folder": "Training"}
        assert config["data"][path.name].strip() == path.read_text("utf-8").strip()


def test_what_is_behind_a_switch_is_off_at_first() -> None:
    kinds = {each["kind"] for each in render(apis=MONITORING)}
    switched = {"NetworkPolicy", "PodMonitor", "PrometheusRule", "PodDisruptionBudget"}
    assert not kinds & switched
    assert len(of_kind(render(), "ConfigMap")) == 1


def test_without_their_kinds_monitors_are_left_out_with_a_warning() -> None:
    values = {"podMonitors": {"enabled": True}, "prometheusRule": {"enabled": True}}
    assert not {each["kind"] for each in render(values)} & {"PodMonitor", "PrometheusRule"}
    text = notes("podMonitors.enabled=true", "prometheusRule.enabled=true")
    assert "podMonitors.enabled is on, but the cluster has no PodMonitors" in text
    assert "prometheusRule.enabled is on, but the cluster has no PrometheusRules" in text


# --- the words after an installation


def test_notes_say_what_to_do_next() -> None:
    text = notes("image.registry=r.io")
    assert "WARNING" not in text
    for command in (
        f"kubectl rollout status -n {NAMESPACE} deployment/arlow-operator",
        "kubectl apply -f manifests/pretrain.yaml",
        "kubectl get apt -A -w",
        "kubectl delete crd arlowpretrains.arlow.dev",
    ):
        assert command in text
    scoped = notes("image.registry=r.io", "watchNamespaces={a,b}")
    assert "kubectl get apt -n a -w" in scoped


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("image.registry=", "image.registry is not set, and none of the images is published"),
        ("admissionPolicy.enabled=false", "whoever may create ArlowPretrain objects has the"),
        ("crds.enabled=false", "crds.enabled is off"),
        ("crds.keep=false", "deletes all runs"),
        ("podDisruptionBudget.enabled=true,podDisruptionBudget.maxUnavailable=0", "for ever"),
    ],
)
def test_notes_warn(setting: str, words: str) -> None:
    text = notes("image.registry=r.io", setting)
    assert text.count("WARNING") == 1
    assert words in text


def test_an_old_cluster_is_refused_in_words() -> None:
    with pytest.raises(RefusedByHelm, match=r">=1\.30\.0"):
        helm("template", "arlow", str(CHART), "--kube-version", "1.29.0")
