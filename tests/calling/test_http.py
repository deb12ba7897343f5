"""The client that providers are called with: answers, streams, proxies, keys."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from beam_batch.calling.transports.events import EventParser
from beam_batch.calling.transports.http import HttpClient
from beam_batch.errors import ConnectionLost, InvalidResponse, TimedOut
from beam_batch.options import ModelSpec
from beam_batch.providers.base import Request
from beam_batch.providers.chat import ChatProvider
from tests.calling.raw import CHUNKED, Peer, Script, answering, closing, serving

KEY = "canary4711"


def _ok(body: bytes, fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), fields, body)


async def _post(base_url: str, stream: bool = False, total: float = 30) -> Any:
    client = HttpClient(base_url, {"Authorization": f"Bearer {KEY}"}, KEY, (total, 30))
    provider = ChatProvider(ModelSpec(text="generic.m", provider="generic", model="m"), None)
    try:
        return await client.post(provider, Request("/chat", {"a": 1}, stream))
    finally:
        await client.close()


def _post_to(script: Script, stream: bool = False) -> Any:
    async def main() -> Any:
        async with serving(script) as (_, server):
            return await _post(server.base_url, stream)

    return asyncio.run(main())


def test_an_answer_s_body_and_request_id_come_without_the_key() -> None:
    body = json.dumps({"said": KEY}).encode()
    answer = _post_to(answering(_ok(body, b"X-Request-ID: r-%b\r\n" % KEY.encode())))
    assert answer[:3] == ({"said": "***"}, "r-***", None)


def test_a_key_in_what_is_wrong_with_an_answer_is_not_shown() -> None:
    with pytest.raises(InvalidResponse) as caught:
        _post_to(answering(_ok(b"ok", b"Content-Encoding: %b\r\n" % KEY.encode())))
    assert "content coding: b'***'" in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_goes_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    heads: list[str] = []
    event = b'data: {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}\n\n'
    fields = b"Content-Type: text/event-stream\r\n"

    async def script(peer: Peer) -> None:
        heads.append((await peer.request())[0])
        await peer.send(_ok(event, fields) if stream else _ok(b"{}"))

    async def main() -> Any:
        async with serving(script) as (_, server):
            monkeypatch.setenv("http_proxy", server.base_url.removesuffix("/v1"))
            monkeypatch.setenv("no_proxy", "")
            return await _post("http://provider.invalid/v1", stream)

    answer = asyncio.run(main())
    assert answer.body == {} or answer.body["choices"][0]["message"]["content"] == "hi"
    assert heads[0].startswith("POST http://provider.invalid/v1/chat HTTP/1.1\r\n")
    assert f"Authorization: Bearer {KEY}\r\n" in heads[0]


def test_a_proxy_that_fails_is_a_lost_connection_or_a_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(peer: Peer) -> None:
        await peer.closed()

    async def main(script: Script, total: float) -> None:
        async with serving(script) as (_, server):
            monkeypatch.setenv("http_proxy", server.base_url.removesuffix("/v1"))
            monkeypatch.setenv("no_proxy", "")
            await _post("http://provider.invalid/v1", total=total)

    with pytest.raises(ConnectionLost):
        asyncio.run(main(closing(), 30))
    with pytest.raises(TimedOut):
        asyncio.run(main(silent, 0.05))


def test_a_stream_cut_in_mid_event_is_a_lost_connection() -> None:
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n")
    with pytest.raises(ConnectionLost, match="in the middle of"):
        _post_to(closing(head + b"5\r\ndata:\r\n"), stream=True)


def test_events_are_found_wherever_their_stream_is_cut() -> None:
    stream = b": hi\r\ndata: a\r\ndata:b\r\n\r\nevent: x\ndata: \xc3\xa9\n\ndata: [DONE]\n\ndata: z"
    for at in range(len(stream)):
        parser = EventParser()
        found = parser.feed(stream[:at]) + parser.feed(stream[at:]) + parser.end()
        assert found == [b"a\nb", b"\xc3\xa9", b"z"]
