"""From one prompt to one outcome, whoever works on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from beam_batch.calling.caller import Caller
from beam_batch.calling.trail import Trail
from beam_batch.errors import RowError, TimedOut
from beam_batch.outputs import envelope
from beam_batch.records import Failure, Outcome, Prompt


class Worker(Protocol):
    """What answers a row: models in turn, or agents.

    Attributes:
        callers: all models that it asks, each once.
        lists_calls: whether telemetry lists its model calls one by one.
    """

    callers: Sequence[Caller]
    lists_calls: bool

    async def work(self, prompt: Prompt, trail: Trail) -> Any:
        """Return the result of a row.

        Raises:
            RowError: the row has none.
            FatalReply: no row of this run can have one.
            Dropped: the run stopped first.
        """

    async def close(self) -> None:
        """Close what it holds open."""


class Answerer:
    """Turns prompts into outcomes."""

    def __init__(
        self, worker: Worker, *, include_input: bool, deadline: float | None = None
    ) -> None:
        self._worker = worker
        self._include_input = include_input
        self._deadline = deadline

    async def answer(self, prompt: Prompt) -> Outcome:
        """Answer one prompt; whatever is wrong with the row becomes its outcome.

        Nothing is waited for after the last answer has left the gate, so that the caller can
        record the outcome before the next request is sent.

        Raises:
            FatalReply: the provider refuses every request of this run.
            Dropped: the run stopped first.
        """
        number = prompt.row.number or id(prompt)
        trail = Trail(number, lists_calls=self._worker.lists_calls)
        try:
            if self._deadline is None:
                result = await self._worker.work(prompt, trail)
            else:
                result = await self._in_time(prompt, trail, self._deadline)
            return envelope.succeed(prompt.row, result, trail.as_notes(), self._include_input)
        except RowError as error:
            failure = Failure.of(error)
            return envelope.fail(prompt.row, failure, trail.as_notes(), self._include_input)

    async def _in_time(self, prompt: Prompt, trail: Trail, seconds: float) -> Any:
        """Work on a row within the time allowed from its first request on."""
        try:
            async with asyncio.timeout(None) as timeout:
                trail.on_first_sent = lambda: timeout.reschedule(
                    asyncio.get_running_loop().time() + seconds
                )
                return await self._worker.work(prompt, trail)
        except TimeoutError:
            raise TimedOut(f"--row-deadline: no answer within {seconds:g} s") from None

    @property
    def in_flight(self) -> int:
        """Requests in flight."""
        return sum(caller.gate.in_flight for caller in self._worker.callers)

    def stop(self, error: BaseException | None = None) -> None:
        """Send nothing more; who waits gets the error, or is Dropped."""
        for caller in self._worker.callers:
            caller.gate.stop(error)

    async def close(self) -> None:
        """Close what the worker holds open."""
        await self._worker.close()
