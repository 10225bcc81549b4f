"""`spec.podTemplatePatch`: a strategic merge over the pods' template, and what it may not say.

It merges as `kubectl patch --type strategic` does, with these differences: a null means nothing,
since `kubectl apply` drops it before it is sent; a volume or an init container that is there
is replaced whole, since half of one is none; and envFrom is appended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arlow_trainer.config.cluster import RESERVED_VARIABLES
from arlow_trainer.config.object_names import STATUS_PORT

Json = Mapping[str, Any]

CONTAINER = "trainer"
CONFIG_FOLDER = "/etc/arlow"

# The lists of core/v1 that are merged by a key; all others are replaced.
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "schedulingGates": "name",
    "resourceClaims": "name",
    "ports": "containerPort",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
APPENDED = ("envFrom",)
REPLACED_WHOLE = ("volumes", "initContainers")
DELETE = {"$patch": "delete"}

OWN_LABELS = ("arlow.dev/", "app.kubernetes.io/", "batch.kubernetes.io/")
OWN_POD_FIELDS = ("restartPolicy", "hostname", "subdomain", "terminationGracePeriodSeconds")
OWN_CONTAINER_FIELDS = (
    *("command", "args", "terminationMessagePath", "terminationMessagePolicy"),
    *("restartPolicy", "restartPolicyRules"),
)
OWN_MOUNTS = (CONFIG_FOLDER, "/dev/shm")
OWN_VOLUMES = ("config", "shm")


def merged(base: Json, patch: Json) -> dict[str, Any]:
    """Returns a template with a patch merged over it."""
    found = dict(base)
    for key, value in patch.items():
        before = found.get(key)
        if value is None:
            continue
        if key in MERGE_KEYS and isinstance(value, list):
            found[key] = _merged_list(key, before or [], value)
        elif key in APPENDED and isinstance(value, list):
            found[key] = [*(before or []), *value]
        elif isinstance(value, dict):
            found[key] = merged(before if isinstance(before, dict) else {}, value)
        else:
            found[key] = value
    return found


def _merged_list(name: str, base: list[Any], patch: list[Any]) -> list[Any]:
    key = MERGE_KEYS[name]
    found = list(base)
    for element in patch:
        places = [n for n, each in enumerate(found) if each.get(key) == element.get(key)]
        if element.get("$patch") == "delete":
            found = [each for each in found if each.get(key) != element.get(key)]
        elif not places:
            found.append(merged({}, element))
        elif name in REPLACED_WHOLE:
            found[places[0]] = merged({}, element)
        else:
            found[places[0]] = merged(found[places[0]], element)
    return found


def refused(patch: Json) -> Iterator[str]:
    """Yields one line for everything that a patch may not say, with its field and why."""
    for path, why in _refused(patch):
        yield f"spec.podTemplatePatch{'.' if path else ''}{path}: {why}"


def _refused(patch: Json) -> Iterator[tuple[str, str]]:
    yield from _directives("", patch)
    for key in patch.keys() - {"metadata", "spec"}:
        yield key, "is no part of a pod's template; allowed: metadata, spec"
    metadata, spec = _section(patch, "metadata"), _section(patch, "spec")
    for key in metadata.keys() - {"labels", "annotations"}:
        yield f"metadata.{key}", "is not allowed; allowed: labels, annotations"
    for label in _section(metadata, "labels"):
        if label.startswith(OWN_LABELS):
            yield f"metadata.labels.{label}", "is the operator's own"
    for key in OWN_POD_FIELDS:
        if key in spec:
            other = "; set spec.terminationGracePeriodSeconds" if key.startswith("term") else ""
            yield f"spec.{key}", f"is the operator's own{other}"
    for number, volume in _elements(spec, "volumes"):
        if volume.get("name") in OWN_VOLUMES:
            yield f"spec.volumes[{number}]", f"{volume['name']} is the operator's own"
    for number, container in _elements(spec, "containers"):
        yield from _refused_container(f"spec.containers[{number}]", container)


def _refused_container(path: str, container: Json) -> Iterator[tuple[str, str]]:
    if container.get("name") != CONTAINER:
        yield (
            path,
            f"{container.get('name')!r} would hold the devices after the trainer's end; allowed: "
            f"{CONTAINER}, and sidecars (initContainers with restartPolicy: Always)",
        )
        return
    if "$patch" in container:
        yield path, "the trainer's container cannot be removed"
    for key in OWN_CONTAINER_FIELDS:
        if key in container:
            yield f"{path}.{key}", "is the operator's own"
    for number, port in _elements(container, "ports"):
        if port.get("containerPort") == STATUS_PORT or port.get("name") == "status":
            yield f"{path}.ports[{number}]", "is the port of /status"
    for number, variable in _elements(container, "env"):
        name = str(variable.get("name"))
        if RESERVED_VARIABLES.fullmatch(name):
            yield f"{path}.env[{number}]", f"{name} is the operator's own"
    for number, mount in _elements(container, "volumeMounts"):
        if mount.get("mountPath") in OWN_MOUNTS:
            yield f"{path}.volumeMounts[{number}]", f"{mount['mountPath']} is the operator's own"
    for kind, amounts in _section(container, "resources").items():
        for resource in amounts if isinstance(amounts, dict) else ():
            if "gpu" in resource.lower() or "/mig-" in resource:
                yield f"{path}.resources.{kind}.{resource}", "set spec.nodes.gpus"


def _directives(path: str, node: object, key: str = "", removable: bool = False) -> Any:
    """Yields the directives of strategic merges but for an element's removal from a keyed list."""
    if isinstance(node, list):
        for number, each in enumerate(node):
            keyed = key in MERGE_KEYS
            yield from _directives(f"{path}[{number}]", each, removable=keyed)
            if keyed and not (isinstance(each, dict) and MERGE_KEYS[key] in each):
                yield f"{path}[{number}]", f"needs {MERGE_KEYS[key]}, by which lists are merged"
    elif isinstance(node, dict):
        for name, value in node.items():
            below = f"{path}.{name}" if path else name
            if name.startswith("$"):
                if not (removable and {name: value} == DELETE):
                    yield below, "is not possible; allowed: $patch: delete of a list's element"
            else:
                yield from _directives(below, value, name)


def _section(node: Json, name: str) -> Json:
    found = node.get(name)
    return found if isinstance(found, dict) else {}


def _elements(node: Json, name: str) -> Iterator[tuple[int, Json]]:
    found = node.get(name)
    for number, each in enumerate(found if isinstance(found, list) else ()):
        if isinstance(each, dict):
            yield number, each
