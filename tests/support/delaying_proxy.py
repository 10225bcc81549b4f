"""A TCP proxy that delivers what a server answers a while later, as from a distant server."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

CHUNK = 2**16


@contextmanager
def delaying_proxy(endpoint: str, delay_s: float) -> Iterator[str]:
    """Yields the address of a proxy of `endpoint`. Bandwidth is not limited."""
    target = urlsplit(endpoint)
    address = (str(target.hostname), int(target.port or 80))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=_accept, args=(listening, address, delay_s))
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _accept(listening: socket.socket, address: tuple[str, int], delay_s: float) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        server = socket.create_connection(address)
        for source, sink, delay in ((client, server, 0.0), (server, client, delay_s)):
            arrived: queue.Queue[tuple[float, bytes]] = queue.Queue()
            for work, argument in ((_receive, source), (_deliver, sink)):
                threading.Thread(target=work, args=(argument, arrived, delay), daemon=True).start()


def _receive(
    source: socket.socket, arrived: queue.Queue[tuple[float, bytes]], delay_s: float
) -> None:
    data = b"."
    while data:
        try:
            data = source.recv(CHUNK)
        except OSError:
            data = b""
        arrived.put((time.monotonic() + delay_s, data))


def _deliver(sink: socket.socket, arrived: queue.Queue[tuple[float, bytes]], _: float) -> None:
    with contextlib.suppress(OSError):
        while True:
            due, data = arrived.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                break
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)
