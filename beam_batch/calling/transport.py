"""How a request travels: over HTTP, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from beam_batch.calling.http import Answer, HttpClient
from beam_batch.options import ModelSpec
from beam_batch.providers import headers, read_key
from beam_batch.providers.base import Provider, Request


class Transport(Protocol):
    """Carries requests to one provider; make and close it inside the event loop."""

    async def send(self, request: Request) -> Answer:
        """Send one request, once.

        Raises:
            FatalReply: the provider refuses every request of this run.
            ProviderError: this attempt failed.
        """

    async def close(self) -> None:
        """Close what is open."""


class HttpTransport:
    """One POST a request."""

    def __init__(self, provider: Provider, client: HttpClient) -> None:
        self._provider = provider
        self._client = client

    async def send(self, request: Request) -> Answer:
        """Send one request, once."""
        return await self._client.post(self._provider, request)

    async def close(self) -> None:
        """Close the pool."""
        await self._client.close()


class EchoTransport:
    """Answers in this process."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._delay = getattr(provider, "delay", 0.0)

    async def send(self, request: Request) -> Answer:
        """Answer after the provider's delay."""
        await asyncio.sleep(self._delay)
        return Answer(self._provider.answer(request), None, None)

    async def close(self) -> None:
        """Nothing is open."""


def make_transport(
    model: ModelSpec, provider: Provider, env: Mapping[str, str], times: tuple[float, float]
) -> Transport:
    """Return the transport of a model; `times` are seconds for a request, and between pieces."""
    if not model.base_url:
        return EchoTransport(provider)
    key = read_key(model, env)
    return HttpTransport(provider, HttpClient(model.base_url, headers(model, key, env), key, times))
