"""The gate: every attempt passes it, so that a worker asks as fast as the provider allows."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from beam_batch.calling.limits import Limits, read_limits
from beam_batch.calling.pacing import LONGEST_PROBE, Breaker, Bucket, Limit, Pace
from beam_batch.errors import (
    ConnectionLost,
    FatalReply,
    NoCapacity,
    RateLimited,
    ServerError,
    TimedOut,
)

AUTO_START, AUTO_MOST = 16, 512
STAGGER = 0.001
"""Seconds between the first requests of a window: sent at once, their answers would come back at
once as well, wait for each other, and go on doing so.
"""
_SHORTEST_NAP = 0.001
SPREAD_FROM, LATE = 0.05, 0.005
"""Seconds of latency from which on requests are spread out in time, and seconds of that spread
that are caught up with at once, since timers ring a little late.
"""


class Dropped(Exception):
    """The run stopped before the request was sent; its row has no outcome."""


@dataclass(frozen=True, kw_only=True)
class GateSpec:
    """One worker's part of the limits of a run.

    Attributes:
        parallel: requests in flight, or None to find the best number, up to `most`.
        rpm, tpm: requests and tokens a minute, or None.
        share: of the run's limits, and of the account's that the provider names. With 0 nothing is
            sent, and the limits are those of the whole.
        until: when, by the gate's clock, the part may be another worker's.
    """

    parallel: int | None
    most: int = AUTO_MOST
    rpm: float | None = None
    tpm: float | None = None
    share: float = 1.0
    until: float = math.inf


class Permit(NamedTuple):
    """A request's leave to be sent: when it got it, for which row, and the tokens expected."""

    sent_at: float
    row: int
    tokens: float
    is_probe: bool = False


