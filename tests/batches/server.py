"""Providers with Batch APIs whose fates are scripted, and which keep account of all they are sent.

Shapes: platform.openai.com/docs/api-reference/batch and platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.fakes import Answer, LoopbackServer, completion, prompt_of


@dataclass(frozen=True)
class Fate:
    """What becomes of one batch.

    Attributes:
        status: how it ends: completed, expired, cancelled or failed.
        share: the part of its requests that is answered, from the front.
        looks: how often it is asked for before it has ended.
        problems: why it failed.
        answer: what a prompt is answered with.
    """

    status: str = "completed"
    share: float = 1.0
    looks: int = 2
    problems: tuple[dict[str, Any], ...] = ()
    answer: Callable[[str], Answer] = lambda prompt: Answer()


@dataclass
class Work:
    """One batch at the server."""

    id: str
    items: list[dict[str, Any]]
    fate: Fate
    metadata: Any
    created: float
    looks: int = 0
    cancelled: bool = False
    files: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        if self.cancelled:
            return "cancelled"
        if self.looks > self.fate.looks:
            return self.fate.status
        return "in_progress" if self.looks else "validating"

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "expired", "cancelled", "failed")

    def split(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the items that are answered, and the others."""
        done = 0 if self.status == "failed" else round(len(self.items) * self.fate.share)
        return self.items[:done], self.items[done:]


