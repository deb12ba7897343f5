"""Opens a TCP connection to a host that may have several addresses, some of them dead."""

from __future__ import annotations

import asyncio
import itertools
import socket
from asyncio.staggered import staggered_race
from collections.abc import Sequence
from functools import partial
from typing import Any

STAGGER = 0.25
"""Seconds after which the next address is tried beside those that have not answered (RFC 8305)."""

_Info = tuple[int, int, int, str, Any]


async def connect(host: str, port: int) -> socket.socket:
    """Return a connected socket that does not block, to the address that answers first.

    Raises:
        OSError: no address, or none that answers.
    """
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    tries = [partial(_connect, info) for info in _in_turn(infos)]
    found: socket.socket | None
    found, _, errors = await staggered_race(tries, STAGGER)
    if found is not None:
        return found
    raise next(error for error in errors if error is not None)


async def _connect(info: _Info) -> socket.socket:
    family, kind, protocol, _, address = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _in_turn(infos: Sequence[_Info]) -> list[_Info]:
    """Take addresses of each family in turn, beginning with the one that the system prefers."""
    families: dict[int, list[_Info]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    turns = itertools.zip_longest(*families.values())
    return [info for turn in turns for info in turn if info is not None]
