"""Who may do what, by the roles and bindings of rendered objects, as Kubernetes' RBAC judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def allows(rules: Sequence[Json], verb: str, group: str, resource: str) -> bool:
    """Whether one of the rules allows a verb on a resource, such as pods or pods/log."""
    return any(
        _matches(rule["verbs"], verb)
        and _matches(rule["apiGroups"], group)
        and (resource in rule["resources"] or "*" in rule["resources"])
        and not rule.get("resourceNames")
        for rule in rules
    )


def _matches(allowed: Sequence[str], asked: str) -> bool:
    return asked in allowed or "*" in allowed


def may(
    objects: Sequence[Json],
    account: tuple[str, str],
    verb: str,
    group: str,
    resource: str,
    namespace: str,
) -> bool:
    """Whether a service account may do something in a namespace; empty: in all of the cluster.

    Args:
        objects: which are rendered.
        account: namespace and name of the service account.
        verb, group, resource: what is asked.
        namespace: where.
    """
    for binding in objects:
        if binding["kind"] not in ("ClusterRoleBinding", "RoleBinding"):
            continue
        if binding["kind"] == "RoleBinding" and binding["metadata"]["namespace"] != namespace:
            continue
        if account not in [(each["namespace"], each["name"]) for each in binding["subjects"]]:
            continue
        if allows(_role(objects, binding)["rules"], verb, group, resource):
            return True
    return False


def _role(objects: Sequence[Json], binding: Json) -> Json:
    reference = binding["roleRef"]
    for each in objects:
        same = (each["kind"], each["metadata"]["name"]) == (reference["kind"], reference["name"])
        namespace = each["metadata"].get("namespace")
        if same and (
            each["kind"] == "ClusterRole" or namespace == binding["metadata"]["namespace"]
        ):
            return each
    raise AssertionError(f"{binding['metadata']} binds {reference}, which is not rendered")
