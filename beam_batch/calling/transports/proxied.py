"""POST through an HTTP proxy, with aiohttp, which is imported for that only."""

from __future__ import annotations

import math
from collections.abc import Mapping

import aiohttp
from yarl import URL

from beam_batch.calling.transports.answers import Chooser, Response
from beam_batch.calling.transports.http1 import CONNECT_TIMEOUT
from beam_batch.errors import ConnectionLost, TimedOut


class ProxiedPool:
    """Offers what `http1.Pool` does."""

    def __init__(self, base_url: str, headers: Mapping[str, str], proxy: str) -> None:
        self._base_url = base_url
        self._proxy = proxy
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "User-Agent", "Content-Type"),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        total: float,
        stall: float = math.inf,
        choose: Chooser | None = None,
    ) -> Response:
        """Send one request, once; see `http1.Pool.post`."""
        timeout = aiohttp.ClientTimeout(
            total=total,
            sock_connect=CONNECT_TIMEOUT,
            sock_read=None if stall == math.inf else stall,
        )
        try:
            async with self._session.post(
                URL(self._base_url + path),
                data=body,
                timeout=timeout,
                proxy=self._proxy,
                allow_redirects=False,
            ) as response:
                return await _read(response, choose)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ConnectionLost(str(error) or type(error).__name__, unsent=True) from None
        except TimeoutError as error:
            raise TimedOut(str(error) or f"no whole answer within {total:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionLost(str(error) or type(error).__name__) from None


async def _read(response: aiohttp.ClientResponse, choose: Chooser | None) -> Response:
    fields = {name.lower(): value for name, value in response.raw_headers}
    head = Response(response.status, fields)
    reader = choose(head) if choose is not None else None
    if reader is None:
        return head._replace(body=await response.read())
    async for piece in response.content.iter_any():
        reader(piece)
    return head
