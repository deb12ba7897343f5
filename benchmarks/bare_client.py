"""The server's ceiling: a client that does nothing but send one fixed request and count answers.

Run: python -m benchmarks.bare_client HOST PORT REQUESTS CONNECTIONS
"""

from __future__ import annotations

import asyncio
import json
import sys

BODY = json.dumps(
    {"model": "benchmark", "messages": [{"role": "user", "content": "A review. " * 16}]}
).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY


class Client(asyncio.Protocol):
    """Sends the next request when an answer is whole."""

    def __init__(self, requests: int, done: asyncio.Future[None]) -> None:
        self._left = requests
        self._done = done
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._buffer.endswith(b"}"):
            return
        self._buffer = b""
        self._left -= 1
        if self._left:
            self._transport.write(REQUEST)
        else:
            self._transport.close()
            self._done.set_result(None)


async def main(host: str, port: int, requests: int, connections: int) -> None:
    """Send the requests over so many connections."""
    loop = asyncio.get_running_loop()
    waiting = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        waiting.append(done)
        await loop.create_connection(
            lambda done=done: Client(requests // connections, done), host, port
        )
    await asyncio.gather(*waiting)


if __name__ == "__main__":
    host, *numbers = sys.argv[1:]
    asyncio.run(main(host, *map(int, numbers)))
