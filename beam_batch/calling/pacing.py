"""How fast a provider lets itself be asked: pure arithmetic on times in seconds.

Four small things, each with one question to answer, put together by `gate.Gate`: how many
requests may be in flight (`Limit`), how many requests or tokens may start a second (`Bucket`),
which rate the provider's refusals leave (`Pace`), and whether it is there at all (`Breaker`).
"""

from __future__ import annotations

import math
from collections import deque

CUT, SOON_CUT, NEAR, GROWTH = 0.85, 0.5, 0.95, 0.01
"""What a refusal leaves of the rate, and what one soon after another leaves; the share of the
refused rate up to which it comes back quickly; the share by which it grows a second from there.
"""
SLOWEST = 0.5
"""Requests a second, however much is refused."""
PROBE_EVERY = 60.0
"""Seconds after which a window that has stopped growing tries a larger size again."""
LEAST_GAIN = 0.2
"""Share of the speed that a larger window could bring at best, which it has to bring to be kept."""
OUTAGE_FAILURES, OUTAGE_ROWS = 20, 5
"""Failures in a row, of so many different rows at least, that make an outage."""
FIRST_PROBE, LONGEST_PROBE = 1.0, 60.0


class Limit:
    """How many requests may be in flight.

    Larger sizes are tried out: doubled at first, and kept as long as they bring more answers a
    second; where they don't, the provider only queues what it is sent. A refusal cuts the size.
    It grows only while it is what holds requests back.
    """

    def __init__(self, size: int, most: int) -> None:
        self._size = float(min(size, most))
        self._most = most
        self._refused_at = -math.inf
        self._base, self._speed = self._size, 0.0
        self._factor = 2.0
        self._hold_until = -math.inf
        self._count, self._saturated, self._began = 0, 0, 0.0
        self._start_round(self.size)

    @property
    def size(self) -> int:
        """Requests that may be in flight, at least 1."""
        return max(1, int(self._size))

    def answered(self, now: float, saturated: bool) -> None:
        """Count an answer; `saturated` says that the window was full meanwhile."""
        self._count += 1
        self._saturated += saturated
        if self._count <= 0:  # answers to requests of before the size was changed
            self._began, self._saturated = now, 0
        elif self._count >= (self.size + 1) // 2 and now > self._began:
            self._end_round(now)

    def refused(self, now: float, sent_at: float) -> None:
        """Cut, once for all requests that were on their way already."""
        if sent_at > self._refused_at:
            self._size = max(1.0, self._size * 0.8)
            self._base, self._speed = self._size, 0.0
            self._refused_at = now
            self._start_round(self.size)

    def resize(self, most: int, factor: float) -> None:
        """Go on with another part of the whole."""
        self._most = max(1, most)
        self._size = max(1.0, min(self._most, self._size * factor))
        self._base, self._speed = self._size, 0.0
        self._start_round(self.size)

    def _end_round(self, now: float) -> None:
        """Keep a size that paid, and try the next; go back where it did not."""
        speed, before = self._count / (now - self._began), self.size
        was_full = self._saturated >= 0.8 * self._count
        needed = self._speed * (1 + (self._factor - 1) * LEAST_GAIN)
        if self._size > self._base and was_full and speed < needed:
            self._size = self._base
            self._factor, self._hold_until = 1.25, now + PROBE_EVERY
        elif was_full or self._size <= self._base:
            self._base, self._speed = self._size, speed
            if was_full and now >= self._hold_until:
                self._size = min(self._most, self._size * self._factor)
        self._start_round(before)

    def _start_round(self, before: int) -> None:
        """Pass over as many answers as were in flight, then measure."""
        self._count, self._saturated, self._began = -before, 0, 0.0


class Bucket:
    """A token bucket that may go into debt: what is taken is only known afterwards.

    `rate` is in units a second; `depth` units may be taken at once after a pause.
    """

    def __init__(self, rate: float, depth: float, now: float) -> None:
        self.rate = rate
        self._depth = depth
        self._level = depth
        self._at = now

    @classmethod
    def a_minute(cls, units: float | None, now: float, is_full: bool) -> Bucket | None:
        """Make one that never lets much more than its share of a minute through at once.

        Who takes over a part from others begins with an empty one: they may have used it up.
        """
        if units is None:
            return None
        rate = units / 60
        bucket = cls(rate, max(1.0, rate / 4), now)
        if not is_full:
            bucket.take(max(1.0, rate / 4))
        return bucket

    def wait(self, now: float, units: float = 1.0) -> float:
        """Return seconds until so many units, or a full bucket, can be taken; 0.0 for now."""
        self._fill(now)
        lacking = min(units, self._depth) - self._level
        return max(0.0, lacking / self.rate) if lacking > 1e-9 else 0.0

    def take(self, units: float) -> None:
        """Take units; call `wait` first."""
        self._level -= units

    def give(self, units: float) -> None:
        """Give units back (negative: take more)."""
        self._level = min(self._depth, self._level + units)

    def set(self, rate: float, depth: float, level: float, now: float) -> None:
        """Take over what the provider says of its own bucket."""
        self._fill(now)
        self.rate, self._depth = rate, depth
        self._level = min(self._level, level)

    def rescale(self, factor: float, now: float) -> None:
        """Go on with another part of the whole; what has come together is not given twice."""
        self._fill(now)
        self.rate *= factor
        self._depth = max(1.0, self._depth * factor)
        self._level = min(self._level, self._depth)

    def _fill(self, now: float) -> None:
        self._level = min(self._depth, self._level + (now - self._at) * self.rate)
        self._at = now


