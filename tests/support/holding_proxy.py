"""A TCP proxy that holds back what a client sends where a test says so."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

CHUNK = 2**16


@contextmanager
def holding_proxy(endpoint: str, before: Callable[[bytes], None]) -> Iterator[str]:
    """Yields the address of a proxy of `endpoint`.

    `before` is called with each piece of what clients send before it is passed on, and may wait;
    a request's first line is at the beginning of a piece.
    """
    target = urlsplit(endpoint)
    address = (str(target.hostname), int(target.port or 80))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=_accept, args=(listening, address, before))
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _accept(
    listening: socket.socket, address: tuple[str, int], before: Callable[[bytes], None]
) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        server = socket.create_connection(address)
        for arguments in ((client, server, before), (server, client, lambda _: None)):
            threading.Thread(target=_pass_on, args=arguments, daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, before: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            before(data)
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
