"""A host with several addresses, of which some are dead."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from beam_batch.calling.transports import connecting

Address = tuple[str, int]


@pytest.fixture
def listening() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


@pytest.fixture
def refusing() -> Address:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address: Address = probe.getsockname()
        return address


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that answers nobody: its queue of connections is full."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        contextlib.ExitStack() as held,
    ):
        for _ in range(4):
            caller = held.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        yield server.getsockname()


def connect_to(monkeypatch: pytest.MonkeyPatch, *addresses: Address) -> Address:
    """Connect to a host of so many addresses; return which one it was."""

    async def main() -> Address:
        loop = asyncio.get_running_loop()

        async def found(*_: object, **__: object) -> list[object]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in addresses]

        class Resolving:
            getaddrinfo = staticmethod(found)
            sock_connect = loop.sock_connect

        monkeypatch.setattr(asyncio, "get_running_loop", Resolving)
        with await connecting.connect("some.example", 443) as sock:
            peer: Address = sock.getpeername()
            assert not sock.getblocking()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            return peer

    return asyncio.run(main())


def test_an_address_that_refuses_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, listening: Address, refusing: Address
) -> None:
    assert connect_to(monkeypatch, refusing, listening) == listening


def test_an_address_that_never_answers_does_not_hold_up_the_next(
    monkeypatch: pytest.MonkeyPatch, listening: Address, silent: Address
) -> None:
    assert connect_to(monkeypatch, silent, listening) == listening


def test_where_all_refuse_the_first_says_why(
    monkeypatch: pytest.MonkeyPatch, refusing: Address
) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect_to(monkeypatch, refusing, refusing)


def test_families_are_tried_in_turn() -> None:
    six = [(socket.AF_INET6, 1, 6, "", (f"::{n}", 1, 0, 0)) for n in (1, 2, 3)]
    four = [(socket.AF_INET, 1, 6, "", (f"127.0.0.{n}", 1)) for n in (1,)]
    assert connecting._in_turn([*six, *four]) == [six[0], four[0], six[1], six[2]]
