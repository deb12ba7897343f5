"""One model with everything that stands between a request and its answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from beam_batch import jsonio
from beam_batch.calling.budget import Budget
from beam_batch.calling.cache_keys import CacheKeys
from beam_batch.calling.gate import Dropped, Gate, Turn
from beam_batch.calling.pricing import Pricer
from beam_batch.calling.retrying import RetryPolicy
from beam_batch.calling.trail import Trail
from beam_batch.calling.transports.http import Answer, shaped
from beam_batch.calling.transports.making import Transport
from beam_batch.errors import (
    FatalReply,
    InvalidResponse,
    NoCapacity,
    ProviderError,
    ReplyError,
    RowError,
)
from beam_batch.outputs.ledger import Sum
from beam_batch.providers.base import Correction, Provider, Reply, Request, Usage
from beam_batch.records import Content, Prompt
from beam_batch.reuse.once import Once

Waiter = Callable[[float], Awaitable[bool]]
"""Waits some seconds; returns True where the run was stopped meanwhile."""

_UNPAID = frozenset((400, 401, 402, 403, 404, 405, 409, 413, 415, 422, 425, 429, 500, 503, 529))
"""Statuses with which a provider says itself that it has not answered. Others, such as a 504 of
something in between, may hide an answer that was paid.
"""
_BYTES_A_TOKEN = 4.0


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a row is tried: retries, what an outage may last, and the fallback of flex."""

    retries: RetryPolicy
    max_outage: float
    flex_fallback: bool = False


