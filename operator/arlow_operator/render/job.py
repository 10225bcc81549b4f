"""The Job of an attempt: one pod a node, whose container is `trainer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arlow_operator.pod_patch import CONFIG_FOLDER, CONTAINER, merged
from arlow_operator.render.cache_claim import cache_claim_name
from arlow_operator.render.config_map import MANIFEST, config_map_name, environment_name
from arlow_operator.render.metadata import labels, metadata
from arlow_operator.resource import ADOPT_ANNOTATION, Run, attempt_name
from arlow_operator.run_defaults import RunDefaults
from arlow_operator.settings import Settings
from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.object_names import STATUS_PORT
from arlow_trainer.config.section import Section

USER = 65532
# Reaps what ranks leave; signals reach the launcher alone, which passes them on as it should.
INIT = ("dumb-init", "--single-child", "--")
HOME = "/home/arlow"
CACHE = "/var/cache/arlow"
# A node that does not answer is left after a minute instead of five.
LOST_AFTER_SECONDS = 60
# GPU feature discovery labels nodes so whose GPUs are shared, or cut by MIG.
WHOLE_GPUS = (
    {
        "key": "nvidia.com/gpu.sharing-strategy",
        "operator": "NotIn",
        "values": ["time-slicing", "mps"],
    },
    {"key": "nvidia.com/gpu.slices.gi", "operator": "DoesNotExist"},
)
DEFAULT_MEMORY = "200Gi"
DEFAULT_CPU_MEMORY = "4Gi"


def render_job(
    run: Run,
    parsed: ArlowPretrain,
    attempt: int,
    image: str,
    settings: Settings,
    avoided_nodes: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns the Job of an attempt.

    Args:
        run: the run.
        parsed: its manifest, validated.
        attempt: the attempt's number.
        image: of the trainer.
        settings: of the operator.
        avoided_nodes: which its pods do not run on where others take them.
    """
    pod = _pod(run, parsed, attempt, image, settings)
    if affinity := _node_affinity(parsed, avoided_nodes):
        pod["affinity"] = {"nodeAffinity": affinity}
    template = {
        "metadata": {
            "labels": settings.defaults.labels | labels(run, attempt),
            "annotations": _annotations(settings.defaults),
        },
        "spec": pod,
    }
    count = parsed.spec.nodes.count
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(run, attempt, settings.defaults, queued=True),
        "spec": {
            "completionMode": "Indexed",
            "completions": count,
            "parallelism": count,
            # A new attempt is a new Job: it starts in under a second, a replaced pod after ten.
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": merged(template, parsed.spec.pod_template_patch),
        },
    }


def _annotations(defaults: RunDefaults) -> dict[str, str]:
    left_alone = {
        "karpenter.sh/do-not-disrupt": "true",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    }
    return (left_alone if defaults.do_not_disrupt else {}) | {"sidecar.istio.io/inject": "false"}


def _pod(
    run: Run, parsed: ArlowPretrain, attempt: int, image: str, settings: Settings
) -> dict[str, Any]:
    spec, defaults = parsed.spec, settings.defaults
    ids = {"runAsUser": USER, "runAsGroup": USER} if defaults.fixed_ids else {}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "subdomain": attempt_name(run.name, attempt),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": spec.termination_grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            **ids,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": _tolerations(parsed),
        "containers": [_container(run, parsed, attempt, image, settings)],
        "volumes": _volumes(run, parsed, attempt),
    }
    if selector := _node_selector(parsed, settings):
        pod["nodeSelector"] = selector
    named = spec.image_pull_secrets
    if secrets := defaults.image_pull_secrets if named is None else named:
        pod["imagePullSecrets"] = [_written(each) for each in secrets]
    if account := spec.service_account_name or defaults.service_account_name:
        pod["serviceAccountName"] = account
    if spec.priority_class_name:
        pod["priorityClassName"] = spec.priority_class_name
    return pod


def _container(
    run: Run, parsed: ArlowPretrain, attempt: int, image: str, settings: Settings
) -> dict[str, Any]:
    spec = parsed.spec
    ranks = spec.nodes.gpus or spec.nodes.ranks
    command = [*INIT, "arlow", "train", f"{CONFIG_FOLDER}/{MANIFEST}", "--plain"]
    command += ["--port", str(STATUS_PORT), "--ranks", str(ranks)]
    if ADOPT_ANNOTATION in run.annotations:
        command.append("--adopt")
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": image,
        "command": command,
        "env": _environment(run, parsed, attempt, settings),
        "ports": [{"name": "status", "containerPort": STATUS_PORT}],
        "resources": _resources(parsed, settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(parsed),
    }
    if policy := spec.image_pull_policy or settings.defaults.image_pull_policy:
        container["imagePullPolicy"] = policy
    # Of two sources the later wins.
    sources = []
    if settings.defaults.variables:
        sources.append({"configMapRef": {"name": environment_name(run, attempt)}})
    if spec.checkpoint.secret_ref:
        sources.append({"secretRef": {"name": spec.checkpoint.secret_ref.name}})
    if sources:
        container["envFrom"] = sources
    return container


