"""Sockets: what they carry, when they are used again, and what their faults are called."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from beam_batch.calling.transports.making import (
    AutoTransport,
    EchoTransport,
    HttpTransport,
    Transport,
    WebSocketTransport,
    make_transport,
)
from beam_batch.calling.transports.refusals import frame_error
from beam_batch.calling.transports.websocket import Limits, WebSocketClient
from beam_batch.errors import (
    BatchError,
    ConnectionLost,
    FatalReply,
    InvalidResponse,
    ProviderError,
    RateLimited,
    RequestRejected,
    ServerError,
    TimedOut,
)
from beam_batch.providers import make_provider, resolve_model
from tests.fakes import Answer, Script, ScriptedServer, completion, error_body
from tests.support import wait_until

KEY = "CANARYKEY4711"
LONG = (60.0, 60.0)
Sender = Callable[[str], Awaitable[str]]


def _at(base_url: str) -> dict[str, str]:
    return {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": KEY}


@asynccontextmanager
async def _transport(
    base_url: str, model: str = "responses.m?transport=websocket", times: tuple[float, float] = LONG
) -> AsyncIterator[tuple[Sender, Transport]]:
    """Yield what sends a prompt and returns the text of its answer."""
    env = _at(base_url)
    spec = resolve_model(model, env)
    provider = make_provider(spec, None)
    transport = make_transport(spec, provider, env, times)

    async def send(prompt: str) -> str:
        answer = await transport.send(provider.to_request("Be brief.", prompt))
        return provider.to_reply(answer.body).text

    try:
        yield send, transport
    finally:
        await transport.close()


@asynccontextmanager
async def _client(base_url: str, **limits: Any) -> AsyncIterator[tuple[Sender, WebSocketClient]]:
    """Yield a client with limits of its own, and what sends a prompt through it."""
    spec = resolve_model("responses.m?transport=websocket", _at(base_url))
    provider = make_provider(spec, None)
    client = WebSocketClient(base_url, {}, KEY, Limits(*LONG)._replace(**limits))

    async def send(prompt: str) -> str:
        answer = await client.post(provider, provider.to_request("Be brief.", prompt))
        return provider.to_reply(answer.body).text

    try:
        yield send, client
    finally:
        await client.close()


def _first(bad: Answer) -> Script:
    return lambda number, body: bad if number == 1 else Answer()


def _ask(server: ScriptedServer, *prompts: str, **more: Any) -> list[str | BatchError]:
    """Send prompts one after another; an error is returned in its place."""

    async def main() -> list[str | BatchError]:
        said: list[str | BatchError] = []
        async with _transport(server.base_url, **more) as (send, _):
            for prompt in prompts:
                try:
                    said.append(await send(prompt))
                except BatchError as error:
                    said.append(error)
        return said

    return asyncio.run(main())


def test_one_socket_carries_one_answer_after_another() -> None:
    with ScriptedServer(upgrade=101) as server:
        assert _ask(server, "a", "b", "c") == ["a", "b", "c"]
    assert server.sockets == [3]
    assert server.posts == 0
    assert server.handshakes[0]["Authorization"] == f"Bearer {KEY}"
    assert server.bodies[0] == {
        "model": "m", "store": False, "instructions": "Be brief.", "input": "a",
    }  # fmt: skip


def test_each_request_in_flight_has_a_socket_and_the_last_used_is_used_first() -> None:
    async def main(server: ScriptedServer) -> None:
        prompts = [str(number) for number in range(5)]
        async with _transport(server.base_url) as (send, _):
            for _ in range(3):
                assert await asyncio.gather(*map(send, prompts)) == prompts
            assert [await send("alone") for _ in range(3)] == ["alone"] * 3

    with ScriptedServer(upgrade=101, delay=0.01) as server:
        asyncio.run(main(server))
    assert sorted(server.sockets) == [3, 3, 3, 3, 6]


def test_the_first_text_is_timed() -> None:
    async def main(server: ScriptedServer) -> None:
        async with _transport(server.base_url) as (_, transport):
            spec = resolve_model("responses.m", _at(server.base_url))
            answer = await transport.send(make_provider(spec, None).to_request("", "a"))
            assert answer.first_text is not None
            assert answer.first_text > 0

    with ScriptedServer(upgrade=101) as server:
        asyncio.run(main(server))


DELTA = {"type": "response.output_text.delta", "delta": "x"}
CREATED = {"type": "response.created", "response": {"id": "r"}}


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (Answer(fault="drop"), ConnectionLost),
        (Answer(events=(CREATED, DELTA), fault="cut"), ConnectionLost),
        (Answer(events=(CREATED, DELTA), fault="end"), ConnectionLost),
        (Answer(events=(CREATED,), fault="end", code=1011), ConnectionLost),
        (Answer(events=(CREATED,), fault="end", code=1009), RequestRejected),
        (Answer(body=b"<html>"), InvalidResponse),
        (Answer(body=b"[1]"), InvalidResponse),
        (Answer(status=429, body=error_body("slow")), RateLimited),
        (Answer(status=500, body=error_body("oops")), ServerError),
        (Answer(status=400, body=error_body("no")), RequestRejected),
        (Answer(status=401, body=error_body("who")), FatalReply),
        (Answer(status=429, body=error_body("pay", code="insufficient_quota")), FatalReply),
    ],
    ids=[
        "drop", "cut", "end", "end-1011", "end-1009", "html", "list", "429", "500", "400", "401",
        "quota",
    ],
)  # fmt: skip
def test_a_fault_has_a_name_and_its_socket_is_not_used_again(
    bad: Answer, kind: type[BatchError]
) -> None:
    with ScriptedServer(_first(bad), upgrade=101) as server:
        error, second = _ask(server, "a", "b")
    assert type(error) is kind
    assert second == "b"
    assert server.sockets == [1, 1]


@pytest.mark.parametrize(
    ("frame", "kind", "words"),
    [
        ({"error": {"code": "rate_limit_exceeded", "message": "m"}}, RateLimited, "m"),
        ({"error": {"type": "rate_limit_error", "message": "m"}}, RateLimited, "m"),
        ({"code": "server_error", "message": "flat"}, ServerError, "flat"),
        ({"error": {"message": "m"}}, ServerError, "m"),
        ({"error": "odd"}, ServerError, "odd"),
        ({"error": {"code": 503, "message": "busy"}}, ServerError, "busy"),
        ({"error": {"code": "invalid_prompt", "message": "m"}}, RequestRejected, "m"),
        ({"error": {"code": "invalid_api_key", "message": "m"}}, FatalReply, "refused the key"),
        ({"error": {"code": "model_not_found", "message": "m"}}, FatalReply, "not know the model"),
        ({"error": {"code": "insufficient_quota", "message": "m"}}, FatalReply, "quota"),
        (
            {"status": 400, "error": {"param": "text.format.schema", "message": "m"}},
            FatalReply,
            "refuses the schema",
        ),
        (
            {
                "status": 400,
                "error": {
                    "type": "invalid_request_error",
                    "code": "websocket_connection_limit_reached",
                    "message": "60 minutes",
                },
            },
            ServerError,
            "60 minutes",
        ),
    ],
)
def test_an_error_frame_means_what_its_status_or_code_means_over_http(
    frame: dict[str, Any], kind: type[BatchError], words: str
) -> None:
    error = frame_error({"type": "error", **frame})
    assert type(error) is kind
    assert words in str(error)


@pytest.mark.parametrize(
    "frame",
    [
        {"status": 429, "headers": {"Retry-After": 3}, "error": {"message": "m"}},
        {"status": 429, "error": {"message": "m", "retry_after": 3}},
        {"status": 429, "retry_after": 3, "error": {"message": "m"}},
    ],
)
def test_an_error_frame_says_how_long_to_wait(frame: dict[str, Any]) -> None:
    error = frame_error(frame)
    assert isinstance(error, ProviderError)
    assert error.retry_after == 3


def test_a_message_over_the_limit_fails_its_row_and_names_the_limit() -> None:
    async def main(server: ScriptedServer) -> None:
        async with _client(server.base_url, message=4096) as (send, _):
            assert await send("a" * 1500) == "a" * 1500
            with pytest.raises(InvalidResponse, match="larger than 4096 bytes"):
                await send("a" * 5000)
            assert await send("b") == "b"

    with ScriptedServer(upgrade=101) as server:
        asyncio.run(main(server))
    assert server.sockets == [2, 1]


def test_a_message_of_some_megabytes_is_taken() -> None:
    with ScriptedServer(upgrade=101) as server:
        assert _ask(server, "a" * (5 << 20)) == ["a" * (5 << 20)]


def test_a_ping_is_answered_while_a_socket_waits() -> None:
    async def main(server: ScriptedServer) -> None:
        async with _transport(server.base_url) as (send, _):
            await send("a")
            await asyncio.to_thread(wait_until, lambda: server.pongs == 1)
            await send("b")

    with ScriptedServer(_first(Answer(fault="ping")), upgrade=101) as server:
        asyncio.run(main(server))
    assert server.sockets == [2]


def test_a_socket_that_the_server_closed_while_it_waited_is_not_used() -> None:
    async def main(server: ScriptedServer) -> None:
        async with _client(server.base_url) as (send, client):
            await send("a")
            await client._idle[0].connection.wait_closed()
            assert await send("b") == "b"

    with ScriptedServer(_first(Answer(fault="end")), upgrade=101) as server:
        asyncio.run(main(server))
    assert server.sockets == [1, 1]


def test_a_socket_that_is_too_old_is_not_used() -> None:
    async def main(server: ScriptedServer) -> None:
        async with _client(server.base_url, age=-1) as (send, _):
            assert [await send("a"), await send("b"), await send("c")] == ["a", "b", "c"]

    with ScriptedServer(upgrade=101) as server:
        asyncio.run(main(server))
    assert server.sockets == [1, 1, 1]


def test_a_socket_whose_request_was_cancelled_is_not_used() -> None:
    async def main(server: ScriptedServer) -> None:
        async with _transport(server.base_url) as (send, _):
            task = asyncio.ensure_future(send("a"))
            await asyncio.to_thread(wait_until, lambda: server.requests == 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await send("b") == "b"

    with ScriptedServer(_first(Answer(fault="hang")), upgrade=101) as server:
        asyncio.run(main(server))
    assert server.sockets == [1, 1]


def _end(name: str, text: str) -> dict[str, Any]:
    whole = completion({"input": text, "model": "m"}, Answer()) | {"id": name}
    return {"type": "response.completed", "response": whole}


def _created(name: str) -> dict[str, Any]:
    return {"type": "response.created", "response": {"id": name}}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((_created("1"), _end("1", "a"), _end("1", "a")), (_created("2"), _end("2", "b"))),
        ((_created("1"), _end("1", "a")), (_created("2"), _end("1", "a"))),
    ],
    ids=["early", "late"],
)
def test_the_end_of_another_answer_is_never_taken_for_this_one(
    first: tuple[Any, ...], second: tuple[Any, ...]
) -> None:
    turns = [Answer(events=first), Answer(events=second), Answer()]
    with ScriptedServer(lambda number, body: turns[number - 1], upgrade=101) as server:
        said = _ask(server, "a", "b", "c")
    assert said[0] == "a"
    assert isinstance(said[1], ConnectionLost)
    assert said[2] == "c"


@pytest.mark.parametrize("names", ["1122", "1234", "1111"])
def test_names_that_a_gateway_changes_or_repeats_are_no_fault(names: str) -> None:
    def script(number: int, body: dict[str, Any]) -> Answer:
        begin, end = names[2 * number - 2 : 2 * number]
        return Answer(events=(_created(begin), _end(end, body["input"])))

    with ScriptedServer(script, upgrade=101) as server:
        assert _ask(server, "a", "b") == ["a", "b"]
    assert server.sockets == [2]


def test_answers_that_are_not_announced_are_taken() -> None:
    whole = completion({"input": "a", "model": "m"}, Answer())
    bare = Answer(events=({"type": "response.completed", "response": whole},))
    with ScriptedServer(lambda number, body: bare, upgrade=101) as server:
        assert _ask(server, "a", "a") == ["a", "a"]
    assert server.sockets == [2]


@pytest.mark.parametrize(
    ("bad", "times", "words"),
    [
        (Answer(fault="hang"), (0.3, 60.0), "no whole answer"),
        (Answer(events=(CREATED, DELTA), fault="stall"), (60.0, 0.3), "no piece of the answer"),
    ],
    ids=["total", "stall"],
)
def test_a_silent_socket_times_out(bad: Answer, times: tuple[float, float], words: str) -> None:
    with ScriptedServer(_first(bad), upgrade=101) as server:
        error, second = _ask(server, "a", "b", times=times)
    assert isinstance(error, TimedOut)
    assert words in str(error)
    assert second == "b"


@pytest.mark.parametrize(
    "bad",
    [
        Answer(status=400, body=error_body(f"got {KEY}")),
        Answer(status=401, body=error_body(f"got {KEY}")),
        Answer(body=f"got {KEY}".encode()),
        Answer(body=json.dumps([KEY]).encode()),
        Answer(events=({"type": "response.completed", "response": KEY},)),
        Answer(text=f"got {KEY}"),
    ],
    ids=["400", "401", "html", "list", "shapeless", "answer"],
)
def test_a_key_that_a_server_sends_back_is_in_no_error_and_no_answer(bad: Answer) -> None:
    with ScriptedServer(_first(bad), upgrade=101) as server:
        (said,) = _ask(server, "a")
    assert KEY not in str(said)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, FatalReply, "refused the key"),
        (403, FatalReply, "refused the key"),
        (400, FatalReply, "offers no WebSocket"),
        (404, FatalReply, "offers no WebSocket"),
        (405, FatalReply, "offers no WebSocket"),
        (426, FatalReply, "offers no WebSocket"),
        (302, FatalReply, "offers no WebSocket"),
        (200, FatalReply, "offers no WebSocket"),
        (501, FatalReply, "offers no WebSocket"),
        (429, RateLimited, "429"),
        (503, ServerError, "503"),
        (0, ConnectionLost, "handshake failed"),
    ],
)
def test_a_refused_handshake_has_a_name_where_only_a_socket_will_do(
    status: int, kind: type[BatchError], words: str
) -> None:
    with ScriptedServer(upgrade=status) as server:
        (error,) = _ask(server, "a")
    assert type(error) is kind
    assert words in str(error)
    assert KEY not in str(error)
    assert ("transport=http" in str(error)) == (kind is FatalReply and status != 401)
    assert (server.posts, len(server.handshakes)) == (0, 1)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 426, 302, 200, 429, 503, 0])
def test_auto_uses_http_for_good_where_a_handshake_is_refused(status: int) -> None:
    async def main(server: ScriptedServer) -> None:
        prompts = [str(number) for number in range(8)]
        async with _transport(server.base_url, "responses.m") as (send, _):
            assert await asyncio.gather(*map(send, prompts)) == prompts
            assert await asyncio.gather(*map(send, prompts)) == prompts

    with ScriptedServer(upgrade=status) as server:
        asyncio.run(main(server))
    assert (server.posts, len(server.handshakes)) == (16, 1)
    assert "stream" not in server.bodies[0]


def test_auto_uses_sockets_where_the_server_offers_them() -> None:
    async def main(server: ScriptedServer) -> None:
        prompts = [str(number) for number in range(8)]
        async with _transport(server.base_url, "responses.m?transport=auto") as (send, _):
            assert await asyncio.gather(*map(send, prompts)) == prompts

    with ScriptedServer(upgrade=101, delay=0.01) as server:
        asyncio.run(main(server))
    assert server.posts == 0
    assert sum(server.sockets) == 8


def test_auto_ends_the_run_where_a_handshake_says_that_the_key_is_wrong() -> None:
    with ScriptedServer(upgrade=401) as server:
        (error,) = _ask(server, "a", model="responses.m")
    assert isinstance(error, FatalReply)
    assert server.posts == 0


def test_auto_takes_a_server_that_is_not_there_for_that_and_tries_sockets_again() -> None:
    with ScriptedServer(upgrade=101) as server:
        base_url = server.base_url

    async def main() -> None:
        async with _transport(base_url, "responses.m") as (send, transport):
            said = await asyncio.gather(*map(send, "abc"), return_exceptions=True)
            assert [type(error) for error in said] == [ConnectionLost] * 3
            assert isinstance(transport, AutoTransport)
            assert not transport._refused

    asyncio.run(main())


def test_auto_leaves_sockets_that_open_and_carry_nothing() -> None:
    with ScriptedServer(_first(Answer(fault="drop")), upgrade=101) as server:
        error, second = _ask(server, "a", "b", model="responses.m")
    assert isinstance(error, ConnectionLost)
    assert second == "b"
    assert (server.posts, server.sockets) == (1, [1])


def test_auto_keeps_to_sockets_that_have_carried_something() -> None:
    bad = Answer(events=(CREATED, DELTA), fault="cut")
    with ScriptedServer(_first(bad), upgrade=101) as server:
        error, second = _ask(server, "a", "b", model="responses.m")
    assert isinstance(error, ConnectionLost)
    assert second == "b"
    assert (server.posts, server.sockets) == (0, [1, 1])


def test_auto_waits_as_long_within_an_answer_as_http_would() -> None:
    bad = Answer(events=(CREATED,), fault="stall")
    with ScriptedServer(_first(bad), upgrade=101) as server:
        (error,) = _ask(server, "a", model="responses.m", times=(0.4, 0.1))
    assert isinstance(error, TimedOut)
    assert "0.4 s" in str(error)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("responses.m", AutoTransport),
        ("responses.m?transport=auto", AutoTransport),
        ("responses.m?transport=http", HttpTransport),
        ("responses.m?transport=sse", HttpTransport),
        ("responses.m?transport=websocket", WebSocketTransport),
        ("xai.grok", AutoTransport),
        ("openresponses.m", HttpTransport),
        ("openresponses.m?transport=websocket", WebSocketTransport),
        ("openai.m", HttpTransport),
        ("claude-x?transport=auto", HttpTransport),
        ("echo", EchoTransport),
    ],
)
def test_the_model_string_says_how_requests_travel(model: str, kind: type[Transport]) -> None:
    async def main() -> None:
        spec = resolve_model(model, {})
        transport = make_transport(spec, make_provider(spec, None), {}, LONG)
        assert type(transport) is kind
        await transport.close()

    asyncio.run(main())


def test_sockets_go_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def main() -> None:
        proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "")
        async with proxy, _transport("http://provider.test/v1") as (send, _):
            with pytest.raises(ConnectionLost):
                await send("a")

    asyncio.run(main())
    assert asked == [b"CONNECT provider.test:80 HTTP/1.1\r\n"]


@pytest.mark.parametrize("known", [True, False])
def test_sockets_to_https_are_encrypted_and_the_certificate_is_checked(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    (authority if known else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    server = ScriptedServer(upgrade=101)
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server.tls)
    with server:
        said = _ask(server, "a", "b")
    if known:
        assert said == ["a", "b"]
        assert server.sockets == [2]
    else:
        assert [type(error) for error in said] == [ConnectionLost] * 2
        assert server.requests == 0
