"""What a bundle's outcomes add up to, for Beam's metrics."""

from __future__ import annotations

import threading
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
    """Counts outcomes in the event loop, until the bundle's own thread fetches the totals.

    Beam's counters belong to the thread that works on a bundle, so the loop cannot use them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usd = 0.0
        self._clear()

    def _clear(self) -> None:
        self._rows = 0
        self._counts: dict[str, int] = {}
        self._latencies: list[int] = []
        self._tokens: list[int] = []

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        told = outcome.telemetry
        failed = len(told.get("failed_attempts") or ())
        attempts = told.get("attempts") or 0
        turn = told["usage"].get("turn") or {}
        read, written = turn.get("input_tokens") or 0, turn.get("output_tokens") or 0
        usd = told.get("cost_usd")
        with self._lock:
            self._rows += 1
            counts = self._counts
            for name, number in (
                ("rows_ok" if outcome.ok else "rows_failed", 1),
                ("requests", attempts),
                ("retries", failed if outcome.ok else max(0, failed - 1)),
                ("input_tokens", read),
                ("output_tokens", written),
            ):
                if number:
                    counts[name] = counts.get(name, 0) + number
            if usd:
                self._usd += usd
            if attempts:
                self._latencies.append(round(told["timing"].get("duration_ms") or 0))
            if turn:
                self._tokens.append(read + written)

    @property
    def waiting(self) -> int:
        """Rows that were counted since the last look."""
        return self._rows

    def take(self) -> Totals:
        """Return what was counted since the last look; parts of a micro dollar are carried over."""
        with self._lock:
            micro = int(self._usd * 1e6)
            self._usd -= micro / 1e6
            if micro:
                self._counts["cost_micro_usd"] = micro
            totals = Totals(self._counts, self._latencies, self._tokens)
            self._clear()
        return totals
