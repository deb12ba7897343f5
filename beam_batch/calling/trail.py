"""What one row has cost so far: sums over all its requests, written into its telemetry."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from beam_batch.calling.talk import Talk
from beam_batch.calling.transports.http import Answer
from beam_batch.errors import RowError
from beam_batch.providers.base import Reply, Usage

FAILED_KEPT = 10
"""Failed requests that telemetry lists one by one; all are counted."""


class Sent:
    """One request on its way, and what became of it.

    Attributes:
        agent: who asks, or None where no agent does.
        answer: what came back, or None.
    """

    __slots__ = (
        "agent", "answer", "answered_at", "at", "ended_at", "finish_reason", "model", "usage",
        "usd",
    )  # fmt: skip

    def __init__(self, agent: str | None) -> None:
        self.agent = agent
        self.at = time.monotonic()
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.answer: Answer | None = None
        self.usage: Usage | None = None
        self.usd: float | None = None
        self.model: str | None = None
        self.finish_reason: str | None = None

    def end(self) -> None:
        """Note that it has come to an end, with an answer or without."""
        self.ended_at = time.monotonic()

    def answered(self, answer: Answer) -> None:
        """Note that its answer is whole, whatever it says."""
        self.answer = answer
        self.answered_at = time.monotonic()

    @property
    def request_id(self) -> str | None:
        """The id that a header of its answer names."""
        return self.answer.request_id if self.answer is not None else None

    def as_notes(self) -> dict[str, Any]:
        """Return what telemetry tells of it, in a row that asks more than once."""
        end = self.answered_at or self.ended_at or time.monotonic()
        notes = {
            "agent": self.agent,
            "model": self.model,
            "usage": self.usage.as_dict() if self.usage is not None else None,
            "cost_usd": None if self.usd is None else round(self.usd, 10),
            "ms": _ms(end - self.at),
            "finish_reason": self.finish_reason,
        }
        return {name: value for name, value in notes.items() if value is not None}


class Trail:
    """Follows one row through its requests. Times are in milliseconds, to a tenth.

    Attributes:
        number: of the row, or something else that is its own.
        talk: what is said in its conversations.
        attempts: requests sent.
        started: when the row first got leave to send, by the monotonic clock, or None.
        on_first_sent: called at that moment.
        on_paid: called with what each answer has cost: its usage and USD.
        usd: what is known to be spent; set_aside: the worst case of what is on its way;
            maybe_paid: that of what ended without a word.
    """

    def __init__(self, number: int, *, lists_calls: bool = False, traced: bool = False) -> None:
        self.number = number
        self.talk = Talk(traced)
        self.attempts = 0
        self.started: float | None = None
        self.on_first_sent: Callable[[], None] | None = None
        self.on_paid: Callable[[Usage | None, float | None], None] | None = None
        self.usd = 0.0
        self.set_aside = 0.0
        self.maybe_paid = 0.0
        self._calls: list[Sent] | None = [] if lists_calls else None
        self._begun = time.monotonic()
        self._last: Sent | None = None
        self._usage: Usage | None = None
        self._said: dict[str, Any] = {}
        self._failed: list[dict[str, Any]] = []
        self._extra: dict[str, Any] = {}
        self._source: str | None = None
        self._tools: dict[str, int] = {}
        self._citations: list[dict[str, Any]] = []
        self._searches = 0
        self._knows_cost = True
        self._saved = 0.0

    def sent(self, agent: str | None = None) -> Sent:
        """Note that a request starts."""
        self.attempts += 1
        sent = self._last = Sent(agent)
        self._source = None
        if self._calls is not None:
            self._calls.append(sent)
        if self.started is None:
            self.started = sent.at
        self._begins()
        return sent

    def _begins(self) -> None:
        """Let the row's time run, from its first reply or request on."""
        if self.on_first_sent is not None:
            self.on_first_sent()
            self.on_first_sent = None

    def said(self, sent: Sent, reply: Reply | RowError) -> Usage | None:
        """Note what the provider reported of an answer, also of one that is a failure."""
        usage: Usage | None = getattr(reply, "usage", None)
        if usage is not None:
            self._usage = usage if self._usage is None else self._usage.plus(usage)
        sent.usage = usage
        sent.model = getattr(reply, "model", None)
        sent.finish_reason = getattr(reply, "finish_reason", None)
        found = {
            "model": sent.model,
            "finish_reason": sent.finish_reason,
            "service_tier": getattr(reply, "service_tier", None),
            "request_id": sent.request_id or getattr(reply, "request_id", None),
        }
        self._said.update({name: value for name, value in found.items() if value is not None})
        if isinstance(reply, Reply):
            self._citations.extend(reply.citations)
            self._searches += reply.searches
        return usage

    def reused(self, reply: Reply, source: str) -> None:
        """Note that a reply was there already: it costs nothing."""
        self._source = source
        self._begins()
        if self._calls is not None:
            self.count(f"calls_from_{source}")
        self._citations.extend(reply.citations)
        for name in ("model", "finish_reason"):
            self._said[name] = getattr(reply, name)

    def drop_source(self, source: str) -> bool:
        """Forget that the last reply was there already; return whether it was."""
        if self._source != source:
            return False
        self._source = None
        return True

    def failed(self, error: RowError, sent: Sent | None) -> None:
        """Note that a request failed."""
        status = getattr(error, "status", None)
        if status is not None:
            self._said["status"] = status
        if len(self._failed) < FAILED_KEPT:
            at = sent.at if sent is not None else self._begun
            found = {
                "type": type(error).__name__,
                "status": status,
                "duration_ms": _ms(time.monotonic() - at),
            }
            self._failed.append({name: v for name, v in found.items() if v is not None})

    def paid(self, sent: Sent, usd: float | None, saved: float = 0.0) -> None:
        """Add what a request cost in USD, None where nobody knows, and what caching saved."""
        self._knows_cost = self._knows_cost and usd is not None
        self.usd += usd or 0.0
        sent.usd = usd
        self._saved += saved
        if self.on_paid is not None:
            self.on_paid(sent.usage, usd)

    def count(self, name: str) -> None:
        """Count something that telemetry reports where it happened."""
        self._extra[name] = self._extra.get(name, 0) + 1

    def called(self, tool: str) -> None:
        """Count a tool call."""
        self._tools[tool] = self._tools.get(tool, 0) + 1

    def note(self, name: str, value: Any) -> None:
        """Note something that telemetry reports."""
        self._extra[name] = value

    def as_notes(self) -> dict[str, Any]:
        """Return the telemetry fields of the row."""
        notes: dict[str, Any] = {"attempts": self.attempts, "timing": self._timing()}
        if self._usage is not None and (turn := self._usage.as_dict()):
            notes["usage"] = {"turn": turn}
        if self._usage is not None:
            notes["cost_usd"] = round(self.usd, 10) if self._knows_cost else None
            if self._saved:
                notes["saved_usd"] = round(self._saved, 10)
        if self._last is not None and self._last.answered_at is not None:
            self._said.pop("status", None)
        notes |= self._said
        if self._failed:
            notes["failed_attempts"] = self._failed
        if self._citations:
            notes["citations"] = self._citations
        if self._searches:
            notes["web_searches"] = self._searches
        if self._calls is not None:
            notes["calls"] = [sent.as_notes() for sent in self._calls]
            notes["tool_calls"] = sum(self._tools.values())
            notes["tools"] = self._tools
        elif self._source is not None:
            notes["source"] = self._source
        return notes | self._extra

    def _timing(self) -> dict[str, float]:
        now = time.monotonic()
        last = self._last
        if self.started is None or last is None:
            return {"duration_ms": _ms(now - self._begun)}
        end = now if self._calls is not None else last.answered_at or now
        timing = {"duration_ms": _ms(end - self.started)}
        if last.answer is not None:
            if last.answer.first_text is not None:
                timing["ttft_ms"] = _ms(last.answer.first_text)
            timing["time_to_response_ms"] = _ms((last.answered_at or now) - last.at)
        return timing


def _ms(seconds: float) -> float:
    return int(seconds * 10_000 + 0.5) / 10  # `round` to a place takes three times as long
