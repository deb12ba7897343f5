"""One model with everything that stands between a request and its answer."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from beam_batch import jsonio
from beam_batch.calling.budget import Budget, worst_input
from beam_batch.calling.cache_keys import CacheKeys
from beam_batch.calling.gate import Dropped, Gate, Permit
from beam_batch.calling.pricing import Pricer
from beam_batch.calling.retrying import RetryPolicy
from beam_batch.calling.trail import Sent, Trail
from beam_batch.calling.transports.http import Answer, shaped
from beam_batch.calling.transports.making import Transport
from beam_batch.errors import (
    FatalReply,
    InvalidResponse,
    NoCapacity,
    ProviderError,
    ReplyError,
    RowCostReached,
    RowError,
)
from beam_batch.outputs.ledger import Sum
from beam_batch.outputs.trace_files import WORKER
from beam_batch.providers.base import Provider, Reply, Request, Turn, Usage
from beam_batch.records import Content
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


@dataclass(frozen=True, kw_only=True)
class RowCap:
    """What one row may cost at most, in USD, and what bounds an answer."""

    usd: float
    max_output: int

    def check(self, trail: Trail, worst: float) -> None:
        """Raise where the next request could pass the cap."""
        spent = trail.usd + trail.set_aside + trail.maybe_paid
        if spent + worst > self.usd:
            raise RowCostReached(
                f"--row-max-cost {self.usd:g}: {spent:.6f} USD are spent, and the next model call "
                f"may cost {worst:.6f}"
            )


class Caller:
    """Asks one model until it answers, as its gate, budget and retries allow.

    Attributes:
        validate: turns a reply's text into a result.
        model: its name, with the provider's.
        agent: for whom it asks, or None.
        budget: what sets the worst case of its requests aside, or None.
    """

    def __init__(
        self,
        *,
        model: str,
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
        row_cap: RowCap | None = None,
    ) -> None:
        self.validate = validate
        self.model = model
        self.agent: str | None = None
        self.provider = provider
        self._transport = transport
        self.gate = gate
        self._pricer = pricer
        self._patience = patience
        self._wait = wait
        self.budget = budget
        self._cache_keys = cache_keys
        self._once = once
        self._row_cap = row_cap
        self._output_tokens = 256.0

    def asking_for(
        self,
        agent: str,
        provider: Provider,
        validate: Callable[[str], Any],
        cache_keys: CacheKeys | None,
    ) -> Caller:
        """Return a caller of the same model for an agent: same gate, budget, connections."""
        other = copy.copy(self)
        other.agent, other.provider, other.validate = agent, provider, validate
        other._cache_keys = cache_keys
        return other

    def to_request(
        self, instruction: str, prompt: Content, history: Sequence[Turn] = ()
    ) -> Request:
        """Build a request for this model."""
        request = self.provider.to_request(instruction, prompt, history)
        if self._cache_keys is not None:
            request.body["prompt_cache_key"] = self._cache_keys.next()
        return request

    async def ask(
        self, request: Request, trail: Trail, *, fresh: bool = False, renew: bool = False
    ) -> Reply:
        """Return the reply to a request, sent until it is answered or given up, or used again.

        Args:
            fresh: whether it is to be a sample of its own, not one that is there already.
            renew: whether the one that is there already is no good.

        Raises:
            RowError: given up, or the answer is not complete.
            FatalReply: the provider refuses every request of this run, or is down for too long.
            Dropped: the run stopped first.
        """
        if self._once is None or fresh:
            return await self._attempts(request, trail)
        found = await self._once.reply(
            self._once.key(request), lambda: self._attempts(request, trail), renew=renew
        )
        if found.source is not None:
            trail.talk.replied(self.agent or WORKER, found.reply, paid=False)
            trail.reused(found.reply, found.source)
        return found.reply

    async def forget(self, request: Request) -> None:
        """Use the reply to a request no further: it does not satisfy the schema."""
        if self._once is not None:
            await self._once.forget(self._once.key(request))

    async def _attempts(self, request: Request, trail: Trail) -> Reply:
        counted = 0
        while True:
            try:
                return await self._send(request, trail)
            except ProviderError as error:
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

    async def _send(self, request: Request, trail: Trail) -> Reply:
        """Send a request once, within what its row may cost."""
        if self._row_cap is None:
            return await self._send_counted(request, trail)
        worst = self._pricer.worst(worst_input(request), self._row_cap.max_output) or 0.0
        self._row_cap.check(trail, worst)
        trail.set_aside += worst
        try:
            return await self._send_counted(request, trail)
        except BaseException as error:
            if _may_be_paid(error) and getattr(error, "usage", None) is None:
                trail.maybe_paid += worst
            raise
        finally:
            trail.set_aside -= worst

    async def _send_counted(self, request: Request, trail: Trail) -> Reply:
        """Send a request once, and account for it."""
        worst = await self.budget.reserve(request) if self.budget is not None else None
        try:
            turn = await self.gate.enter(trail.number, self._expected(request))
        except BaseException:
            if self.budget is not None and worst is not None:
                self.budget.release(worst)
            raise
        sent = trail.sent(self.agent)
        error: BaseException | None = None
        usage: Usage | None = None
        usd: float | None = None
        try:
            answer = await self._transport.send(request)
            sent.answered(answer)
            reply: Reply = shaped("the body", self.provider.to_reply, answer.body)
            usage, usd = self._account(reply, request, trail, sent)
            return reply
        except BaseException as raised:
            error = raised
            if sent.answer is not None and isinstance(raised, RowError):
                usage, usd = self._account(raised, request, trail, sent)
            if usage is None and _may_be_paid(raised):
                trail.count("requests_of_unknown_cost")
            if isinstance(raised, ProviderError):
                trail.failed(raised, sent)
            raise
        finally:
            sent.end()
            self._leave(turn, error, sent.answer, usage)
            if self.budget is not None and worst is not None:
                _settle(self.budget, worst, error, usage, usd)

    def _account(
        self, reply: Reply | RowError, request: Request, trail: Trail, sent: Sent
    ) -> tuple[Usage | None, float | None]:
        """Note what an answer says of itself, and what it has cost at the tier that it names.

        Where it names none, it is the one that was asked for.
        """
        trail.talk.replied(self.agent or WORKER, reply)
        usage = trail.said(sent, reply)
        if usage is None:
            return None, None
        tier = getattr(reply, "service_tier", None) or request.body.get("service_tier")
        cost = self._pricer.cost(usage, getattr(reply, "model", None), tier)
        trail.paid(sent, cost and cost.usd, cost.saved if cost else 0.0)
        return usage, cost and cost.usd

    def _expected(self, request: Request) -> float:
        """Estimate the tokens of a request, where somebody needs to know."""
        if not self.gate.counts_tokens:
            return 0.0
        return len(jsonio.dumps(request.body)) / _BYTES_A_TOKEN + self._output_tokens

    def _leave(
        self, turn: Permit, error: BaseException | None, answer: Answer | None, usage: Usage | None
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
        if self.budget is not None:
            await asyncio.to_thread(self.budget.close)


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
    if isinstance(error, FatalReply) or getattr(error, "unsent", False):
        return False
    return getattr(error, "status", None) not in _UNPAID


async def sleep_unless(stopping: asyncio.Event, seconds: float) -> bool:
    """Wait some seconds; return True at once when the event is set."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return False
    return True
