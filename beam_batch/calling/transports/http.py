"""One POST an attempt, plain or streamed, and its answer as the provider's reader takes it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from beam_batch import jsonio
from beam_batch.calling.limits import LIMIT_HEADERS
from beam_batch.calling.transports.answers import Reader, Response
from beam_batch.calling.transports.events import EventParser
from beam_batch.calling.transports.http1 import Pool
from beam_batch.errors import InvalidJSON, InvalidResponse, ProviderError, first_line
from beam_batch.providers.base import Provider, Request, StreamReader
from beam_batch.providers.failing import to_error
from beam_batch.redaction import secret_of

if TYPE_CHECKING:
    from beam_batch.calling.transports.proxied import ProxiedPool


_LIMIT_FIELDS = frozenset(name.encode() for name in LIMIT_HEADERS)


class Answer(NamedTuple):
    """A 200 answer: parsed body, request id, seconds until its first text, headers of limits."""

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
        self._key = secret_of(key)
        self._key_bytes = self._key.encode() if self._key else None
        self._total, self._stall = timeouts
        self._pool = _make_pool(base_url, headers)

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()

    async def post(self, provider: Provider, request: Request) -> Answer:
        """Send one request, once.

        Raises:
            FatalReply: the provider refuses every request of this run.
            ProviderError: this attempt failed.
        """
        body = jsonio.dumps(request.body)
        stream = _Stream(provider.new_stream(), self._parse) if request.stream else None
        try:
            response = await self._pool.post(
                request.path,
                body,
                total=self._total,
                stall=math.inf if stream is None else self._stall,
                choose=None if stream is None else stream.choose,
            )
        except ProviderError as error:
            error.args = (self._without_key(str(error)),)
            raise
        if response.status != 200:
            raise to_error(response.status, response.headers, response.body, self._key)
        request_id = response.header("x-request-id")
        request_id = request_id and self._without_key(request_id)
        if stream is not None and stream.chosen:
            return Answer(stream.result(), request_id, stream.first_text, _limit_headers(response))
        return Answer(self._parse(response.body), request_id, None, _limit_headers(response))

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _parse(self, data: bytes) -> Any:
        """Parse a body; a key that a server sends back gets no further than here."""
        if self._key_bytes is not None and self._key_bytes in data:
            data = data.replace(self._key_bytes, b"***")
        try:
            return jsonio.loads(data)
        except InvalidJSON as error:
            start = data[:120].decode("utf-8", "replace")
            raise InvalidResponse(f"the body is not usable JSON: {error}: {start!r}") from None


def _limit_headers(response: Response) -> Mapping[str, str] | None:
    """Return the headers where they name limits."""
    return None if _LIMIT_FIELDS.isdisjoint(response.fields) else response.headers


class _Stream:
    """Reads a streamed answer while it arrives.

    Attributes:
        chosen: whether the answer was a stream.
        first_text: seconds from sending to the first text, or None where there was none.
    """

    def __init__(self, reader: StreamReader, parse: Callable[[bytes], Any]) -> None:
        self._reader = reader
        self._parse = parse
        self._events = EventParser()
        self._started = time.monotonic()
        self.chosen = False
        self.first_text: float | None = None

    def choose(self, head: Response) -> Reader | None:
        """Read the answer, if it is a stream."""
        self.chosen = head.status == 200 and "event-stream" in (head.header("content-type") or "")
        return self._read if self.chosen else None

    def result(self) -> Any:
        """Return what the events add up to."""
        self._feed(self._events.end())
        return shaped("the stream", self._reader.result)

    def _read(self, piece: bytes) -> None:
        self._feed(self._events.feed(piece))

    def _feed(self, events: list[bytes]) -> None:
        for event in events:
            data = self._parse(event)
            if not isinstance(data, dict):
                raise InvalidResponse(f"an event of the stream is no object: {data!s:.120}")
            if shaped("the stream", self._reader.feed, data) and self.first_text is None:
                self.first_text = time.monotonic() - self._started


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


def _make_pool(base_url: str, headers: Mapping[str, str]) -> Pool | ProxiedPool:
    """Return a pool; one that goes through a proxy where the environment names one."""
    proxy = proxy_for(base_url)
    if proxy is None:
        return Pool(base_url, headers)
    from beam_batch.calling.transports.proxied import ProxiedPool

    return ProxiedPool(base_url, headers, proxy)


def proxy_for(base_url: str) -> str | None:
    """Find the proxy of the environment (HTTPS_PROXY, NO_PROXY), once instead of a request."""
    parts = urlsplit(base_url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)
