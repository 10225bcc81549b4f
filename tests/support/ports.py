"""Ports for servers that must be told their number before they listen."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Returns a port that nobody listens on.

    It lies below those that the system deals to outgoing connections and to servers that name no
    port: one of these would be taken by somebody else before ours listens, now and then.
    """
    dealt = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    while True:
        port = LOWEST + secrets.randbelow(dealt - LOWEST)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port


def free_ports(count: int) -> list[int]:
    """Returns so many different ones."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


def store_socket(ranks: int) -> socket.socket:
    """Returns a listening socket for a group's key-value store, whose port is its own from now on.

    Rank 0 gets its descriptor by `ARLOW_STORE_SOCKET`, as from `arlow train`.
    """
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(4 * ranks)
    return listening
