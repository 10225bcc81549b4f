"""A TCP proxy between a run and its S3 server whose way of failing can be changed at any time."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from support.ports import free_port

from .faults import Mode

CHUNK = 2**16
SLOW_S = 1.0
# A store in the same region answers in about this time; phases of a save last longer by it.
USUAL_S = 0.01

_ANSWERS = {
    Mode.BUSY: ("503 Slow Down", "SlowDown"),
    Mode.FORBIDDEN: ("403 Forbidden", "AccessDenied"),
}


class FaultyProxy:
    """Forwards to an address; `change` says how well. Connections live in a thread's loop."""

    def __init__(self, endpoint: str) -> None:
        target = urlsplit(endpoint)
        self._target = (str(target.hostname), int(target.port or 80))
        self._mode = Mode.FINE
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._met = threading.Event()
        self._server: asyncio.Server | None = None
        self._port = free_port()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._do(self._listen)

    @property
    def endpoint(self) -> str:
        """The proxy's address."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def mode(self) -> Mode:
        """How it fails at the moment."""
        return self._mode

    @property
    def met(self) -> bool:
        """Whether anything came by since the last change."""
        return self._met.is_set()

    def change(self, mode: Mode) -> None:
        """Fails in another way from now on, also on connections that are open.

        A store that is away resets what is open and the next connection, and refuses all others.
        """
        self._do(lambda: self._change(mode))

    def close(self) -> None:
        """Ends all connections, and the thread."""
        self._do(self._hang_up)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _do(self, work: Callable[[], object]) -> None:
        async def call() -> None:
            result = work()
            if asyncio.iscoroutine(result):
                await result

        asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _change(self, mode: Mode) -> None:
        self._mode = mode
        self._met.clear()
        # Whoever waits for the end of a silence looks again.
        self._changed.set()
        self._changed = asyncio.Event()
        if mode is Mode.AWAY:
            self._reset_open()
        elif self._server is None:
            await self._listen()

    def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._reset_open()

    def _reset_open(self) -> None:
        for writer in list(self._open):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self._met.set()
        self._open.add(client)
        if self._mode is Mode.AWAY:
            self._hang_up()
            self._open.discard(client)
            return
        try:
            answers, server = await asyncio.open_connection(*self._target)
        except OSError:
            self._open.discard(client)
            _reset(client)
            return
        self._open.add(server)
        asked = asyncio.Event()
        ways = [
            asyncio.ensure_future(self._requests(reader, client, server, asked)),
            asyncio.ensure_future(self._answers(answers, client, asked)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for writer in (client, server):
                self._open.discard(writer)
                writer.close()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        server: asyncio.StreamWriter,
        asked: asyncio.Event,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                asked.set()
                self._met.set()
                if self._mode in _ANSWERS:
                    await _refuse(reader, client, *_ANSWERS[self._mode])
                    return
                if not await self._pass(data, server, client):
                    return

    async def _answers(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                # Once an answer, not once a part of it.
                if asked.is_set():
                    asked.clear()
                    await asyncio.sleep(SLOW_S if self._mode is Mode.SLOW else USUAL_S)
                if not await self._pass(data, client, client):
                    return

    async def _pass(
        self, data: bytes, to: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> bool:
        """Forwards, or not; returns whether the connection goes on."""
        while self._mode is Mode.SILENT:
            await self._changed.wait()
        if self._mode is Mode.CUT:
            to.write(data[: len(data) // 2])
            await to.drain()
            _reset(client)
            return False
        to.write(data)
        await to.drain()
        return True


async def _refuse(
    reader: asyncio.StreamReader, client: asyncio.StreamWriter, status: str, code: str
) -> None:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    client.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    await client.drain()
    client.write_eof()
    # A connection that is closed over unread data is reset, and the answer may be lost with it.
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            while await reader.read(CHUNK):
                pass


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + bytes(4)
            )
    writer.transport.abort()


@contextmanager
def faulty_proxy(endpoint: str) -> Iterator[FaultyProxy]:
    """Yields a proxy of a server's address, fine at first."""
    proxy = FaultyProxy(endpoint)
    try:
        yield proxy
    finally:
        proxy.close()
