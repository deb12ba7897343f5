"""From one prompt to one outcome: request, attempts, reply, validation, telemetry."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from beam_batch.calling.http import Answer, HttpClient, shaped
from beam_batch.calling.retrying import RetryPolicy
from beam_batch.errors import ProviderError, RowError
from beam_batch.outputs import envelope
from beam_batch.providers.base import Provider, Reply, Request
from beam_batch.records import Failure, Outcome, Prompt


class Dropped(Exception):
    """The run stopped while the row waited for its next attempt; it has no outcome."""


Waiter = Callable[[float], Awaitable[bool]]
"""Waits some seconds; returns True where the run was stopped meanwhile."""


class Answerer:
    """Answers prompts through one provider."""

    def __init__(
        self,
        *,
        provider: Provider,
        client: HttpClient | None,
        policy: RetryPolicy,
        instruction: str,
        validate: Callable[[str], Any],
        include_input: bool,
    ) -> None:
        self._provider = provider
        self._client = client
        self._policy = policy
        self._instruction = instruction
        self._validate = validate
        self._include_input = include_input

    async def answer(self, prompt: Prompt, wait: Waiter) -> Outcome:
        """Answer one prompt; whatever is wrong with the row becomes its outcome.

        Raises:
            FatalReply: the provider refuses every request of this run.
            Dropped: the run stopped first.
        """
        notes: dict[str, Any] = {"attempts": 0}
        started = time.monotonic()
        try:
            request = self._provider.to_request(self._instruction, prompt.text)
            reply = await self._attempts(request, notes, wait)
            _note_time(notes, started)
            _note_reply(notes, reply)
            result = self._validate(reply.text)
            return envelope.succeed(prompt.row, result, notes, self._include_input)
        except RowError as error:
            _note_time(notes, started)
            _note_reply(notes, error)
            return envelope.fail(prompt.row, Failure.of(error), notes, self._include_input)

    async def _attempts(self, request: Request, notes: dict[str, Any], wait: Waiter) -> Reply:
        while True:
            notes["attempts"] += 1
            try:
                return await self._once(request, notes)
            except ProviderError as error:
                delay = self._policy.delay(notes["attempts"], error, random.random)
                if delay is None:
                    notes["status"] = error.status
                    raise
                if await wait(delay):
                    raise Dropped from None

    async def _once(self, request: Request, notes: dict[str, Any]) -> Reply:
        notes["answer"] = None
        if self._client is None:
            await asyncio.sleep(getattr(self._provider, "delay", 0.0))
            notes["answer"] = Answer(self._provider.answer(request), None, None)
        else:
            notes["answer"] = await self._client.post(self._provider, request)
        reply: Reply = shaped("the body", self._provider.to_reply, notes["answer"].body)
        return reply


def _note_time(notes: dict[str, Any], started: float) -> None:
    """Note times in milliseconds, to a tenth, and what the last answer's head said."""
    answer: Answer | None = notes.pop("answer", None)
    if "timing" in notes:  # the answer was whole, and failed its check afterwards
        return
    duration = round((time.monotonic() - started) * 1000, 1)
    notes["timing"] = {"duration_ms": duration}
    if answer is not None:
        if answer.first_text is not None:
            notes["timing"]["ttft_ms"] = round(answer.first_text * 1000, 1)
        notes["timing"]["time_to_response_ms"] = duration
        if answer.request_id is not None:
            notes["request_id"] = answer.request_id


def _note_reply(notes: dict[str, Any], reply: Reply | RowError) -> None:
    """Note what the provider reported, also of an answer that is a failure."""
    usage = getattr(reply, "usage", None)
    if usage is not None and (turn := usage.as_dict()):
        notes["usage"] = {"turn": turn}
    for name in ("model", "finish_reason", "service_tier", "request_id"):
        value = getattr(reply, name, None)
        if value is not None and notes.get(name) is None:
            notes[name] = value