class Caller:
    """Asks one model until it answers, as its gate, budget and retries allow."""

    def __init__(
        self,
        *,
        provider: Provider,
        transport: Transport,
        gate: Gate,
        pricer: Pricer,
        patience: Patience,
        validate: Callable[[str], Any],
        wait: Waiter,
        budget: Budget | None = None,
        cache_keys: CacheKeys | None = None,
        once: Once | None = None,
    ) -> None:
        self.validate = validate
        self._provider = provider
        self._transport = transport
        self.gate = gate
        self._pricer = pricer
        self._patience = patience
        self._wait = wait
        self._budget = budget
        self._cache_keys = cache_keys
        self._once = once
        self._output_tokens = 256.0

    def to_request(
        self, instruction: str, prompt: Content, corrections: Sequence[Correction]
    ) -> Request:
        """Build a request for this model."""
        request = self._provider.to_request(instruction, prompt, corrections)
        if self._cache_keys is not None:
            request.body["prompt_cache_key"] = self._cache_keys.next()
        return request

    async def ask(self, prompt: Prompt, request: Request, trail: Trail) -> Reply:
        """Return the reply to a request, sent until it is answered or given up, or used again.

        Raises:
            RowError: given up, or the answer is not complete.
            FatalReply: the provider refuses every request of this run, or is down for too long.
            Dropped: the run stopped first.
        """
        if self._once is None:
            return await self._attempts(prompt, request, trail)
        found = await self._once.reply(
            self._once.key(request), lambda: self._attempts(prompt, request, trail)
        )
        if found.source is not None:
            trail.reused(found.reply, found.source)
        return found.reply

    async def forget(self, request: Request) -> None:
        """Use the reply to a request no further: it does not satisfy the schema."""
        if self._once is not None:
            await self._once.forget(self._once.key(request))

    async def _attempts(self, prompt: Prompt, request: Request, trail: Trail) -> Reply:
        counted = 0
        while True:
            try:
                return await self._send(prompt, request, trail)
            except ProviderError as error:
                trail.failed(error)
                if error.retryable:
                    self._end_outage(error)
                    if self.gate.in_outage:
                        continue
                counted += 1
                delay = self._patience.retries.delay(counted, error, random.random)
                if isinstance(error, NoCapacity) and self._patience.flex_fallback:
                    request = request._replace(body=request.body | {"service_tier": "default"})
                    trail.count("flex_fallbacks")
                    delay = 0.0 if counted == 1 else delay
                if delay is None:
                    raise
                if delay and await self._wait(delay):
                    raise Dropped from None

    def _end_outage(self, error: ProviderError) -> None:
        """Raise where the outage has lasted too long."""
        if self.gate.outage_seconds > self._patience.max_outage:
            raise FatalReply(
                f"the provider has answered nothing for {self.gate.outage_seconds:.0f} s ({error})"
            ) from None

    async def _send(self, prompt: Prompt, request: Request, trail: Trail) -> Reply:
        """Send a request once, and account for it."""
        number = prompt.row.number or id(prompt)
        worst = None
        if self._budget is not None:
            worst = await self._budget.reserve(request, _images(prompt.text))
        try:
            turn = await self.gate.enter(number, self._expected(request))
        except BaseException:
            if self._budget is not None and worst is not None:
                self._budget.release(worst)
            raise
        trail.sent()
        error: BaseException | None = None
        answer: Answer | None = None
        usage: Usage | None = None
        usd: float | None = None
        try:
            answer = await self._transport.send(request)
            trail.answered(answer)
            reply: Reply = shaped("the body", self._provider.to_reply, answer.body)
            usage, usd = self._account(reply, request, trail)
            return reply
        except BaseException as raised:
            error = raised
            if answer is not None and isinstance(raised, RowError):
                usage, usd = self._account(raised, request, trail)
            if usage is None and _may_be_paid(raised):
                trail.count("requests_of_unknown_cost")
            raise
        finally:
            self._leave(turn, error, answer, usage)
            if self._budget is not None and worst is not None:
                _settle(self._budget, worst, error, usage, usd)

    def _account(
        self, reply: Reply | RowError, request: Request, trail: Trail
    ) -> tuple[Usage | None, float | None]:
        """Note what an answer says of itself, and what it has cost at the tier that it names.

        Where it names none, it is the one that was asked for.
        """
        usage = trail.said(reply)
        if usage is None:
            return None, None
        tier = getattr(reply, "service_tier", None) or request.body.get("service_tier")
        cost = self._pricer.cost(usage, getattr(reply, "model", None), tier)
        trail.paid(cost and cost.usd, cost.saved if cost else 0.0)
        return usage, cost and cost.usd

    def _expected(self, request: Request) -> float:
        """Estimate the tokens of a request, where somebody needs to know."""
        if not self.gate.counts_tokens:
            return 0.0
        return len(jsonio.dumps(request.body)) / _BYTES_A_TOKEN + self._output_tokens

    def _leave(
        self, turn: Turn, error: BaseException | None, answer: Answer | None, usage: Usage | None
    ) -> None:
        if isinstance(error, (ReplyError, InvalidResponse)):  # it was answered, whatever it said
            error = None
        headers = answer.headers if answer is not None else getattr(error, "headers", None)
        tokens = usage.total if usage is not None else None
        if usage is not None and usage.output_tokens is not None:
            self._output_tokens += (usage.output_tokens - self._output_tokens) / 16
        self.gate.leave(turn, error, headers, tokens)

    async def close(self) -> None:
        """Close what is open."""
        await self._transport.close()
        if self._once is not None:
            await self._once.close()
        if self._budget is not None:
            self._budget.close()


def _settle(
    budget: Budget, worst: Sum, error: BaseException | None, usage: Usage | None, usd: float | None
) -> None:
    """Settle a request; one that ended without a word may have been paid in full."""
    if usage is None and error is not None and not _may_be_paid(error):
        budget.release(worst)
    else:
        budget.settle(worst, usage, usd)


def _may_be_paid(error: BaseException) -> bool:
    """Whether a request that ended so may have been answered, and paid, all the same."""
    return not isinstance(error, FatalReply) and getattr(error, "status", None) not in _UNPAID


def _images(prompt: Content) -> int:
    return 0 if isinstance(prompt, str) else sum(not isinstance(part, str) for part in prompt)


async def sleep_unless(stopping: asyncio.Event, seconds: float) -> bool:
    """Wait some seconds; return True at once when the event is set."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return False
    return True
