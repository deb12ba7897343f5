"""A server whose faults are scripted; everything else is tested against real counterparts."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import WSMsgType, web


@dataclass(frozen=True)
class Answer:
    """What the server does with one request.

    Attributes:
        text: the model's text, or None for an echo of the prompt.
        calls: tools that the model wants called, each a name and its arguments.
        body: raw bytes that replace the whole body.
        events: server-sent events, each a dict, or bytes written as they are.
        fault: "" | "drop" (close without an answer) | "hang" (never answer) | "cut" (stop the
            stream after its events) | "stall" (go silent after its events). Over a WebSocket also
            "end" (a closing frame after its events, with `code`), "ping" (a ping after its
            events).
    """

    status: int = 200
    text: str | None = None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    finish_reason: str = "stop"
    events: tuple[Any, ...] = ()
    fault: str = ""
    code: int = 1000
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()


Script = Callable[[int, dict[str, Any]], Answer]


def prompt_of(body: dict[str, Any]) -> str:
    """Return what was said last: the prompt, or what came after it."""
    said = body["messages"] if "messages" in body else body["input"]
    return said if isinstance(said, str) else said[-1].get("content", said[-1].get("output"))


def error_body(message: str, **details: Any) -> bytes:
    return json.dumps({"error": {"message": message, **details}}).encode()


def _chat_calls(answer: Answer) -> dict[str, Any]:
    calls = [
        {
            "id": f"call_{place}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for place, (name, arguments) in enumerate(answer.calls)
    ]
    return {"tool_calls": calls} if calls else {}


def _response_calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "type": "function_call",
            "id": f"fc_{place}",
            "call_id": f"call_{place}",
            "name": name,
            "arguments": json.dumps(arguments),
        }
        for place, (name, arguments) in enumerate(answer.calls)
    ]


def completion(body: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """Write an answer in the format that the request asked in."""
    text = prompt_of(body) if answer.text is None else answer.text
    tokens = len(text.split())
    if "messages" in body:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": f"{body['model']}-served",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, **_chat_calls(answer)},
                    "finish_reason": "tool_calls" if answer.calls else answer.finish_reason,
                }
            ],
            "usage": {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": tokens + 5},
        }
    done = answer.finish_reason == "stop"
    return {
        "id": "resp-1",
        "object": "response",
        "model": f"{body['model']}-served",
        "status": "completed" if done else "incomplete",
        "incomplete_details": None if done else {"reason": answer.finish_reason},
        "output": [
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": text}],
            },
            *_response_calls(answer),
        ],
        "usage": {"input_tokens": 5, "output_tokens": tokens, "total_tokens": tokens + 5},
    }


def socket_events(body: dict[str, Any], answer: Answer, number: int) -> list[Any]:
    """Write an answer as the messages that come through a WebSocket."""
    if answer.events:
        return list(answer.events)
    if answer.status != 200:
        said = json.loads(answer.body or b"{}").get("error", {})
        return [{"type": "error", "status": answer.status, "error": said} | answer.headers]
    if answer.body is not None:
        return [answer.body]
    name = f"resp-{number}"
    whole = completion(body, answer) | {"id": name}
    end = "response.completed" if whole["status"] == "completed" else "response.incomplete"
    text = whole["output"][0]["content"][0]["text"]
    return [
        {"type": "response.created", "response": {"id": name}},
        {"type": "response.output_text.delta", "delta": text},
        {"type": end, "response": whole},
    ]


class LoopbackServer:
    """Serves on the loopback address, in a thread of its own; use as a context manager.

    Attributes:
        url: where, without a trailing slash; '' until it serves.
        tls: makes it serve https, where it is set before it starts.
    """

    route = ("*", "/{path:.*}")
    tls: ssl.SSLContext | None = None

    def __init__(self) -> None:
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route(*self.route, self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.url = (
            f"http{'s' if self.tls else ''}://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        )
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError


class ScriptedServer(LoopbackServer):
    """Answers on the loopback address, in a thread of its own; use as a context manager.

    The script gets the number of the request (from 1) and its body. Everything that was asked is
    kept in `bodies` and `headers`; `most_in_flight` is the largest number of open requests.
    A WebSocket handshake is no request: it is counted in `handshakes`, and gets the answer
    `upgrade`. Where that is 101, each message through the socket is a request like the others.
    """

    route = ("*", "/v1/{path:.*}")

    def __init__(
        self,
        script: Script | None = None,
        delay: float = 0,
        upgrade: int = 426,
    ) -> None:
        super().__init__()
        self._script = script or (lambda number, body: Answer())
        self._delay = delay
        self._upgrade = upgrade
        self.handshakes: list[dict[str, str]] = []
        self.sockets: list[int] = []
        self.pongs = 0
        self.posts = 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = 0
        self.most_in_flight = 0

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def requests(self) -> int:
        return len(self.bodies)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            return await self._handshake(request)
        if request.method != "POST":
            return web.Response(status=405)
        self.posts += 1
        body = await request.json()
        async with self._taken(request, body) as number:
            return await self._answer(request, body, self._script(number, body))

    @asynccontextmanager
    async def _taken(self, request: web.Request, body: dict[str, Any]) -> AsyncIterator[int]:
        """Take note of a request; yields its number, after the delay that every request has."""
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        number = len(self.bodies)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._delay)
            yield number
        finally:
            self.in_flight -= 1

    async def _handshake(self, request: web.Request) -> web.StreamResponse:
        self.handshakes.append(dict(request.headers))
        assert request.transport is not None
        if self._upgrade == 0:
            request.transport.abort()
        if self._upgrade != 101:
            key = request.headers.get("Authorization", "").removeprefix("Bearer ")
            headers = {"Location": f"{self.url}/elsewhere"} if self._upgrade // 100 == 3 else {}
            body = error_body(f"no WebSocket for {key}")
            return web.Response(status=self._upgrade, body=body, headers=headers)
        socket = web.WebSocketResponse(max_msg_size=0, compress=False, autoping=False)
        await socket.prepare(request)
        number = len(self.sockets)
        self.sockets.append(0)
        async for message in socket:
            if message.type is WSMsgType.PONG:
                self.pongs += 1
                continue
            self.sockets[number] += 1
            await self._say(request, socket, json.loads(message.data))
        return socket

    async def _say(
        self, request: web.Request, socket: web.WebSocketResponse, body: dict[str, Any]
    ) -> None:
        assert body.pop("type") == "response.create"
        async with self._taken(request, body) as number:
            answer = self._script(number, body)
            assert request.transport is not None
            if answer.fault == "drop":
                request.transport.abort()
                return
            if answer.fault == "hang":
                await self._end.wait()
            for event in socket_events(body, answer, number):
                await socket.send_str(
                    event.decode() if isinstance(event, bytes) else json.dumps(event)
                )
            if answer.fault == "stall":
                await self._end.wait()
            if answer.fault == "cut":
                await asyncio.sleep(0)
                request.transport.abort()
            if answer.fault == "ping":
                await socket.ping()
            if answer.fault == "end":
                await socket.close(code=answer.code)

    async def _answer(
        self, request: web.Request, body: dict[str, Any], answer: Answer
    ) -> web.StreamResponse:
        if answer.fault == "hang":
            await self._end.wait()
        if answer.fault == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if answer.events:
            return await self._stream(request, answer)
        data = answer.body
        if data is None:
            data = json.dumps(completion(body, answer)).encode()
        headers = {"Content-Type": "application/json", "x-request-id": "req-1"} | answer.headers
        return web.Response(status=answer.status, body=data, headers=headers)

    async def _stream(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in answer.events:
            data = event if isinstance(event, bytes) else json.dumps(event).encode()
            await response.write(b"data: " + data + b"\n\n")
        if answer.fault == "stall":
            await self._end.wait()
        if answer.fault == "cut":
            assert request.transport is not None
            request.transport.abort()
        return response


PRICE = ("--price", "input=100,output=1000")
"""US dollars per million tokens: dear, so that few rows reach a cap."""


class PayingServer(ScriptedServer):
    """Counts what it answered at the price above, also what is lost on the way."""

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(self._pay, **options)
        self._random = random.Random(seed)
        self.paid_tokens = 0
        self.paid_usd = 0.0

    def _pay(self, number: int, body: dict[str, Any]) -> Answer:
        luck = self._random.random()
        if luck < 0.1:
            return Answer(status=self._random.choice([429, 500, 503]))
        words = self._random.randint(1, 40)
        text = " ".join(["word"] * words)
        usage = {"prompt_tokens": self._random.randint(5, 60), "completion_tokens": words}
        usage["total_tokens"] = sum(usage.values())
        self.paid_tokens += usage["total_tokens"]
        self.paid_usd += usage["prompt_tokens"] * 1e-4 + usage["completion_tokens"] * 1e-3
        if luck < 0.15:
            return Answer(fault="drop")
        if luck < 0.2:
            return Answer(body=b"<html>lost on the way</html>")
        whole = completion(body, Answer(text=text)) | {"usage": usage}
        return Answer(body=json.dumps(whole).encode())
