"""From one prompt to one outcome, whoever works on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from beam_batch.calling.budget import Budget
from beam_batch.calling.caller import Caller
from beam_batch.calling.gate import Gate, GateSpec
from beam_batch.calling.trail import Trail
from beam_batch.errors import RowError, TimedOut
from beam_batch.outputs import envelope
from beam_batch.outputs.spent import SpentLog
from beam_batch.outputs.traces import trace_of
from beam_batch.records import Failure, Outcome, Prompt


class Worker(Protocol):
    """What answers a row: models in turn, or agents."""

    @property
    def callers(self) -> Sequence[Caller]:
        """All models that it asks, each once."""

    @property
    def lists_calls(self) -> bool:
        """Whether telemetry lists its model calls one by one."""

    @property
    def secrets(self) -> Sequence[str]:
        """What no trace may hold, beside the keys of models."""

    async def work(self, prompt: Prompt, trail: Trail) -> Any:
        """Return the result of a row.

        Raises:
            RowError: the row has none.
            FatalReply: no row of this run can have one.
            Dropped: the run stopped first.
        """

    async def close(self) -> None:
        """Close what it holds open."""


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What is kept of a row beside its result.

    Attributes:
        clean: takes out of a text what no trace may hold.
        run_id: names the run in traces, None where there are none.
        spent: takes note of what each model call has cost, where rows make several.
    """

    include_input: bool
    clean: Callable[[str], str]
    run_id: str | None = None
    spent: SpentLog | None = None


class Answerer:
    """Turns prompts into outcomes."""

    def __init__(self, worker: Worker, keeping: Keeping, deadline: float | None = None) -> None:
        self._worker = worker
        self._keeping = keeping
        self._deadline = deadline

    async def answer(self, prompt: Prompt) -> Outcome:
        """Answer one prompt; whatever is wrong with the row becomes its outcome.

        Nothing is waited for after the last answer has left the gate, so that the caller can
        record the outcome before the next request is sent.

        Raises:
            FatalReply: the provider refuses every request of this run.
            Dropped: the run stopped first.
        """
        trail = self._new_trail(prompt)
        try:
            if self._deadline is None:
                result = await self._worker.work(prompt, trail)
            else:
                result = await self._in_time(prompt, trail, self._deadline)
            notes = trail.as_notes()
            outcome = envelope.succeed(prompt.row, result, notes, self._keeping.include_input)
        except RowError as error:
            failure, notes = Failure.of(error), trail.as_notes()
            outcome = envelope.fail(prompt.row, failure, notes, self._keeping.include_input)
        if self._keeping.run_id is None:
            return outcome
        trace = trace_of(
            self._keeping.run_id, outcome, trail.talk.events, clean=self._keeping.clean
        )
        return outcome._replace(trace=trace)

    def _new_trail(self, prompt: Prompt) -> Trail:
        lists_calls, number = self._worker.lists_calls, prompt.row.number
        traced = self._keeping.run_id is not None
        trail = Trail(number or id(prompt), lists_calls=lists_calls, traced=traced)
        spent = self._keeping.spent
        if spent is not None and lists_calls and number is not None:
            spent.begin(number)
            trail.on_paid = lambda usage, usd: spent.paid(
                number, usd, usage.as_dict() if usage is not None else {}
            )
        return trail

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
    def _gates(self) -> set[Gate]:
        """All gates, once each: models that differ in options share one."""
        return {caller.gate for caller in self._worker.callers}

    @property
    def in_flight(self) -> int:
        """Requests in flight."""
        return sum(gate.in_flight for gate in self._gates)

    @property
    def most_in_flight(self) -> int:
        """Requests in flight to the model that has most of them: limits hold for each."""
        return max((gate.in_flight for gate in self._gates), default=0)

    @property
    def budgets(self) -> list[Budget]:
        """What sets money aside, each once."""
        budgets = (caller.budget for caller in self._worker.callers)
        return list({budget for budget in budgets if budget is not None})

    def resize(self, limits: GateSpec) -> None:
        """Take another part of the limits."""
        for gate in self._gates:
            gate.resize(limits)

    def stop(self, error: BaseException | None = None) -> None:
        """Send nothing more; who waits gets the error, or is Dropped."""
        for gate in self._gates:
            gate.stop(error)

    async def close(self) -> None:
        """Close what the worker holds open."""
        await self._worker.close()
