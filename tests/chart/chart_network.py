"""Who reaches whom by NetworkPolicies, as Kubernetes defines them: a pod that a policy of a
direction selects is reached by (or reaches) only what one of them allows; all others by everything.

It knows what the chart uses: label selectors, ports by number, blocks of addresses. It raises
NotImplementedError for the rest, so that nothing is judged by a rule that is not understood.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod.

    Attributes:
        namespace: its name; it is also the value of the label that every namespace has.
        labels: of the pod.
    """

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Address:
    """Something outside the cluster, or the API server."""

    ip: str


Peer = Pod | Address


def reaches(
    policies: Sequence[Json], source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Whether a connection from one to the other is let out and let in."""
    out = _passes(policies, "Egress", source, target, port, protocol)
    return out and _passes(policies, "Ingress", target, source, port, protocol)


def _passes(
    policies: Sequence[Json], way: str, pod: Peer, other: Peer, port: int, protocol: str
) -> bool:
    if isinstance(pod, Address):
        return True
    chosen = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and way in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], pod.labels)
    ]
    return not chosen or any(
        _allows_port(rule, port, protocol) and _allows_peer(rule, way, pod.namespace, other)
        for policy in chosen
        for rule in policy["spec"].get(way.lower(), ())
    )


def _allows_port(rule: Json, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    if not ports:
        return True
    for each in ports:
        if each.keys() - {"port", "protocol"} or isinstance(each.get("port", 0), str):
            raise NotImplementedError(each)
        if each.get("protocol", "TCP") == protocol and each.get("port", port) == port:
            return True
    return False


def _allows_peer(rule: Json, way: str, namespace: str, other: Peer) -> bool:
    peers = rule.get("from" if way == "Ingress" else "to")
    return not peers or any(_is_peer(each, namespace, other) for each in peers)


def _is_peer(peer: Json, namespace: str, other: Peer) -> bool:
    if peer.keys() - {"podSelector", "namespaceSelector", "ipBlock"}:
        raise NotImplementedError(peer)
    if "ipBlock" in peer:
        if not isinstance(other, Address):
            # Policies of addresses are for what is outside: a pod's address may not match.
            return False
        block, address = peer["ipBlock"], ipaddress.ip_address(other.ip)
        excepted = any(address in ipaddress.ip_network(each) for each in block.get("except", ()))
        return address in ipaddress.ip_network(block["cidr"]) and not excepted
    if isinstance(other, Address):
        return False
    if "namespaceSelector" in peer:
        of_namespace = {"kubernetes.io/metadata.name": other.namespace}
        inside = _selects(peer["namespaceSelector"], of_namespace)
    else:
        inside = other.namespace == namespace
    return inside and _selects(peer.get("podSelector") or {}, other.labels)


def _selects(selector: Json, labels: Mapping[str, str]) -> bool:
    if selector.keys() - {"matchLabels", "matchExpressions"}:
        raise NotImplementedError(selector)
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for each in selector.get("matchExpressions", ()):
        match each["operator"]:
            case "Exists":
                met = each["key"] in labels
            case "In":
                met = labels.get(each["key"]) in each["values"]
            case _:
                raise NotImplementedError(each)
        if not met:
            return False
    return True
