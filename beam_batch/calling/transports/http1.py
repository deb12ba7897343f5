"""A pool of HTTP/1.1 connections to one place: POST a body, get an answer; nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from beam_batch.calling.transports.answers import Chooser, Response
from beam_batch.calling.transports.connection import Connection
from beam_batch.errors import ConnectionLost, OptionsError, TimedOut

CONNECT_TIMEOUT = 30.0
IDLE_SECONDS = 15.0
"""How long a connection is kept that nobody uses; servers and what is between close them."""
_PATH_CHARACTERS = "/:@!$&'()*+,;=~?%-._[]"


class Pool:
    """Posts to one base URL. Make and close it inside the event loop.

    A request has a connection of its own until its answer is whole. Redirects are not followed.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = _address(parts)
        self._where = f"{_in_url(self._host)}:{self._port}"
        self._tls = parts.scheme == "https"
        self._context: ssl.SSLContext | None = None
        self._base_path = urlunsplit(parts._replace(scheme="", netloc=""))
        self._fields = _fields(parts, headers)
        self._heads: dict[str, bytes] = {}
        self._idle: list[Connection] = []
        self._opened: set[Connection] = set()

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        total: float,
        stall: float = math.inf,
        choose: Chooser | None = None,
    ) -> Response:
        """Send one request, once, and return its answer, whatever its status.

        Args:
            path: appended to the base URL.
            total: seconds until the answer must be whole.
            stall: seconds that the server may be silent.
            choose: looks at the answer's head and returns who reads its body, or None.

        Raises:
            TimedOut, ConnectionLost: there is no whole answer.
            InvalidResponse: the answer is none that we can read.
        """
        started = asyncio.get_running_loop().time()
        head = self._heads.get(path) or self._new_head(path)
        connection = self._reused(started) or await self._connect(min(total, CONNECT_TIMEOUT))
        answer = connection.ask(
            b"%b%d\r\n\r\n%b" % (head, len(body), body),
            started=started,
            total=total,
            stall=stall,
            choose=choose,
        )
        try:
            return await answer
        finally:  # cancelled as well: an answer that nobody reads must not meet the next request
            if connection.reusable:
                self._idle.append(connection)
            else:
                connection.abort()
            del answer, connection  # an error refers to this frame, and they to the error

    async def close(self) -> None:
        """Close every connection."""
        self._idle.clear()
        for connection in self._opened:
            connection.abort()
        if self._opened:
            await asyncio.wait([connection.gone for connection in self._opened])

    def _new_head(self, path: str) -> bytes:
        """Write all of a request but the length and the body; paths are few."""
        target = quote(self._base_path + path, safe=_PATH_CHARACTERS) or "/"
        self._heads[path] = (
            f"POST {target} HTTP/1.1\r\n".encode() + self._fields + b"Content-Length: "
        )
        return self._heads[path]

    def _reused(self, now: float) -> Connection | None:
        """Return the connection that was used last, if it is fresh."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and now - connection.used < IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    async def _connect(self, seconds: float) -> Connection:
        try:
            async with asyncio.timeout(seconds):
                return await self._new_connection()
        except TimeoutError:
            reason = f"no connection to {self._where} within {seconds:g} s"
            raise TimedOut(reason, unsent=True) from None
        except OSError as error:
            raise ConnectionLost(_reason(self._where, error), unsent=True) from None

    async def _new_connection(self) -> Connection:
        if self._tls and self._context is None:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
        connection = Connection(self._opened)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection, self._host, self._port, ssl=self._context
            )
        except BaseException:  # a loop may tell nobody of one that is given up as it is made
            self._opened.discard(connection)
            raise
        return connection


def _address(parts: SplitResult) -> tuple[str, int]:
    host = parts.hostname or ""
    if not host.isascii():
        with contextlib.suppress(UnicodeError):
            host = host.encode("idna").decode()
    return host, parts.port or (443 if parts.scheme == "https" else 80)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _fields(parts: SplitResult, headers: Mapping[str, str]) -> bytes:
    """Write the header fields that every request has.

    Raises:
        OptionsError: a value cannot be sent.
    """
    host, port = _address(parts)
    usual = port == (443 if parts.scheme == "https" else 80)
    name = _in_url(host) if usual else f"{_in_url(host)}:{port}"
    fields = {"Host": name, "Accept-Encoding": "identity", **headers}
    for field, value in fields.items():
        if any(character in value for character in "\r\n\0"):
            raise OptionsError(f"the header field {field} cannot hold a line break.")
    return "".join(f"{field}: {value}\r\n" for field, value in fields.items()).encode()


def _reason(where: str, error: OSError) -> str:
    """Say why there is no connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{where} has no certificate that we can trust: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection to {where}: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return f"no address of {where}: {error.strerror}"
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"no connection to {where}: {reason}"
