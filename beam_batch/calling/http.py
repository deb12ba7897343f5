"""The lean HTTP path: one pool a worker, one POST an attempt, plain or streamed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from beam_batch import jsonio
from beam_batch.errors import ConnectionLost, InvalidJSON, InvalidResponse, TimedOut, first_line
from beam_batch.providers.base import Provider, Request, to_error

CONNECT_TIMEOUT = 30.0


class Answer(NamedTuple):
    """A 200 answer: parsed body, request id, seconds until its first text, headers."""

    body: Any
    request_id: str | None
    first_text: float | None
    headers: Mapping[str, str] | None = None


class HttpClient:
    """Posts requests to one base URL. Make and close it inside the event loop."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        key: str | None,
        timeouts: tuple[float, float],
    ) -> None:
        self._base_url = base_url
        self._urls: dict[str, URL] = {}
        self._key = key
        total, stall = timeouts
        self._plain = aiohttp.ClientTimeout(total=total, sock_connect=CONNECT_TIMEOUT)
        self._streamed = aiohttp.ClientTimeout(
            total=total, sock_connect=CONNECT_TIMEOUT, sock_read=stall
        )
        self._proxy = _proxy_for(base_url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "User-Agent", "Content-Type"),
        )

    async def close(self) -> None:
        """Close the pool."""
        await self._session.close()

    async def post(self, provider: Provider, request: Request) -> Answer:
        """Send one request, once.

        Raises:
            FatalReply: the provider refuses every request of this run.
            ProviderError: this attempt failed.
        """
        try:
            return await self._post(provider, request)
        except TimeoutError as error:
            raise TimedOut(str(error) or "no answer within the time allowed") from None
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise ConnectionLost(self._without_key(reason)) from None

    async def _post(self, provider: Provider, request: Request) -> Answer:
        started = time.monotonic()
        async with self._session.post(
            self._url(request.path),
            data=jsonio.dumps(request.body),
            timeout=self._streamed if request.stream else self._plain,
            proxy=self._proxy,
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                body = await response.read()
                raise to_error(response.status, response.headers, body, self._key)
            request_id = response.headers.get("x-request-id")
            request_id = request_id and self._without_key(request_id)
            if request.stream and "event-stream" in response.content_type:
                return await self._read_stream(provider, response, request_id, started)
            body = await response.read()
            return Answer(self._parse(body), request_id, None, response.headers)

    def _url(self, path: str) -> URL:
        """Return the URL of a path; parsed once, for there are few."""
        found = self._urls.get(path)
        if found is None:
            found = self._urls[path] = URL(self._base_url + path)
        return found

    async def _read_stream(
        self,
        provider: Provider,
        response: aiohttp.ClientResponse,
        request_id: str | None,
        started: float,
    ) -> Answer:
        reader = provider.new_stream()
        first: float | None = None
        async for event in _events(response.content):
            data = self._parse(event)
            if not isinstance(data, dict):
                raise InvalidResponse(f"an event of the stream is no object: {data!s:.120}")
            if shaped("the stream", reader.feed, data) and first is None:
                first = time.monotonic() - started
        return Answer(shaped("the stream", reader.result), request_id, first, response.headers)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _parse(self, data: bytes) -> Any:
        """Parse a body; a key that a server sends back gets no further than here."""
        if self._key and (key := self._key.encode()) in data:
            data = data.replace(key, b"***")
        try:
            return jsonio.loads(data)
        except InvalidJSON as error:
            start = data[:120].decode("utf-8", "replace")
            raise InvalidResponse(f"the body is not usable JSON: {error}: {start!r}") from None


def shaped(what: str, read: Callable[..., Any], *args: Any) -> Any:
    """Read a body or a stream; what breaks its format in a way nobody foresaw is no bug of ours.

    Raises:
        InvalidResponse: it breaks its format.
    """
    try:
        return read(*args)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InvalidResponse(
            f"{what} breaks its format ({type(error).__name__}: {first_line(error)})"
        ) from None


async def _events(stream: asyncio.StreamReader | aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the data of server-sent events (https://html.spec.whatwg.org, section 9.2)."""
    data: list[bytes] = []
    buffer = b""
    async for chunk in stream.iter_any():  # type: ignore[union-attr]
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                event = b"\n".join(data)
                data = []
                if event.strip() != b"[DONE]":
                    yield event
    if buffer.startswith(b"data:"):
        data.append(buffer.rstrip(b"\r")[5:].removeprefix(b" "))
    if data and b"\n".join(data).strip() != b"[DONE]":  # the last event, without its blank line
        yield b"\n".join(data)


def _proxy_for(base_url: str) -> str | None:
    """Find the proxy of the environment (HTTPS_PROXY, NO_PROXY), once instead of a request."""
    from urllib.parse import urlsplit

    parts = urlsplit(base_url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)