class BatchServer(LoopbackServer):
    """An account with files and batches; use as a context manager.

    Attributes:
        kill_at: "create", "poll" or "download": where `victim` is killed, once; a create has been
            taken by then, a download is half sent.
        works: the batches that were created.
        answered: how often each prompt was answered, in a batch or online.
        online: prompts that came as requests of their own.
        calls: how often each route was asked.
        cuts: how many downloads are still to be cut, after their first line.
        hold_after: requests online that are answered; later ones wait until it grows.
    """

    route = ("*", "/v1/{path:.*}")

    def __init__(self, fates: Callable[[int], Fate] = lambda number: Fate()) -> None:
        super().__init__()
        self._fates = fates
        self.cuts = 0
        self.hold_after = 1_000_000
        self.kill_at = ""
        self.victim: subprocess.Popen[str] | None = None
        self.works: list[Work] = []
        self.answered: Counter[str] = Counter()
        self.online: list[str] = []
        self.calls: Counter[str] = Counter()
        self.refuse: Callable[[str, int], web.Response | None] = lambda call, number: None
        self._files: dict[str, bytes] = {}

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def creates(self) -> int:
        return len(self.works)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if "Upgrade" in request.headers:  # there are no sockets here
            return web.Response(status=426)
        path = request.match_info["path"].split("/")
        call = self._name(request.method, path)
        self.calls[call] += 1
        refused = self.refuse(call, self.calls[call])
        if refused is not None:
            await request.read()
            return refused
        return await self._serve(call, path, request)

    def _name(self, method: str, path: list[str]) -> str:
        known = {
            ("POST", "files", 1): "upload",
            ("GET", "files", 3): "download",
            ("POST", "batches", 1): "create",
            ("GET", "batches", 1): "list",
            ("GET", "batches", 2): "poll",
            ("POST", "batches", 3): "cancel",
        }
        return known.get((method, path[0], len(path)), "online")

    async def _serve(self, call: str, path: list[str], request: web.Request) -> web.StreamResponse:
        if call == "upload":
            return await self._upload(request)
        if call == "download":
            return await self._download(request, self._files[path[1]])
        if call == "create":
            body = await request.json()
            lines = self._files[body["input_file_id"]].splitlines()
            work = self._take([json.loads(line) for line in lines], body.get("metadata"))
            await self._kill("create", request)
            return web.json_response(self._show(work))
        if call == "list":
            return self._page(request)
        if call == "online":
            return await self._answer_online(request)
        work = next(work for work in self.works if work.id == path[1])
        return await self._look(call, work, request)

    async def _look(self, call: str, work: Work, request: web.Request) -> web.Response:
        if call == "cancel":
            work.cancelled = not work.ended or work.cancelled
        else:
            work.looks += 1
            await self._kill("poll", request)
        if work.ended and not work.files:
            self._finish(work)
        return web.json_response(self._show(work))

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        content = form["file"].file.read()  # type: ignore[union-attr]
        name = self._keep(content)
        return web.json_response({"id": name, "object": "file", "bytes": len(content)})

    async def _download(self, request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        if self.cuts:
            self.cuts -= 1
            await response.write(content[: content.index(b"\n") + 1])
            assert request.transport is not None
            request.transport.close()  # a clean end: only the length tells
            return response
        if self.kill_at == "download":
            await response.write(content[: len(content) // 2])
            await self._kill("download", request)
        await response.write(content)
        return response

    async def _answer_online(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.online.append(prompt_of(body))
        while len(self.online) > self.hold_after:
            await asyncio.sleep(0.01)
        self.answered[prompt_of(body)] += 1
        return web.json_response(completion(body, Answer()))

    def _take(self, items: list[dict[str, Any]], metadata: Any = None) -> Work:
        assert len({item["custom_id"] for item in items}) == len(items)
        name = f"batch_{len(self.works) + 1}"
        work = Work(name, items, self._fates(len(self.works) + 1), metadata, time.time())
        self.works.append(work)
        return work

    async def _kill(self, where: str, request: web.Request) -> None:
        if self.kill_at != where:
            return
        self.kill_at = ""
        while self.victim is None:
            await asyncio.sleep(0.01)
        os.kill(self.victim.pid, signal.SIGKILL)
        self.victim.wait(60)
        assert request.transport is not None
        request.transport.abort()

    def _keep(self, content: bytes) -> str:
        name = f"file-{len(self._files) + 1}"
        self._files[name] = content
        return name

    def _finish(self, work: Work) -> None:
        done, others = work.split()
        good, bad = [], []
        for item in done:
            prompt = prompt_of(item["body"])
            answer = work.fate.answer(prompt)
            body = (
                completion(item["body"], answer) if answer.body is None else json.loads(answer.body)
            )
            self.answered[prompt] += answer.status == 200
            response = {"status_code": answer.status, "request_id": "req-1", "body": body}
            line = {"id": "r", "custom_id": item["custom_id"], "response": response, "error": None}
            (good if answer.status == 200 else bad).append(line)
        for item in others if work.status in ("expired", "cancelled") else ():
            error = {"code": f"batch_{work.status}", "message": "not executed"}
            bad.append({"custom_id": item["custom_id"], "response": None, "error": error})
        good.reverse()  # the order of results is not that of the requests
        for name, lines in (("output", good), ("error", bad)):
            if lines:
                work.files[name] = self._keep(
                    b"".join(json.dumps(x).encode() + b"\n" for x in lines)
                )

    def _show(self, work: Work) -> dict[str, Any]:
        done = len(work.split()[0]) if work.ended else 0
        shown = {
            "id": work.id,
            "object": "batch",
            "status": work.status,
            "metadata": work.metadata,
            "created_at": int(work.created),
            "request_counts": {"total": len(work.items), "completed": done, "failed": 0},
            "output_file_id": work.files.get("output"),
            "error_file_id": work.files.get("error"),
        }
        if work.ended:
            shown[f"{work.status}_at"] = int(work.created) + 60
        if work.status == "failed":
            shown["errors"] = {"object": "list", "data": list(work.fate.problems)}
        return shown

    def _page(self, request: web.Request) -> web.Response:
        newest = list(reversed(self.works))
        after = request.query.get("after")
        start = next((i + 1 for i, work in enumerate(newest) if work.id == after), 0)
        page = newest[start : start + 1]  # small pages, so that more than one is needed
        data = [self._show(work) for work in page]
        return web.json_response({"data": data, "has_more": start + 1 < len(newest)})


class AnthropicServer(BatchServer):
    """The same for Anthropic, whose batches carry their requests and no metadata."""

    def _name(self, method: str, path: list[str]) -> str:
        known = {
            ("POST", 2): "create",
            ("GET", 2): "list",
            ("GET", 3): "poll",
            ("POST", 4): "cancel",
            ("GET", 4): "download",
        }
        return known.get((method, len(path)), "online")

    async def _serve(self, call: str, path: list[str], request: web.Request) -> web.StreamResponse:
        if call == "create":
            work = self._take((await request.json())["requests"])
            await self._kill("create", request)
            return web.json_response(self._show(work))
        if call == "list":
            return self._page(request)
        work = next(work for work in self.works if work.id == path[2])
        if call == "download":
            return await self._download(request, self._files[work.files["output"]])
        return await self._look(call, work, request)

    def _finish(self, work: Work) -> None:
        done, others = work.split()
        lines = []
        for item in done:
            prompt = item["params"]["messages"][-1]["content"]
            answer = work.fate.answer(prompt)
            if answer.status != 200:
                kind = {400: "invalid_request_error", 500: "api_error"}[answer.status]
                error = {"type": "error", "error": {"type": kind, "message": "no"}}
                result: dict[str, Any] = {"type": "errored", "error": error}
            else:
                self.answered[prompt] += 1
                message = {
                    "id": "msg_1",
                    "type": "message",
                    "model": item["params"]["model"],
                    "content": [{"type": "text", "text": prompt}],
                    "stop_reason": "end_turn",
                    "usage": {"input_tokens": 5, "output_tokens": 3, "service_tier": "batch"},
                }
                result = {"type": "succeeded", "message": message}
            lines.append({"custom_id": item["custom_id"], "result": result})
        kind = "canceled" if work.cancelled else "expired"
        lines += [{"custom_id": item["custom_id"], "result": {"type": kind}} for item in others]
        content = b"".join(json.dumps(line).encode() + b"\n" for line in reversed(lines))
        work.files["output"] = self._keep(content)

    def _show(self, work: Work) -> dict[str, Any]:
        done = len(work.split()[0]) if work.ended else 0
        rest = len(work.items) - done
        return {
            "id": work.id,
            "type": "message_batch",
            "processing_status": "ended" if work.ended else "in_progress",
            "created_at": _rfc3339(work.created),
            "ended_at": _rfc3339(work.created + 60) if work.ended else None,
            "cancel_initiated_at": _rfc3339(work.created + 1) if work.cancelled else None,
            "request_counts": {
                "processing": 0 if work.ended else rest,
                "succeeded": done,
                "errored": 0,
                "canceled": rest if work.cancelled else 0,
                "expired": rest if work.ended and not work.cancelled else 0,
            },
            "results_url": "https://elsewhere.invalid/" if work.ended else None,
        }


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
