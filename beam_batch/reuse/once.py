"""Each request once: among the tasks of an event loop, the processes of a run, and all runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

from beam_batch.errors import RowCostReached, RowError
from beam_batch.providers.base import Reply, Request
from beam_batch.reuse.claims import Claims
from beam_batch.reuse.kept import KeptReply, ReplyStore
from beam_batch.reuse.keys import Keys
from beam_batch.reuse.threads import Threads

Source = Literal["duplicate", "cache"]
"""Where a reply is from that was not sent for: the same request of this run, or --cache."""
FLUSH_SECONDS = 0.02
FLUSH_REPLIES = 256
"""What is written at once: of 8, each costs a fifth more."""
LONGEST_UNKEPT = 0.1
"""Seconds that a reply is not written where no other process waits for it."""
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.2
"""Seconds between looks for what another process is waiting for; they double."""


class Found(NamedTuple):
    """A reply, and where it is from; None where it was sent for now."""

    reply: Reply
    source: Source | None


class OnceSpec(NamedTuple):
    """What `Once` works with.

    Attributes:
        asked: provider and model, as they are kept with a reply.
        own: the replies of this run, or None. A local cache does as well, so it needs none.
        claims: what keeps worker processes from sending the same request, or None.
        cache: the replies of all runs, or None.
        dedupe: whether identical requests of this run are sent once.
        started: when the run started, in seconds since 1970. What a cache has from later is this
            run's own: a duplicate, and not served at all without `dedupe`.
        max_age: seconds after which a reply of an earlier run is not served, or None.
    """

    keys: Keys
    asked: str
    own: ReplyStore | None
    claims: Claims | None
    cache: ReplyStore | None
    dedupe: bool
    started: float
    max_age: float | None


class Once:
    """Gives the reply to a request, sending it only where there is none yet.

    For the tasks of one event loop. Replies reach other processes within 20 ms, and are written
    within 100 ms where there is none; what is not written is lost where the process is killed.
    """

    def __init__(self, spec: OnceSpec, clock: Callable[[], float] = time.time) -> None:
        self._spec = spec
        self._clock = clock
        cache = spec.cache
        self._far = Threads(cache) if cache is not None and cache.remote else None
        self._near = cache if cache is not None and self._far is None else spec.own
        # A key in flight has a future where somebody waits for it.
        self._flights: dict[bytes, asyncio.Future[Found | RowError | None] | None] = {}
        self._unflushed: set[bytes] = set()
        self._timer: asyncio.TimerHandle | None = None

    def key(self, request: Request) -> bytes:
        """Return the key of a request."""
        return self._spec.keys.of(request)

    async def reply(
        self, key: bytes, ask: Callable[[], Awaitable[Reply]], *, renew: bool = False
    ) -> Found:
        """Return the reply to a request, and where it is from.

        Args:
            ask: sends the request; called at most once, and at any later time: it must look itself
                whether the run was stopped. It raises where the reply is not good: a RowError is
                shared with all who wait for the same reply, after anything else one asks next.
            renew: whether what is kept is no good, and is to be replaced.
        """
        if not self._spec.dedupe:
            return await self._lead(key, ask, renew)
        while key in self._flights:
            flight = self._flights[key]
            if flight is None:
                flight = self._flights[key] = asyncio.get_running_loop().create_future()
            ended = await asyncio.shield(flight)
            if isinstance(ended, RowError):
                raise ended
            if ended is not None:
                return Found(ended.reply, ended.source or "duplicate")
        self._flights[key] = None
        ending: Found | RowError | None = None
        try:
            ending = found = await self._lead(key, ask, renew)
            return found
        except RowCostReached:  # a cap of this row alone: others may ask
            raise
        except RowError as error:
            ending = error
            raise
        finally:
            flight = self._flights.pop(key)
            if flight is not None:
                flight.set_result(ending)

    async def forget(self, key: bytes) -> None:
        """Serve the reply of a key to nobody any more: it turned out not to be good."""
        if self._near is not None:
            self._near.forget(key)
        if self._far is not None:
            await self._far.forget(key)

    async def close(self) -> None:
        """Write what is to be kept, and close the stores; nothing may be in flight."""
        self._flush(last=True)
        if self._near is not None:
            self._near.close()
        if self._far is not None:
            await self._far.close()
        if self._spec.claims is not None:
            self._spec.claims.close()

    async def _lead(self, key: bytes, ask: Callable[[], Awaitable[Reply]], renew: bool) -> Found:
        if self._spec.claims is None and self._far is None:  # what most rows go through
            found = None if renew else self._here(key)
            if found is None:
                found = Found(await ask(), None)
                self._keep_near(key, KeptReply(found.reply, self._spec.asked, self._clock()))
            return found
        found = await self._claim(key, renew)
        if found is not None:
            return found
        try:
            found = None if renew else await self._find(key)
            if found is None:
                found = Found(await ask(), None)
                await self._keep(key, found.reply)
            return found
        finally:
            if self._spec.claims is not None and key not in self._unflushed:
                self._spec.claims.free(key)

    async def _claim(self, key: bytes, renew: bool) -> Found | None:
        """Claim a key, or return what who has it got meanwhile: a process, or this one just now."""
        claims = self._spec.claims
        pause = FIRST_PAUSE
        while claims is not None and not claims.take(key):
            if not renew and (found := self._here(key)) is not None:
                return found
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return None

    async def _find(self, key: bytes) -> Found | None:
        found = self._here(key)
        if found is None and self._far is not None:
            kept = await self._far.get(key)
            return self._served(kept) if kept is not None else None
        return found

    def _here(self, key: bytes) -> Found | None:
        """Return what the store on this machine has to serve."""
        kept = self._near.get(key) if self._near is not None else None
        if kept is None:
            return None
        if self._near is self._spec.own:
            return Found(kept.reply, "duplicate")
        return self._served(kept)

    def _served(self, kept: KeptReply) -> Found | None:
        """Return a reply of the cache, unless it is too old or was to be a sample of its own."""
        spec = self._spec
        if kept.made >= spec.started:
            return Found(kept.reply, "duplicate") if spec.dedupe else None
        if spec.max_age is not None and kept.made < self._clock() - spec.max_age:
            return None
        return Found(kept.reply, "cache")

    async def _keep(self, key: bytes, reply: Reply) -> None:
        """Keep a reply; its claim goes when it is flushed."""
        kept = KeptReply(reply, self._spec.asked, self._clock())
        self._keep_near(key, kept)
        if self._far is not None:
            await self._far.put(key, kept)

    def _keep_near(self, key: bytes, kept: KeptReply) -> None:
        if self._near is None:
            return
        self._near.put(key, kept)
        self._unflushed.add(key)
        if len(self._unflushed) >= FLUSH_REPLIES:
            self._flush()
        elif self._timer is None:
            wait = FLUSH_SECONDS if self._spec.claims is not None else LONGEST_UNKEPT
            self._timer = asyncio.get_running_loop().call_later(wait, self._flush)

    def _flush(self, last: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._near is not None and not self._near.flush() and not last:
            # Others keep it busy. Its claims stay: who asked for the same would be told nothing.
            self._timer = asyncio.get_running_loop().call_later(LONGEST_UNKEPT, self._flush)
            return
        if self._spec.claims is not None:
            for key in self._unflushed:
                self._spec.claims.free(key)
        self._unflushed.clear()