class Gate:
    """Lets attempts through one by one; use it inside one event loop.

    The first request goes alone: a refused key or an unknown model costs one request, not a
    window full, and a long prompt prefix is in the provider's cache for the others.
    """

    def __init__(
        self,
        spec: GateSpec,
        clock: Callable[[], float] = time.monotonic,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock = clock
        self._is_stopped = is_stopped
        now = clock()
        self._auto = spec.parallel is None
        self._is_shut = spec.share == 0
        self._until = spec.until
        self._share = spec.share or 1.0
        self._fixed = spec.parallel or 1
        self._limit = Limit(min(AUTO_START, spec.most), spec.most)
        self._pace = Pace()
        self._breaker = Breaker()
        self._rpm = Bucket.a_minute(spec.rpm, now, spec.share == 1)
        self._tpm = Bucket.a_minute(spec.tpm, now, spec.share == 1)
        self._own_limits = spec.rpm is None, spec.tpm is None
        self._paused_until = -math.inf
        self._answered_since_refusal = True
        self._refusals: tuple[float, float] | None = None  # since when, and the last counts until
        self._opened_at: float | None = None
        self._waiting: deque[tuple[asyncio.Future[Permit], int, float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped: BaseException | None = None
        self._full = False
        self._latency = 0.0
        self._next_start = -math.inf
        self.in_flight = 0

    @property
    def counts_tokens(self) -> bool:
        """Whether `enter` needs to know how many tokens a request is expected to cost."""
        return self._tpm is not None

    @property
    def in_outage(self) -> bool:
        """Whether the provider is taken to be down: failures then say nothing of a row."""
        return self._breaker.is_open

    @property
    def outage_seconds(self) -> float:
        """For how long it has been down, or has refused everything."""
        now = self._clock()
        refused = now - self._refusals[0] if self._refusals is not None else 0.0
        return max(self._breaker.lasted(now), refused)

    @property
    def size(self) -> int:
        """Requests that may be in flight now."""
        if self._is_shut or self._clock() >= self._until:
            return 0
        if self._opened_at is None:
            return 1
        if self._auto:
            return self._limit.size
        passed = (self._clock() - self._opened_at) / STAGGER
        return self._fixed if passed >= self._fixed else max(1, int(passed))

    async def enter(self, row: int, tokens: float = 0.0) -> Permit:
        """Wait for leave to send one request.

        Raises:
            Dropped: the run was stopped.
        """
        if self._stopped is None and self._is_stopped():
            self.stop()
        if self._stopped is not None:
            raise self._stopped
        now = self._clock()
        if not self._waiting and self.in_flight < self.size and self._delay(now, tokens) <= 0:
            return self._let_in(now, row, tokens)
        turn: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, row, tokens))
        self._pump()
        try:
            granted = await turn
        except asyncio.CancelledError as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(turn.result(), error)  # let in at the very moment it gave up
            raise
        if self._is_stopped():  # since it was let in: what came back could not be recorded
            self.leave(granted, asyncio.CancelledError())
            raise Dropped
        return granted

    def leave(
        self,
        turn: Permit,
        error: BaseException | None = None,
        headers: Mapping[str, str] | None = None,
        tokens: float | None = None,
    ) -> None:
        """Take note of how a request ended: by an answer, or by an error.

        `tokens` is what it has cost, where the provider says so.
        """
        now = self._clock()
        self.in_flight -= 1
        if isinstance(error, FatalReply):
            return  # nothing more is sent
        if isinstance(error, RateLimited):
            tokens = 0.0
        if self._tpm is not None and tokens is not None:
            self._tpm.give(turn.tokens - tokens)
        if headers:
            self._learn(read_limits(headers), now)
        self._note(turn, error, now)
        self._pump()

    def resize(self, spec: GateSpec) -> None:
        """Take another part of the limits at once; what was learnt of the provider goes with it."""
        self._until = spec.until
        self._is_shut = spec.share == 0
        if spec.share not in (0, self._share):
            now, factor = self._clock(), spec.share / self._share
            self._share = spec.share
            self._fixed = spec.parallel or 1
            self._limit.resize(spec.most, factor)
            self._pace.rescale(factor, now)
            for bucket in filter(None, (self._rpm, self._tpm)):
                bucket.rescale(factor, now)
        if self._waiting:
            self._pump()

    def stop(self, error: BaseException | None = None) -> None:
        """Let nothing through any more; who waits or comes gets the error, or is Dropped."""
        self._stopped = self._stopped or error or Dropped()
        while self._waiting:
            turn, _, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(self._stopped)

    def _note(self, turn: Permit, error: BaseException | None, now: float) -> None:
        if self._opened_at is None and not isinstance(error, asyncio.CancelledError):
            self._opened_at = now
        if isinstance(error, RateLimited):
            self._breaker.answered()
            since, lasts = self._refusals or (now, math.inf)
            lasting = since if now <= lasts else now  # else nobody has asked for long
            self._refusals = lasting, now + (error.retry_after or 0.0) + 2 * LONGEST_PROBE
            if self._auto and not isinstance(error, NoCapacity):
                self._refused(turn, error, now)
        elif isinstance(error, (ServerError, ConnectionLost, TimedOut)):
            self._breaker.failed(now, turn.row, turn.is_probe)
        elif isinstance(error, asyncio.CancelledError):
            self._breaker.dropped(turn.is_probe)
        else:
            self._breaker.answered()
            self._answered_since_refusal = True
            self._refusals = None
            if self._auto:
                self._limit.answered(now, self._full)
                self._full = self._full and self.in_flight + 1 >= self._limit.size
                self._latency += (now - turn.sent_at - self._latency) / 8

    def _refused(self, turn: Permit, error: RateLimited, now: float) -> None:
        if self._full or self._pace.rate is None:
            self._limit.refused(now, turn.sent_at)
        self._pace.refused(now, turn.sent_at, self._latency)
        if error.retry_after and not self._answered_since_refusal:
            self._paused_until = max(self._paused_until, now + error.retry_after)
            self._pace.paused(self._paused_until)
        self._answered_since_refusal = False

    def _learn(self, limits: Limits, now: float) -> None:
        """Follow what the provider says of its limits, where the user said nothing."""
        own_requests, own_tokens = self._own_limits
        if own_requests and limits.requests is not None:
            self._rpm = self._follow(self._rpm, limits.requests, limits.requests_left, now)
        if own_tokens and limits.tokens is not None:
            self._tpm = self._follow(self._tpm, limits.tokens, limits.tokens_left, now)

    def _follow(
        self, bucket: Bucket | None, per_minute: float, left: float | None, now: float
    ) -> Bucket:
        """Follow a provider's bucket, which holds a minute's worth when it is full."""
        per_minute *= self._share
        rate = per_minute / 60
        if bucket is None:
            bucket = Bucket(rate, per_minute if left is not None else max(1.0, rate), now)
        bucket.set(rate, per_minute, math.inf if left is None else left * self._share, now)
        return bucket

    def _delay(self, now: float, tokens: float) -> float:
        """Return seconds until the next request may start, whatever is in flight."""
        delay = max(self._paused_until - now, self._breaker.wait(now))
        if self._auto:
            delay = max(delay, self._pace.wait(now), self._spread(now))
        if self._rpm is not None:
            delay = max(delay, self._rpm.wait(now))
        if self._tpm is not None:
            delay = max(delay, self._tpm.wait(now, tokens))
        return delay

    def _spread(self, now: float) -> float:
        """Return seconds between requests while the window grows: a burst is refused early."""
        if self._latency < SPREAD_FROM or self._pace.rate is not None:
            return 0.0
        return self._next_start - now

    def _let_in(self, now: float, row: int, tokens: float) -> Permit:
        self.in_flight += 1
        is_probe = self._breaker.take()
        if self._auto:
            self._pace.take(now)
            gap = self._latency / self._limit.size / 2
            self._next_start = max(self._next_start, now - LATE) + gap
            self._full = self._full or self.in_flight >= self._limit.size
        if self._rpm is not None:
            self._rpm.take(1.0)
        if self._tpm is not None:
            self._tpm.take(tokens)
        return Permit(now, row, tokens, is_probe)

    def _pump(self) -> None:
        """Let in whom there is room for, and come back when the next may start."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_stopped():
            self.stop()
        while self._waiting:
            turn, row, tokens = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
                continue
            now = self._clock()
            delay = self._delay(now, tokens)
            if self.in_flight >= (size := self.size):
                if not self._auto and self._opened_at is not None and 0 < size < self._fixed:
                    self._sleep(STAGGER)
                return
            if delay > 0:
                self._sleep(delay)
                return
            self._waiting.popleft()
            turn.set_result(self._let_in(now, row, tokens))

    def _sleep(self, seconds: float) -> None:
        if math.isfinite(seconds):  # else the probe that is on its way will wake it
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(seconds, _SHORTEST_NAP), self._pump)
