"""A loopback server that answers everything with one fixed completion, as fast as Python can.

It speaks Chat Completions, and the Responses API in one piece, as server-sent events and over
WebSockets. With --rate it lets so many requests a second through, and refuses the others with 429
and `Retry-After: 1`: at once, for a rate limiter stands before the model, or with --late-refusals
after the latency; GET /journal gives, and forgets, when each came and whether it was accepted.

Run: python -m benchmarks.server [--latency-ms MS] [--rate N [--late-refusals]]; prints its port on
the first line.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import time

from benchmarks import answers

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What a key is hashed with (RFC 6455, section 1.3)."""
_CLOSE, _PING = 0x8, 0x9


class Limit:
    """A token bucket that holds one second's worth, and a journal of what it said.

    Attributes:
        late: whether a refusal takes as long as an answer.
    """

    def __init__(self, rate: float, late: bool) -> None:
        self.late = late
        self._rate = rate
        self._level = rate
        self._at = time.monotonic()
        self.journal: list[tuple[float, bool]] = []

    def accepts(self) -> bool:
        """Take a token, if there is one."""
        now = time.monotonic()
        self._level = min(self._rate, self._level + (now - self._at) * self._rate)
        self._at = now
        accepted = self._level >= 1
        if accepted:
            self._level -= 1
        self.journal.append((now, accepted))
        return accepted


class Connection(asyncio.Protocol):
    """Reads requests by their Content-Length and answers each, after the latency."""

    def __init__(self, latency: float, limit: Limit | None) -> None:
        self._latency = latency
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._is_socket = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while not self._is_socket and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            whole = end + 4 + int(header(head, b"content-length") or 0)
            if len(self._buffer) < whole:
                return
            body = self._buffer[end + 4 : whole]
            self._buffer = self._buffer[whole:]
            self._take(head, body)
        while self._is_socket and self._take_frame():
            pass

    def _take(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            self._take_get(head)
        elif self._limit is not None and not self._limit.accepts():
            write = self._write_later if self._limit.late else self._write
            write(answers.REFUSAL)
        elif head.startswith(b"POST /v1/responses"):
            streamed = b'"stream":true' in body
            self._write_later(answers.STREAM if streamed else answers.RESPONSE)
        elif b'"tools"' in body and b'"tool_call_id"' not in body:
            self._write_later(answers.CHAT_TOOL)
        else:
            self._write_later(answers.CHAT)

    def _take_get(self, head: bytes) -> None:
        if key := header(head, b"sec-websocket-key"):
            self._is_socket = True
            digest = hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest()
            self._write(answers.handshake(base64.b64encode(digest)))
        elif self._limit is not None:
            self._write(answers.journal(self._limit.journal))
            self._limit.journal.clear()

    def _take_frame(self) -> bool:
        """Answer one frame; False where it is not whole yet. What it says is not looked at."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        length, start = buffer[1] & 0x7F, 2
        if length > 125:
            start = 4 if length == 126 else 10
            length = int.from_bytes(buffer[2:start])
        whole = start + 4 + length  # 4 bytes of the mask
        if len(buffer) < whole:
            return False
        self._buffer = buffer[whole:]
        kind = buffer[0] & 0x0F
        if kind == _CLOSE:
            self._write((b"\x88\x00",))
            self._transport.close()
        elif kind == _PING:
            self._write((b"\x8a\x00",))
        elif kind in (0, 1) and buffer[0] & 0x80:
            self._write_later(answers.FRAMES)
        return True

    def _write_later(self, answer: tuple[bytes, ...]) -> None:
        if self._latency:
            self._loop.call_later(self._latency, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: tuple[bytes, ...]) -> None:
        if not self._transport.is_closing():
            for piece in answer:
                self._transport.write(piece)


def header(head: bytes, name: bytes) -> bytes:
    """Return a header of a request, named in lower case; b'' where it is not there."""
    start = head.lower().find(b"\r\n" + name + b":")
    return head[start + len(name) + 3 :].split(b"\r\n", 1)[0].strip() if start >= 0 else b""


async def serve(latency: float, limit: Limit | None) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(latency, limit), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--late-refusals", action="store_true")
    given = parser.parse_args()
    limit = Limit(given.rate, given.late_refusals) if given.rate is not None else None
    asyncio.run(serve(given.latency_ms / 1000, limit))
