"""The event loop of a window: uvloop's, but for how it gets to a host.

Its own look-ups share a few threads with everything else, hold up its end, and know one address.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
from asyncio.staggered import staggered_race
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import uvloop

STAGGER = 0.25
"""Seconds after which the next address is tried beside those that have not answered (RFC 8305)."""

_Info = tuple[int, int, int, str, Any]


class Loop(uvloop.Loop):
    """Looks names up in Python's threads, and tries the addresses of a host side by side."""

    async def getaddrinfo(self, host: Any, port: Any, **hints: int) -> Any:
        """Find the addresses of a host; those that are numbers need no thread."""
        numeric = hints | {"flags": hints.get("flags", 0) | socket.AI_NUMERICHOST}
        try:
            return socket.getaddrinfo(host, port, **numeric)
        except socket.gaierror:
            found = partial(socket.getaddrinfo, host, port, **hints)
            return await self.run_in_executor(None, found)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a socket to an address that was looked up."""
        code = sock.connect_ex(address)
        if code in (errno.EINPROGRESS, errno.EINTR):
            await self._writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        **options: Any,
    ) -> Any:
        """Connect to whichever address of a host answers first."""
        if host is None:
            return await super().create_connection(protocol_factory, **options)
        if options.get("ssl") and not options.get("server_hostname"):
            options["server_hostname"] = host
        infos = await self.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        made: list[socket.socket] = []
        used: socket.socket | None = None
        try:
            sock = await self._connected(infos, made)
            found = await super().create_connection(protocol_factory, sock=sock, **options)
            used = sock
            return found
        finally:
            for other in made:
                if other is not used:
                    other.close()

    async def _connected(self, infos: Sequence[_Info], made: list[socket.socket]) -> socket.socket:
        tries = [partial(self._connect, info, made) for info in _in_turn(infos)]
        found: socket.socket | None
        found, _, errors = await staggered_race(tries, STAGGER)
        if found is not None:
            return found
        raise _joined([error for error in errors if error is not None])

    async def _connect(self, info: _Info, made: list[socket.socket]) -> socket.socket:
        family, kind, protocol, _, address = info
        sock = socket.socket(family, kind, protocol)
        made.append(sock)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self.sock_connect(sock, address)
        return sock

    async def _writable(self, sock: socket.socket) -> None:
        ready: asyncio.Future[None] = self.create_future()

        def note() -> None:
            if not ready.done():
                ready.set_result(None)

        self.add_writer(sock, note)
        try:
            await ready
        finally:
            self.remove_writer(sock)


def _in_turn(infos: Sequence[_Info]) -> list[_Info]:
    """Take addresses of each family in turn, beginning with the one that the system prefers."""
    families: dict[int, list[_Info]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    turns = itertools.zip_longest(*families.values())
    return [info for turn in turns for info in turn if info is not None]


def _joined(errors: Sequence[Exception]) -> Exception:
    """Return the error that addresses have in common, or one that tells all."""
    texts = dict.fromkeys(getattr(error, "strerror", None) or str(error) for error in errors)
    if len(texts) == 1:
        return errors[0]
    return OSError("; ".join(texts) or "it has no address")
