"""The Responses API over WebSockets: a pool of sockets, each with one response at a time."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

# websockets, not aiohttp: it answers pings and notices a close while nobody reads, which sockets
# that wait in a pool need, and it keeps the body of a refused handshake.
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.protocol import State

from beam_batch import jsonio
from beam_batch.calling.transports.http import Answer, proxy_for, shaped
from beam_batch.calling.transports.http1 import CONNECT_TIMEOUT
from beam_batch.calling.transports.refusals import closed, frame_error, handshake_refused
from beam_batch.errors import ConnectionLost, InvalidJSON, InvalidResponse, TimedOut
from beam_batch.providers.base import Provider, Request
from beam_batch.redaction import redact, secret_of

MAX_AGE = 55 * 60.0
"""Seconds after which a socket takes no further request. OpenAI closes sockets after 60 minutes
(developers.openai.com/api/docs/guides/websocket-mode); the rest is for the last answer.
"""
LARGEST_MESSAGE = 64 << 20
"""Bytes of one message of a server; the last one holds the whole response."""
PING_INTERVAL, PING_TIMEOUT = 30.0, 60.0
"""Seconds between pings, and seconds without a pong after which a connection counts as lost."""
CLOSE_TIMEOUT = 1.0
"""Seconds to wait for a server's part in closing a socket."""
_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))
_SILENT = logging.Logger("beam_batch.websocket", logging.CRITICAL + 1)  # a log would show the key


class Limits(NamedTuple):
    """How long and how much; times in seconds.

    Attributes:
        total: from sending to the end of the answer.
        stall: between two messages of an answer.
        age: of a socket that takes another request.
        message: bytes of one message from the server.
    """

    total: float
    stall: float
    age: float = MAX_AGE
    message: int = LARGEST_MESSAGE


