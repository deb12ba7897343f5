"""A worker's numbers as Beam metrics, which every runner shows."""

from __future__ import annotations

from apache_beam.metrics import Metrics

from beam_batch.calling.tally import Tally

NAMESPACE = "beam_batch"
MOST_WAITING = 128
"""Rows that are counted together: a look at Beam's counters a row would cost the hot path."""


class Meter:
    """Passes totals on to Beam. Call it on the bundle's own thread."""

    def __init__(self) -> None:
        self._latency = Metrics.distribution(NAMESPACE, "latency_ms")
        self._tokens = Metrics.distribution(NAMESPACE, "row_tokens")

    def show(self, tally: Tally) -> None:
        """Add what was counted since the last call."""
        if not tally.waiting:
            return
        totals = tally.take()
        for name, number in totals.counts.items():
            if number:
                Metrics.counter(NAMESPACE, name).inc(number)
        for value in totals.latencies:
            self._latency.update(value)
        for value in totals.tokens:
            self._tokens.update(value)
