"""Where URLs of cards lead to: the public network, or this machine and what is near it."""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

_NEAR = (".localhost", ".local", ".internal", ".localdomain", ".lan", ".intranet", ".home.arpa")
_NAME = re.compile(r"[a-z0-9._-]+")


def is_public(url: str) -> bool:
    """Whether a URL names a public address, or a name that may have one; nothing is resolved.

    >>> is_public("https://docs.example/mcp"), is_public("http://127.1:80"), is_public("http://db")
    (True, False, False)
    """
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return False
    address = _address(host)
    if isinstance(address, IPv6Address) and address.sixtofour is not None:
        address = address.sixtofour
    if address is not None:
        return address.is_global and not (address.is_multicast or address.is_reserved)
    return bool(_NAME.fullmatch(host)) and "." in host and not host.endswith(_NEAR)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Read an address as the system would, which takes 127.1 and 0x7f000001 for one."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeEncodeError, ValueError):
        return None
