"""How the loop of a window gets to a host: several addresses, some dead; names that take long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from beam_batch.calling import loop

Address = tuple[str, int]
_look_up = socket.getaddrinfo


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

    def found(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in addresses]

    async def main() -> Address:
        running = asyncio.get_running_loop()
        transport, _ = await running.create_connection(asyncio.Protocol, "some.example", 443)
        peer: Address = transport.get_extra_info("peername")
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.abort()
        return peer

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return asyncio.run(main())


def test_an_address_that_refuses_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, listening: Address, refusing: Address
) -> None:
    assert connect_to(monkeypatch, refusing, listening) == listening


def test_an_address_that_never_answers_does_not_hold_up_the_next(
    monkeypatch: pytest.MonkeyPatch, listening: Address, silent: Address
) -> None:
    assert connect_to(monkeypatch, silent, listening) == listening


def test_where_all_refuse_it_is_one_refusal(
    monkeypatch: pytest.MonkeyPatch, refusing: Address
) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect_to(monkeypatch, refusing, refusing)


def test_addresses_that_fail_for_different_reasons_are_all_told(
    monkeypatch: pytest.MonkeyPatch, refusing: Address
) -> None:
    with pytest.raises(OSError, match=r"Connection refused; .*[Nn]etwork|Connection refused; "):
        connect_to(monkeypatch, refusing, ("255.255.255.255", 9))


def test_a_host_without_any_address_is_an_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(OSError, match="no address"):
        connect_to(monkeypatch)


def test_families_are_tried_in_turn() -> None:
    six = [(socket.AF_INET6, 1, 6, "", (f"::{n}", 1, 0, 0)) for n in (1, 2, 3)]
    four = [(socket.AF_INET, 1, 6, "", (f"127.0.0.{n}", 1)) for n in (1,)]
    assert loop._in_turn([*six, *four]) == [six[0], four[0], six[1], six[2]]


def test_names_that_take_long_hold_up_no_address_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch, listening: Address
) -> None:
    answered = threading.Event()

    def slow(host: str, *args: Any, **hints: Any) -> Any:
        if host == "slow.example" and not hints.get("flags"):
            answered.wait()
        return _look_up("127.0.0.1" if host == "slow.example" else host, *args, **hints)

    def no_number(host: str, *args: Any, **hints: Any) -> Any:
        if host == "slow.example" and hints.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        return slow(host, *args, **hints)

    async def main() -> None:
        running = asyncio.get_running_loop()
        stuck = [
            asyncio.create_task(running.create_connection(asyncio.Protocol, "slow.example", 1))
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        transport, _ = await running.create_connection(asyncio.Protocol, *listening)
        transport.abort()
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)

    monkeypatch.setattr(socket, "getaddrinfo", no_number)
    own = loop.Loop()  # `asyncio.run` would wait for the threads, a window does not
    try:
        own.run_until_complete(main())
    finally:
        own.close()
        answered.set()
