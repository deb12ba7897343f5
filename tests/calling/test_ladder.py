"""The ladder by itself."""

from __future__ import annotations

import asyncio
from typing import Any

from beam_batch.calling.ladder import Ladder
from beam_batch.calling.trail import Trail
from beam_batch.errors import StructuredOutputError
from beam_batch.providers.base import Reply, Request, Usage
from beam_batch.records import Prompt, Row


class _Cached:
    """A model whose cache has a bad reply, and cannot forget it."""

    model = "m"

    def __init__(self) -> None:
        self.renewed: list[bool] = []

    def validate(self, text: str) -> Any:
        if text == "bad":
            raise StructuredOutputError("it has no n", reply=text)
        return text

    def to_request(self, *_: Any) -> Request:
        return Request("", {}, False)

    async def ask(self, request: Request, trail: Trail, *, renew: bool = False) -> Reply:
        self.renewed.append(renew)
        reply = Reply("good" if renew else "bad", "stop", "m", None, Usage(), None)
        if not renew:
            trail.reused(reply, "cache")
        return reply

    async def forget(self, request: Request) -> None:
        pass


def test_a_cached_reply_that_does_not_fit_is_asked_for_anew_once() -> None:
    caller: Any = _Cached()
    prompt = Prompt(Row(0, 1, 1, {}), "a prompt")
    result = asyncio.run(Ladder([caller], "").work(prompt, Trail(1)))
    assert result == "good"
    assert caller.renewed == [False, True]