class WebSocketClient:
    """Sends requests over sockets to one base URL. Make and close it inside the event loop.

    Attributes:
        opened: whether a handshake has succeeded.
        heard: whether a message has come through any socket.
    """

    def __init__(
        self, base_url: str, headers: Mapping[str, str], key: str | None, limits: Limits
    ) -> None:
        self._base_url = "ws" + base_url.removeprefix("http")
        self._headers = {name: v for name, v in headers.items() if name != "Content-Type"}
        self._key = secret_of(key)
        self._limits = limits
        self._proxy = proxy_for(base_url)
        secure = base_url.startswith("https:")
        self._tls: dict[str, Any] = {"ssl": ssl.create_default_context()} if secure else {}
        self._idle: list[_Socket] = []
        self._closing: set[asyncio.Task[None]] = set()
        self.opened = False
        self.heard = False

    async def close(self) -> None:
        """Close every socket that waits; those at work belong to requests, which are cancelled."""
        for socket in self._idle:
            self._close_later(socket)
        self._idle.clear()
        await asyncio.gather(*self._closing)

    async def open(self, path: str) -> None:
        """Open a socket for the next request to a path.

        Raises:
            HandshakeRefused: the server answered without offering a WebSocket.
            ProviderError: it could not be reached.
        """
        self._idle.append(await self._open(path))

    async def post(self, provider: Provider, request: Request) -> Answer:
        """Send one request, once.

        Raises:
            HandshakeRefused: the server offers no WebSocket.
            FatalReply: the provider refuses every request of this run.
            ProviderError: this attempt failed.
        """
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._limits.total):
                socket = self._waiting(request.path) or await self._open(request.path)
                try:
                    answer = await self._exchange(socket, provider, request, started)
                except BaseException:  # what is left of this answer must reach no other row
                    socket.connection.transport.abort()
                    raise
        except TimeoutError:
            raise TimedOut(f"no whole answer within {self._limits.total:g} s") from None
        self._idle.append(socket)
        return answer

    def _waiting(self, path: str) -> _Socket | None:
        """Take the socket that was used last; those that are closed or too old are let go."""
        oldest = time.monotonic() - self._limits.age
        while self._idle:
            socket = self._idle.pop()
            if socket.connection.state is State.OPEN:
                if socket.path == path and socket.opened >= oldest:
                    return socket
                self._close_later(socket)
        return None

    async def _open(self, path: str) -> _Socket:
        try:
            connection = await _Connect(
                self._base_url + path,
                additional_headers=self._headers,
                user_agent_header=None,
                compression=None,
                proxy=self._proxy,
                open_timeout=min(CONNECT_TIMEOUT, self._limits.total),
                ping_interval=PING_INTERVAL,
                ping_timeout=PING_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
                max_size=self._limits.message,
                logger=_SILENT,
                **self._tls,
            )
        except WebSocketException as error:
            raise handshake_refused(error, self._key) from None
        except TimeoutError:
            raise TimedOut("no connection within the time allowed", unsent=True) from None
        except OSError as error:
            reason = redact(str(error) or type(error).__name__, self._key)
            raise ConnectionLost(reason, unsent=True) from None
        self.opened = True
        return _Socket(connection, path)

    async def _exchange(
        self, socket: _Socket, provider: Provider, request: Request, started: float
    ) -> Answer:
        try:
            message = jsonio.dumps({"type": "response.create", **request.body})
            await socket.connection.send(message, text=True)
            async with asyncio.timeout(None) as clock:
                return await self._read(socket, provider, started, clock)
        except ConnectionClosed as error:
            raise closed(error, self._limits.message, self._key) from None
        except TimeoutError:
            raise TimedOut(f"no piece of the answer within {self._limits.stall:g} s") from None

    async def _read(
        self, socket: _Socket, provider: Provider, started: float, clock: asyncio.Timeout
    ) -> Answer:
        """Read messages to the end of the answer.

        The clock is moved ten times within `stall` at most, for each move costs as much as a
        message does: so it rings up to a tenth late.
        """
        reader = provider.new_stream()
        first: float | None = None
        loop = asyncio.get_running_loop()
        next_move = 0.0
        while True:
            if (now := loop.time()) >= next_move:
                next_move = now + self._limits.stall / 10
                clock.reschedule(next_move + self._limits.stall)
            event = self._parse(await socket.connection.recv(decode=False))
            self.heard = True
            if event.get("type") == "error":
                raise frame_error(event)
            is_last = socket.is_last(event)
            if shaped("the stream", reader.feed, event) and first is None:
                first = time.monotonic() - started
            if is_last:
                return Answer(shaped("the stream", reader.result), None, first)

    def _parse(self, data: bytes) -> dict[str, Any]:
        """Parse a message; a key that a server sends back gets no further than here."""
        if self._key:
            data = data.replace(self._key.encode(), b"***")
        start = data[:120].decode("utf-8", "replace")
        try:
            event = jsonio.loads(data)
        except InvalidJSON as error:
            raise InvalidResponse(f"a message is not usable JSON: {error}: {start!r}") from None
        if not isinstance(event, dict):
            raise InvalidResponse(f"a message is no object: {start}")
        return event

    def _close_later(self, socket: _Socket) -> None:
        task = asyncio.create_task(socket.connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Connect(connect):
    """A handshake that follows no redirect, which could take the key to another server."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Socket:
    """One socket, and which answer comes through it."""

    def __init__(self, connection: ClientConnection, path: str) -> None:
        self.connection = connection
        self.path = path
        self.opened = time.monotonic()
        self._announces = False
        self._begun = False
        self._current: Any = None
        self._ended: Any = None

    def is_last(self, event: dict[str, Any]) -> bool:
        """Take note of an event; return whether it ends the answer.

        Names of gateways may change within an answer, so a new name alone proves nothing.

        Raises:
            ConnectionLost: it ends an answer that was not announced, or the one before, so that
                it may be another row's.
        """
        kind = event.get("type")
        response = event.get("response")
        name = response.get("id") if isinstance(response, dict) else None
        if kind == "response.created":
            self._announces = self._begun = True
            self._current = name
        if kind not in _ENDS:
            return False
        is_repeated = name != self._current and name == self._ended
        if self._announces and (is_repeated or not self._begun):
            raise ConnectionLost("the socket carried the end of another answer")
        self._begun = False
        self._ended = name
        return True
