"""What one row has cost so far: sums over all its requests, written into its telemetry."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from beam_batch.calling.transports.http import Answer
from beam_batch.errors import RowError
from beam_batch.providers.base import Reply, Usage

FAILED_KEPT = 10
"""Failed requests that telemetry lists one by one; all are counted."""


class Trail:
    """Follows one row through its requests. Times are in milliseconds, to a tenth.

    Attributes:
        attempts: requests sent.
        started: when the row first got leave to send, by the monotonic clock, or None.
        on_first_sent: called at that moment.
    """

    def __init__(self) -> None:
        self.attempts = 0
        self.started: float | None = None
        self.on_first_sent: Callable[[], None] | None = None
        self._begun = time.monotonic()
        self._sent_at = self._begun
        self._answered_at: float | None = None
        self._answer: Answer | None = None
        self._usage: Usage | None = None
        self._said: dict[str, Any] = {}
        self._failed: list[dict[str, Any]] = []
        self._extra: dict[str, Any] = {}
        self._cost: float | None = 0.0
        self._saved = 0.0

    def sent(self) -> None:
        """Note that a request starts."""
        self.attempts += 1
        self._sent_at = time.monotonic()
        self._answer = self._answered_at = None
        if self.started is None:
            self.started = self._sent_at
            if self.on_first_sent is not None:
                self.on_first_sent()

    def answered(self, answer: Answer) -> None:
        """Note that its answer is whole, whatever it says."""
        self._answer = answer
        self._answered_at = time.monotonic()

    def said(self, reply: Reply | RowError) -> Usage | None:
        """Note what the provider reported of an answer, also of one that is a failure."""
        usage: Usage | None = getattr(reply, "usage", None)
        if usage is not None:
            self._usage = usage if self._usage is None else self._usage.plus(usage)
        for name in ("model", "finish_reason", "service_tier", "request_id"):
            value = getattr(reply, name, None)
            if value is not None:
                self._said[name] = value
        if self._answer is not None and self._answer.request_id is not None:
            self._said["request_id"] = self._answer.request_id
        return usage

    def reused(self, reply: Reply, source: str) -> None:
        """Note that a reply was there already: it costs nothing."""
        self._extra["source"] = source
        for name in ("model", "finish_reason"):
            self._said[name] = getattr(reply, name)

    def drop_source(self, source: str) -> bool:
        """Forget that a reply was there already; return whether it was."""
        return self._extra.get("source") == source and bool(self._extra.pop("source"))

    def failed(self, error: RowError) -> None:
        """Note that a request failed."""
        status = getattr(error, "status", None)
        if status is not None:
            self._said["status"] = status
        if len(self._failed) < FAILED_KEPT:
            duration = _ms(time.monotonic() - self._sent_at)
            found = {"type": type(error).__name__, "status": status, "duration_ms": duration}
            self._failed.append({name: v for name, v in found.items() if v is not None})

    def paid(self, usd: float | None, saved: float = 0.0) -> None:
        """Add what a request cost in USD, None where nobody knows, and what caching saved."""
        self._cost = None if usd is None or self._cost is None else self._cost + usd
        self._saved += saved

    def count(self, name: str) -> None:
        """Count something that telemetry reports where it happened."""
        self._extra[name] = self._extra.get(name, 0) + 1

    def note(self, name: str, value: Any) -> None:
        """Note something that telemetry reports."""
        self._extra[name] = value

    def as_notes(self) -> dict[str, Any]:
        """Return the telemetry fields of the row."""
        notes: dict[str, Any] = {"attempts": self.attempts, "timing": self._timing()}
        if self._usage is not None and (turn := self._usage.as_dict()):
            notes["usage"] = {"turn": turn}
        if self._usage is not None:
            notes["cost_usd"] = self._cost if self._cost is None else round(self._cost, 10)
            if self._saved:
                notes["saved_usd"] = round(self._saved, 10)
        if self._answered_at is not None:
            self._said.pop("status", None)
        notes |= self._said
        if self._failed:
            notes["failed_attempts"] = self._failed
        return notes | self._extra

    def _timing(self) -> dict[str, float]:
        now = time.monotonic()
        if self.started is None:
            return {"duration_ms": _ms(now - self._begun)}
        end = self._answered_at or now
        timing = {"duration_ms": _ms(end - self.started)}
        if self._answer is not None:
            if self._answer.first_text is not None:
                timing["ttft_ms"] = _ms(self._answer.first_text)
            timing["time_to_response_ms"] = _ms(end - self._sent_at)
        return timing


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