def _environment(
    run: Run, parsed: ArlowPretrain, attempt: int, settings: Settings
) -> list[dict[str, Any]]:
    grace = parsed.spec.termination_grace_period_seconds
    ours: dict[str, Any] = {
        "HOME": HOME,
        "USER": "arlow",
        "HF_HOME": f"{CACHE}/huggingface",
        "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
        "TRITON_CACHE_DIR": f"{CACHE}/triton",
        "ARLOW_NAMESPACE": run.namespace,
        "ARLOW_ATTEMPT": str(attempt),
        "ARLOW_GRACE_SECONDS": str(grace),
    }
    if settings.allow_cpu:
        ours["ARLOW_ALLOW_CPU"] = "1"
    fields = {"ARLOW_POD": "metadata.name", "ARLOW_NODE_NAME": "spec.nodeName"}
    users = [_written(each) for each in parsed.spec.env or ()]
    named = {each["name"] for each in users} | settings.defaults.variables.keys()
    return [
        *({"name": name, "value": value} for name, value in ours.items() if name not in named),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in fields.items()
        ),
        *users,
    ]


def _resources(parsed: ArlowPretrain, settings: Settings) -> dict[str, Any]:
    nodes = parsed.spec.nodes
    limits = {"memory": nodes.memory or (DEFAULT_MEMORY if nodes.gpus else DEFAULT_CPU_MEMORY)}
    if nodes.gpus:
        limits[settings.gpu_resource] = str(nodes.gpus)
    if nodes.ephemeral_storage:
        limits["ephemeral-storage"] = nodes.ephemeral_storage
    # A limit of CPU would throttle the loaders.
    requests = limits | ({"cpu": f"{nodes.cpu:g}"} if nodes.cpu else {})
    return {"requests": requests, "limits": limits}


def _node_selector(parsed: ArlowPretrain, settings: Settings) -> dict[str, str]:
    nodes = parsed.spec.nodes
    selector = dict(nodes.node_selector or {})
    if nodes.gpus and nodes.gpu_product:
        selector.setdefault(settings.gpu_label, settings.gpu_products[nodes.gpu_product])
    return selector


def _node_affinity(parsed: ArlowPretrain, avoided_nodes: Sequence[str]) -> dict[str, Any]:
    affinity: dict[str, Any] = {}
    if parsed.spec.nodes.gpus:
        terms = {"nodeSelectorTerms": [{"matchExpressions": list(WHOLE_GPUS)}]}
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = terms
    if avoided_nodes:
        field = {"key": "metadata.name", "operator": "NotIn"}
        # A list of one value is all that this field takes.
        fields = [{**field, "values": [node]} for node in avoided_nodes]
        wish = {"weight": 100, "preference": {"matchFields": fields}}
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [wish]
    return affinity


def _tolerations(parsed: ArlowPretrain) -> list[dict[str, Any]]:
    lost = [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": LOST_AFTER_SECONDS,
        }
        for taint in ("not-ready", "unreachable")
    ]
    return [*lost, *(_written(each) for each in parsed.spec.nodes.tolerations or ())]


def _volumes(run: Run, parsed: ArlowPretrain, attempt: int) -> list[dict[str, Any]]:
    nodes = parsed.spec.nodes
    cache = parsed.spec.cache_volume
    volumes: list[dict[str, Any]] = [
        {"name": "config", "configMap": {"name": config_map_name(run, attempt)}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _shared_memory(parsed)}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "home", "emptyDir": {}},
    ]
    limit = {"sizeLimit": nodes.ephemeral_storage} if nodes.ephemeral_storage else {}
    if cache and (cache.claim_name or cache.size):
        claimed = cache.claim_name or cache_claim_name(run)
        volumes.append({"name": "cache", "persistentVolumeClaim": {"claimName": claimed}})
    else:
        volumes.append({"name": "cache", "emptyDir": limit})
    for number, volume in enumerate(parsed.spec.data_volumes or ()):
        claim = {"claimName": volume.claim_name, "readOnly": volume.read_only}
        volumes.append({"name": f"data-{number}", "persistentVolumeClaim": claim})
    return volumes


def _mounts(parsed: ArlowPretrain) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "home", "mountPath": HOME},
        {"name": "cache", "mountPath": CACHE},
    ]
    for number, volume in enumerate(parsed.spec.data_volumes or ()):
        mount: dict[str, Any] = {"name": f"data-{number}", "mountPath": volume.mount_path}
        if volume.read_only:
            mount["readOnly"] = True
        if volume.sub_path:
            mount["subPath"] = volume.sub_path
        mounts.append(mount)
    return mounts


def _shared_memory(parsed: ArlowPretrain) -> str:
    """Returns the size of /dev/shm: half of the memory that it is part of, unless it is given."""
    nodes = parsed.spec.nodes
    if nodes.shared_memory:
        return nodes.shared_memory
    memory = nodes.memory or (DEFAULT_MEMORY if nodes.gpus else DEFAULT_CPU_MEMORY)
    number, unit = int(memory[:-2]), memory[-2:]
    if number % 2 == 0:
        return f"{number // 2}{unit}"
    smaller = {"Ti": "Gi", "Gi": "Mi", "Mi": "Ki"}
    return f"{number * 512}{smaller[unit]}" if unit in smaller else f"{number // 2}Ki"


def _written(section: Section) -> dict[str, Any]:
    return section.model_dump(mode="json", by_alias=True, exclude_none=True)
