"""What a bundle's outcomes add up to, for Beam's metrics."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from beam_batch.records import Outcome


class Totals(NamedTuple):
    """What was counted since the last look.

    Attributes:
        counts: by name. `retries` are requests that failed and were followed by another, ten a row
            at most; `cost_micro_usd` is in millionths of a US dollar.
        latencies: milliseconds of each row, from its first request to its answer.
        tokens: input and output tokens of each row.
    """

    counts: dict[str, int]
    latencies: list[int]
    tokens: list[int]


class Tally:
    """Keeps what outcomes tell, until the bundle's own thread fetches the totals.

    Beam's counters belong to the thread that works on a bundle, so the loop cannot use them.
    """

    def __init__(self) -> None:
        self._outcomes: deque[Outcome] = deque()
        self._usd = 0.0

    @property
    def waiting(self) -> int:
        """Rows that nobody has looked at yet."""
        return len(self._outcomes)

    def add(self, outcome: Outcome) -> None:
        """Take one outcome; cheap, for the event loop."""
        self._outcomes.append(outcome)

    def take(self) -> Totals:
        """Return what has come since the last look; parts of a micro dollar are carried over."""
        totals = Totals({}, [], [])
        for _ in range(len(self._outcomes)):
            self._count(self._outcomes.popleft(), totals)
        micro = round(self._usd * 1e6)
        self._usd -= micro / 1e6
        totals.counts["cost_micro_usd"] = micro
        return totals

    def _count(self, outcome: Outcome, totals: Totals) -> None:
        told, counts = outcome.telemetry, totals.counts
        _add(counts, "rows_ok" if outcome.ok else "rows_failed", 1)
        if attempts := told.get("attempts"):
            _add(counts, "requests", attempts)
            totals.latencies.append(round(told["timing"].get("duration_ms", 0)))
        if "failed_attempts" in told:
            _add(counts, "retries", len(told["failed_attempts"]) - (not outcome.ok))
        if turn := told["usage"].get("turn"):
            read, written = turn.get("input_tokens") or 0, turn.get("output_tokens") or 0
            _add(counts, "input_tokens", read)
            _add(counts, "output_tokens", written)
            totals.tokens.append(read + written)
            self._usd += told.get("cost_usd") or 0.0


def _add(counts: dict[str, int], name: str, number: int) -> None:
    counts[name] = counts.get(name, 0) + number
