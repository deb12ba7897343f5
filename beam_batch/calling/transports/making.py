"""How requests travel: plain HTTP, server-sent events, WebSockets, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from beam_batch.calling.transports.http import Answer, HttpClient
from beam_batch.errors import ConnectionLost, TimedOut
from beam_batch.options import ModelSpec
from beam_batch.providers import PROVIDERS, headers, read_key
from beam_batch.providers.base import Provider, Request
from beam_batch.providers.echo import EchoProvider

if TYPE_CHECKING:
    from beam_batch.calling.transports.websocket import WebSocketClient


class Transport(Protocol):
    """Brings requests to a provider. Made, used and closed inside one event loop."""

    async def send(self, request: Request) -> Answer:
        """Send one request, once.

        Raises:
            FatalReply: the provider refuses every request of this run.
            ProviderError: this attempt failed.
        """

    async def close(self) -> None:
        """Close every connection."""


def make_transport(
    model: ModelSpec, provider: Provider, env: Mapping[str, str], times: tuple[float, float]
) -> Transport:
    """Return what `transport=` asks for; `auto` where nothing does.

    Args:
        env: environment variables, for the key and the account.
        times: seconds that an answer, and a pause within a streamed one, may take.
    """
    if isinstance(provider, EchoProvider):
        return EchoTransport(provider)
    chosen = model.options.get("transport", "auto")
    key = read_key(model, env)
    head = headers(model, key, env)
    total, stall = times
    if chosen == "websocket":
        return WebSocketTransport(_sockets(model, head, key, total, stall), provider)
    http = HttpTransport(HttpClient(model.base_url, head, key, times), provider)
    if chosen == "auto" and PROVIDERS[model.provider].prefers_websocket:
        # Nobody asked for a stream: a pause that HTTP would have sat out is no fault here either.
        return AutoTransport(_sockets(model, head, key, total, total), http, provider)
    return http


def _sockets(
    model: ModelSpec, head: Mapping[str, str], key: str | None, total: float, stall: float
) -> WebSocketClient:
    from beam_batch.calling.transports.websocket import Limits, WebSocketClient

    return WebSocketClient(model.base_url, head, key, Limits(total, stall))


class EchoTransport:
    """Answers here, after the provider's delay."""

    def __init__(self, provider: EchoProvider) -> None:
        self._provider = provider

    async def send(self, request: Request) -> Answer:
        """Answer one request."""
        await asyncio.sleep(self._provider.delay)
        return Answer(self._provider.answer(request), None, None)

    async def close(self) -> None:
        """Do nothing: there is no connection."""


class HttpTransport:
    """One POST a request; whether its answer is streamed is the request's matter."""

    def __init__(self, client: HttpClient, provider: Provider) -> None:
        self._client = client
        self._provider = provider

    async def send(self, request: Request) -> Answer:
        """Send one request, once."""
        return await self._client.post(self._provider, request)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


class WebSocketTransport:
    """WebSockets only: a server without them ends the run."""

    def __init__(self, client: WebSocketClient, provider: Provider) -> None:
        self._client = client
        self._provider = provider

    async def send(self, request: Request) -> Answer:
        """Send one request, once."""
        from beam_batch.calling.transports.refusals import HandshakeRefused

        try:
            return await self._client.post(self._provider, request)
        except HandshakeRefused as refused:
            raise refused.error from None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


class AutoTransport:
    """WebSockets, or HTTP for good from the first handshake that is refused.

    The first request decides while the others wait, so that a server without WebSockets sees one
    handshake. Something in between that opens sockets and passes nothing on is found out as well:
    it costs one attempt of a row.
    """

    def __init__(self, client: WebSocketClient, http: HttpTransport, provider: Provider) -> None:
        self._client = client
        self._http = http
        self._provider = provider
        self._opening: asyncio.Task[None] | None = None
        self._refused = False

    async def send(self, request: Request) -> Answer:
        """Send one request, once."""
        from beam_batch.calling.transports.refusals import HandshakeRefused

        if self._refused:
            return await self._http.send(request)
        try:
            await self._first_handshake(request.path)
            if not self._refused:
                return await self._client.post(self._provider, request)
        except HandshakeRefused as refused:
            if refused.status == 401:
                raise refused.error from None
            self._refused = True
        except (ConnectionLost, TimedOut):
            self._refused |= self._client.opened and not self._client.heard
            raise
        return await self._http.send(request)

    async def _first_handshake(self, path: str) -> None:
        """Wait until a socket has been opened, by this request or by another."""
        if self._client.opened:
            return
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._client.open(path))
        await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Close every connection."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await self._client.close()
        await self._http.close()
