"""Servers that send exactly the bytes of a script."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

from beam_batch.calling.transports import http1

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Peer:
    """What a script has in hand on one connection.

    Attributes:
        number: of the connection, from 1.
    """

    def __init__(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.number = number
        self._reader = reader
        self._writer = writer

    async def request(self) -> tuple[str, bytes]:
        """Read one request; return its head and its body."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        return head, await self._reader.readexactly(length)

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, each in a write of its own."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def closed(self) -> None:
        """Wait until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            await self._reader.read()


Script = Callable[[Peer], Awaitable[object]]


class Server:
    """Runs a script on each connection, and closes it when the script ends."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.connections = 0
        self.base_url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._script(Peer(self.connections, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client had enough
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving(
    script: Script,
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[tuple[http1.Pool, Server]]:
    """Start a server, and a pool of connections to it."""
    server = Server(script)
    async with await asyncio.start_server(server.serve, host, 0, ssl=tls) as listening:
        port = listening.sockets[0].getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        server.base_url = f"{'https' if tls else 'http'}://{name}:{port}/v1"
        pool = http1.Pool(server.base_url, headers or {})
        try:
            yield pool, server
        finally:
            await pool.close()


def answering(*pieces: bytes) -> Script:
    """Answer every request with these pieces, and close when the client does."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*pieces)

    return script


def closing(*pieces: bytes) -> Script:
    """Answer one request with these pieces, and close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)

    return script
