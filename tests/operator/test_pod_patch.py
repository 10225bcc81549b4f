"""podTemplatePatch merges as kubectl does, and is refused where it would break what is ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from world import SETTINGS, manifest

from arlow_operator.pod_patch import MERGE_KEYS, merged, refused
from arlow_operator.render import render_job
from arlow_operator.resource import read_run

PATCHES: dict[str, Any] = {
    "labels": {"metadata": {"labels": {"team": "vision"}, "annotations": {"a": "b"}}},
    "scalar": {"spec": {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}},
    "nested": {"spec": {"securityContext": {"fsGroup": 7, "runAsUser": 1000}}},
    "container": {
        "spec": {"containers": [{"name": "trainer", "resources": {"limits": {"r/x": 1}}}]}
    },
    "env": {
        "spec": {"containers": [{"name": "trainer", "env": [{"name": "HOME", "value": "/h"}]}]}
    },
    "port": {"spec": {"containers": [{"name": "trainer", "ports": [{"containerPort": 1}]}]}},
    "mount": {
        "spec": {
            "volumes": [{"name": "more", "hostPath": {"path": "/x"}}],
            "containers": [
                {"name": "trainer", "volumeMounts": [{"name": "more", "mountPath": "/more"}]}
            ],
        }
    },
    "remount": {
        "spec": {
            "containers": [
                {"name": "trainer", "volumeMounts": [{"mountPath": "/tmp", "name": "home"}]}
            ]
        }
    },
    "sidecar": {
        "spec": {"initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always"}]}
    },
    "tolerations": {"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}},
    "secrets": {"spec": {"imagePullSecrets": [{"name": "a"}, {"name": "b"}]}},
    "aliases": {"spec": {"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a"]}]}},
    "spread": {
        "spec": {
            "topologySpreadConstraints": [
                {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
            ]
        }
    },
    "removal": {
        "spec": {
            "containers": [
                {"name": "trainer", "env": [{"name": "USER", "$patch": "delete"}, {"name": "B"}]}
            ]
        }
    },
    "affinity": {"spec": {"affinity": {"nodeAffinity": {}, "podAffinity": {"a": [1]}}}},
}


def template() -> dict[str, Any]:
    run, _ = read_run(manifest())
    assert run.parsed is not None
    found: dict[str, Any] = render_job(run, run.parsed, 1, "trainer:1", SETTINGS)
    return found["spec"]["template"]


def in_order(node: Any, name: str = "") -> Any:
    """Returns JSON with its keyed lists sorted: a merge says nothing of their order."""
    if isinstance(node, dict):
        return {key: in_order(value, key) for key, value in node.items()}
    if isinstance(node, list) and name in MERGE_KEYS:
        return sorted(map(in_order, node), key=lambda each: str(each[MERGE_KEYS[name]]))
    return node


@pytest.mark.skipif(
    not shutil.which("kubectl"), reason="kubectl, to compare with, is not installed"
)
@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_merges_as_kubectl_does(name: str, tmp_path: Path) -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}}
    job["spec"] = {"template": template()}
    file = tmp_path / "job.json"
    file.write_text(json.dumps(job))
    patch = json.dumps({"spec": {"template": PATCHES[name]}})
    command = ["kubectl", "patch", "--local", "-f", str(file), "--type=strategic", "-o", "json"]
    done = subprocess.run([*command, "-p", patch], capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout)["spec"]["template"]
    assert in_order(merged(template(), PATCHES[name])) == in_order(theirs)


@pytest.mark.parametrize("name", PATCHES)
def test_what_breaks_nothing_is_allowed(name: str) -> None:
    assert list(refused(PATCHES[name])) == []


def test_a_volume_of_ours_is_replaced_whole_a_null_is_nothing_and_env_from_is_appended() -> None:
    claim = {"persistentVolumeClaim": {"claimName": "scratch"}}
    patch = {
        "metadata": None,
        "spec": {
            "volumes": [{"name": "tmp", **claim}],
            "containers": [{"name": "trainer", "envFrom": [{"configMapRef": {"name": "more"}}]}],
        },
    }
    base = template()
    base["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "store"}}]
    found = merged(base, patch)
    volumes = {each["name"]: each for each in found["spec"]["volumes"]}
    assert volumes["tmp"] == {"name": "tmp", **claim}
    assert [list(each) for each in found["spec"]["containers"][0]["envFrom"]] == [
        ["secretRef"],
        ["configMapRef"],
    ]
    assert found["metadata"] == base["metadata"]


def trainer(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "trainer", **fields}]}}


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"status": {}}, "podTemplatePatch.status: is no part of a pod's template"),
        ({"metadata": {"name": "a"}}, "metadata.name: is not allowed; allowed: labels"),
        (
            {"metadata": {"labels": {"arlow.dev/run": "b"}}},
            "metadata.labels.arlow.dev/run: is the operator's own",
        ),
        ({"spec": {"restartPolicy": "Always"}}, "spec.restartPolicy: is the operator's own"),
        ({"spec": {"volumes": [{"name": "config"}]}}, "config is the operator's own"),
        (
            {"spec": {"containers": [{"name": "b"}]}},
            "would hold the devices after the trainer's end",
        ),
        ({"spec": {"containers": [{"image": "b"}]}}, "needs name, by which lists are merged"),
        (trainer(command=["sh"]), "containers[0].command: is the operator's own"),
        (trainer(ports=[{"containerPort": 9100}]), "is the port of /status"),
        (trainer(env=[{"name": "ARLOW_ATTEMPT", "value": "7"}]), "ARLOW_ATTEMPT is the operator's"),
        (trainer(volumeMounts=[{"mountPath": "/dev/shm"}]), "/dev/shm is the operator's own"),
        (trainer(resources={"limits": {"nvidia.com/gpu": 1}}), "set spec.nodes.gpus"),
        (trainer(**{"$patch": "delete"}), "the trainer's container cannot be removed"),
        ({"spec": {"$patch": "replace"}}, "spec.$patch: is not possible"),
        ({"spec": {"$retainKeys": ["a"]}}, "spec.$retainKeys: is not possible"),
    ],
)
def test_what_would_break_ours_is_refused_in_words(patch: dict[str, Any], words: str) -> None:
    lines = list(refused(patch))
    assert len(lines) >= 1
    assert any(words in line for line in lines), lines


def test_a_run_with_a_refused_patch_makes_no_attempt_and_another_is_rendered() -> None:
    run, _ = read_run(manifest(podTemplatePatch={"spec": {"hostname": "me"}}))
    assert run.mistakes == "spec.podTemplatePatch.spec.hostname: is the operator's own"
    run, _ = read_run(manifest(podTemplatePatch=PATCHES["scalar"]))
    assert run.parsed is not None
    job = render_job(run, run.parsed, 1, "trainer:1", SETTINGS)
    assert job["spec"]["template"]["spec"]["hostNetwork"] is True