class Pace:
    """The rate that refusals leave: unlimited until the first, then just below what was refused.

    After a refusal the rate comes back quickly to a little below the refused one, then grows
    slowly, and faster the longer nothing is refused. A provider's own bucket evens out what is a
    little too much and a little too little, so the mean comes to its limit.
    """

    def __init__(self) -> None:
        self._bucket: Bucket | None = None
        self._starts: deque[float] = deque(maxlen=4000)
        self._refusals: deque[float] = deque(maxlen=4000)
        self._top = math.inf
        self._grown_at = 0.0
        self._cut_at = -math.inf
        self._resumed_at = -math.inf
        self._holds = False

    @property
    def rate(self) -> float | None:
        """Requests a second, or None while nothing limits them."""
        return self._bucket.rate if self._bucket is not None else None

    def wait(self, now: float) -> float:
        """Return seconds until a request may start; grows the rate meanwhile."""
        if self._bucket is None:
            return 0.0
        self._grow(now)
        wait = self._bucket.wait(now)
        self._holds = self._holds or wait > 0
        return wait

    def take(self, now: float) -> None:
        """Start a request."""
        self._starts.append(now)
        if self._bucket is not None:
            self._bucket.take(1.0)

    def paused(self, until: float) -> None:
        """Note that nothing is sent until then: the time before says nothing of the rate."""
        self._resumed_at = until

    def refused(self, now: float, sent_at: float, latency: float) -> None:
        """Cut the rate, once for all requests that were on their way already."""
        self._refusals.append(sent_at)
        if sent_at <= self._cut_at:
            return
        measured = self._measured(now, max(1.0, latency))
        if self._bucket is None:
            self._top = measured or SLOWEST
            rate = self._top / 2
        else:
            self._top = min(self._bucket.rate, measured or math.inf)
            soon = now - max(self._cut_at, self._resumed_at) < 1.0
            rate = self._top * (SOON_CUT if soon else CUT)
        self._bucket = Bucket(max(SLOWEST, rate), 1.0, now)
        self._bucket.take(1.0)
        self._cut_at = self._grown_at = now

    def rescale(self, factor: float, now: float) -> None:
        """Go on with another part of the whole."""
        if self._bucket is not None:
            self._bucket.rescale(factor, now)
            self._bucket.rate = max(SLOWEST, self._bucket.rate)
            self._top *= factor
            self._grown_at = self._resumed_at = now

    def _measured(self, now: float, span: float) -> float | None:
        """Return how many requests a second were started and not refused of late."""
        since = max(now - span, self._resumed_at, self._starts[0] if self._starts else now)
        if self._bucket is not None and now - since < span / 2:
            return None
        taken = sum(at >= since for at in self._starts) - sum(at >= since for at in self._refusals)
        return max(1, taken) / max(0.02, now - since)

    def _grow(self, now: float) -> None:
        assert self._bucket is not None
        passed = min(1.0, now - self._grown_at)
        if passed < 0.05:
            return
        self._grown_at = now
        if not self._holds:  # something else is slower, so nothing is learnt of this limit
            return
        self._holds = False
        rate = self._bucket.rate
        near = self._top * NEAR
        if rate < near:
            rate += (near * 1.01 - rate) * min(1.0, passed / 2)
        else:
            rate *= 1 + passed * GROWTH * 2 ** min(5.0, (now - self._cut_at) / 3)
        self._bucket.set(rate, max(1.0, rate / 20), math.inf, now)


class Breaker:
    """Tells an outage of the provider from rows that fail: pauses all but one probe at a time."""

    def __init__(self) -> None:
        self._failures = 0
        self._rows: set[int] = set()
        self._since: float | None = None
        self._wait = FIRST_PROBE
        self._probe_at = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether the provider is taken to be down."""
        return self._since is not None

    def lasted(self, now: float) -> float:
        """Return for how many seconds the outage has lasted; 0.0 where there is none."""
        return now - self._since if self._since is not None else 0.0

    def wait(self, now: float) -> float:
        """Return seconds until a request may start; infinity while a probe is on its way."""
        if self._since is None:
            return 0.0
        return math.inf if self._probing else max(0.0, self._probe_at - now)

    def take(self) -> bool:
        """Start a request; return whether it is the probe of an outage."""
        self._probing = self._since is not None
        return self._probing

    def answered(self) -> None:
        """Note any sign of life, a refusal too."""
        self._failures = 0
        self._rows.clear()
        self._since = None
        self._probing = False
        self._wait = FIRST_PROBE

    def failed(self, now: float, row: int, is_probe: bool) -> None:
        """Note a request that the provider did not answer, and which row it was for."""
        self._failures += 1
        if len(self._rows) < OUTAGE_ROWS:
            self._rows.add(row)
        if self._since is not None:
            if is_probe:
                self._probing = False
                self._wait = min(LONGEST_PROBE, self._wait * 2)
                self._probe_at = now + self._wait
        elif self._failures >= OUTAGE_FAILURES and len(self._rows) >= OUTAGE_ROWS:
            self._since = now
            self._probe_at = now + self._wait

    def dropped(self, is_probe: bool) -> None:
        """Note that a request ended without telling anything (it was cancelled)."""
        self._probing = self._probing and not is_probe
