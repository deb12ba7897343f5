"""A row without agents: ask a model, judge, repair, ask again, ask another model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from beam_batch.calling.caller import Caller
from beam_batch.calling.gate import Dropped
from beam_batch.calling.judging import complaint, judge
from beam_batch.calling.trail import Trail
from beam_batch.errors import RowError, StructuredOutputError
from beam_batch.outputs.trace_files import WORKER
from beam_batch.providers.base import Turn
from beam_batch.records import Prompt


class Ladder:
    """Answers prompts through one model, and what still fails through the next."""

    lists_calls = False
    secrets: tuple[str, ...] = ()

    def __init__(self, callers: Sequence[Caller], instruction: str, reask: int = 0) -> None:
        self.callers = callers
        self._instruction = instruction
        self._reask = reask

    async def work(self, prompt: Prompt, trail: Trail) -> Any:
        """Ask each model in turn."""
        failure: RowError | None = None
        for caller in self.callers:
            if failure is not None:
                trail.note("fallback_after", type(failure).__name__)
            try:
                return await self._ask(caller, prompt, trail)
            except RowError as error:
                failure = error
            except Dropped:
                raise failure or Dropped from None  # what was paid is to be recorded
        assert failure is not None
        raise failure

    async def _ask(self, caller: Caller, prompt: Prompt, trail: Trail) -> Any:
        """Ask one model, again with what was wrong as often as is allowed."""
        history: tuple[Turn, ...] = ()
        trail.talk.begins(WORKER, caller.model, self._instruction, prompt.text)
        failure: StructuredOutputError | None = None
        renew = False
        while True:
            request = caller.to_request(self._instruction, prompt.text, history)
            try:
                reply = await caller.ask(request, trail, renew=renew)
            except Dropped:
                raise failure or Dropped from None  # what was paid is to be recorded
            try:
                judged = judge(caller.validate, reply.text)
            except StructuredOutputError as error:
                failure = error
                renew = trail.drop_source("cache")  # judged by another schema, in another run
                await caller.forget(request)
                if renew:
                    continue
                if len(history) >= self._reask:
                    raise
                history += (Turn(reply, message=complaint(error)),)
                trail.talk.told(WORKER, history[-1].message)
                trail.count("reasks")
                continue
            if judged.was_repaired:
                trail.note("repaired", True)
            return judged.result

    async def close(self) -> None:
        """Close what the models hold open."""
        await asyncio.gather(*(caller.close() for caller in self.callers), return_exceptions=True)
