"""From one prompt to one outcome: ask, judge, repair, ask again, ask another model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from beam_batch.calling.caller import Caller
from beam_batch.calling.gate import Dropped
from beam_batch.calling.judging import judge
from beam_batch.calling.trail import Trail
from beam_batch.errors import RowError, StructuredOutputError, TimedOut
from beam_batch.outputs import envelope
from beam_batch.providers.base import Correction
from beam_batch.records import Failure, Outcome, Prompt


class Answerer:
    """Answers prompts through one model, and what still fails through the next."""

    def __init__(
        self,
        callers: Sequence[Caller],
        *,
        instruction: str,
        include_input: bool,
        reask: int = 0,
        deadline: float | None = None,
    ) -> None:
        self._callers = callers
        self._instruction = instruction
        self._include_input = include_input
        self._reask = reask
        self._deadline = deadline

    async def answer(self, prompt: Prompt) -> Outcome:
        """Answer one prompt; whatever is wrong with the row becomes its outcome.

        Nothing is waited for after the last answer has left the gate, so that the caller can
        record the outcome before the next request is sent.

        Raises:
            FatalReply: the provider refuses every request of this run.
            Dropped: the run stopped first.
        """
        trail = Trail()
        try:
            if self._deadline is None:
                result = await self._climb(prompt, trail)
            else:
                result = await self._climb_in_time(prompt, trail, self._deadline)
            return envelope.succeed(prompt.row, result, trail.as_notes(), self._include_input)
        except RowError as error:
            failure = Failure.of(error)
            return envelope.fail(prompt.row, failure, trail.as_notes(), self._include_input)

    async def _climb_in_time(self, prompt: Prompt, trail: Trail, seconds: float) -> Any:
        """Climb the ladder within the time allowed from the first request on."""
        try:
            async with asyncio.timeout(None) as timeout:
                trail.on_first_sent = lambda: timeout.reschedule(
                    asyncio.get_running_loop().time() + seconds
                )
                return await self._climb(prompt, trail)
        except TimeoutError:
            raise TimedOut(f"--row-deadline: no answer within {seconds:g} s") from None

    async def _climb(self, prompt: Prompt, trail: Trail) -> Any:
        """Ask each model in turn."""
        failure: RowError | None = None
        for caller in self._callers:
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
        corrections: tuple[Correction, ...] = ()
        failure: StructuredOutputError | None = None
        while True:
            request = caller.to_request(self._instruction, prompt.text, corrections)
            try:
                reply = await caller.ask(prompt, request, trail)
            except Dropped:
                raise failure or Dropped from None  # what was paid is to be recorded
            try:
                judged = judge(caller.validate, reply.text)
            except StructuredOutputError as error:
                failure = error
                await caller.forget(request)
                if trail.drop_source("cache"):  # an earlier run judged by another schema
                    continue
                if len(corrections) >= self._reask:
                    raise
                corrections += (Correction(reply.text, complaint(error)),)
                trail.count("reasks")
                continue
            if judged.was_repaired:
                trail.note("repaired", True)
            return judged.result

    @property
    def in_flight(self) -> int:
        """Requests in flight."""
        return sum(caller.gate.in_flight for caller in self._callers)

    def stop(self, error: BaseException | None = None) -> None:
        """Send nothing more; who waits gets the error, or is Dropped."""
        for caller in self._callers:
            caller.gate.stop(error)

    async def close(self) -> None:
        """Close what the models hold open."""
        await asyncio.gather(*(caller.close() for caller in self._callers), return_exceptions=True)


def complaint(error: StructuredOutputError) -> str:
    """Say to a model what is wrong with its reply."""
    return (
        f"That answer cannot be used: {error!s:.1000}. Answer again with the corrected JSON "
        "only, without a code fence or explanation."
    )
