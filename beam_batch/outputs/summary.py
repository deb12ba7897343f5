"""The summary of a run: counts, exact medians, tokens."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from beam_batch.outputs.spent import Lost

TIMINGS = {"duration": "duration_ms", "ttft": "ttft_ms", "time_to_response": "time_to_response_ms"}

EXACT_TENTHS = 100_000


class Distribution:
    """Order statistics of times in milliseconds, held as counts.

    Exact to the tenth below 10 seconds, as telemetry is written; above, to four digits, so that
    memory has a bound whatever the spread.
    """

    def __init__(self) -> None:
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        tenths = round(value * 10)
        if tenths >= EXACT_TENTHS:
            step = 10 ** (len(str(tenths)) - 4)
            tenths = round(tenths / step) * step
        self._counts[tenths] += 1
        self._sum += value

    def as_dict(self) -> dict[str, float | int]:
        """Return count, min, mean, median, p95 and max; only the count where it is 0."""
        count = sum(self._counts.values())
        if not count:
            return {"count": 0}
        ordered = sorted(self._counts)
        median = (self._at(ordered, (count - 1) // 2) + self._at(ordered, count // 2)) / 2
        return {
            "count": count,
            "min": ordered[0] / 10,
            "mean": round(self._sum / count, 2),
            "median": round(median, 2),
            "p95": self._at(ordered, -(-count * 95 // 100) - 1),
            "max": ordered[-1] / 10,
        }

    def _at(self, ordered: list[int], rank: int) -> float:
        seen = 0
        for value in ordered:
            seen += self._counts[value]
            if seen > rank:
                return value / 10
        raise IndexError(rank)


EVENTS = {
    "source": "",
    "repaired": "rows_repaired",
    "reasks": "reasks",
    "fallback_after": "rows_by_fallback_model",
    "flex_fallbacks": "flex_fallbacks",
    "requests_of_unknown_cost": "requests_of_unknown_cost",
    "tool_calls": "tool_calls",
    "web_searches": "web_searches",
    "restarts": "rows_restarted",
    "calls_from_duplicate": "calls_from_duplicate",
    "calls_from_cache": "calls_from_cache",
}
"""Fields of telemetry that are there where something happened, and what their sums are called."""


@dataclass
class Money:
    """Adds up what rows cost, in US dollars."""

    cost: float = 0.0
    saved: float = 0.0
    priced: int = 0
    unpriced: int = 0

    def add(self, telemetry: dict[str, Any]) -> None:
        """Count one record that says what its row cost, or that nobody knows."""
        cost = telemetry["cost_usd"]
        if cost is None:
            self.unpriced += 1
        else:
            self.priced += 1
            self.cost += cost
            self.saved += telemetry.get("saved_usd", 0.0)

    def lose(self, lost: Lost) -> None:
        """Count what attempts of rows have cost that never got their outcome."""
        if lost.usd is None:
            self.unpriced += lost.rows
        else:
            self.priced += lost.rows
            self.cost += lost.usd

    def as_dict(self, more: bool) -> dict[str, Any]:
        """Return the sums; unknown, and not 0, where rows have no price and `more` may be paid."""
        known = self.priced > 0 or not (self.unpriced or more)
        found: dict[str, Any] = {"cost_usd": round(self.cost, 6) if known else "unknown"}
        if self.unpriced:
            found["rows_without_price"] = self.unpriced
        if self.saved:
            found["saved_by_prompt_cache_usd"] = round(self.saved, 6)
        return found


@dataclass
class Tally:
    """Adds up telemetry records."""

    timing: dict[str, Distribution] = field(
        default_factory=lambda: {name: Distribution() for name in TIMINGS}
    )
    usage: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    rows_with_usage: int = 0
    money: Money = field(default_factory=lambda: Money())
    events: Counter[str] = field(default_factory=Counter)
    lost: Lost = field(default_factory=lambda: Lost({}, 0.0, 0))

    def lose(self, lost: Lost) -> None:
        """Count attempts that never got their outcome: their money, but neither rows nor times."""
        self.lost = lost
        self.money.lose(lost)

    def add(self, telemetry: dict[str, Any]) -> None:
        """Count one record."""
        self.attempts += telemetry.get("attempts") or 0
        timing = telemetry["timing"]
        for name, key in TIMINGS.items():
            if (value := timing.get(key)) is not None:
                self.timing[name].add(value)
        turn = telemetry["usage"].get("turn")
        if turn:
            self.rows_with_usage += 1
            for key, value in turn.items():
                if isinstance(value, int):
                    self.usage[key] += value
        if "cost_usd" in telemetry:
            self.money.add(telemetry)
        for key in EVENTS:
            if key in telemetry:
                self._count(key, telemetry[key])

    def _count(self, key: str, value: Any) -> None:
        if key == "source":
            self.events[f"rows_from_{value}"] += 1
        else:
            self.events[EVENTS[key]] += value if isinstance(value, int) else 1

    def as_dict(self) -> dict[str, Any]:
        """Return the summary's timing and usage fields."""
        usage = dict(self.usage) | {"rows_with_usage": self.rows_with_usage}
        return {
            "requests": self.attempts,
            "timing_ms": {name: found.as_dict() for name, found in self.timing.items()},
            "usage": usage,
            **self.money.as_dict(bool(self.events["requests_of_unknown_cost"])),
            **self._cached_share(),
            **self._lost_attempts(),
            **dict(sorted(self.events.items())),
        }

    def _lost_attempts(self) -> dict[str, Any]:
        """Return what was paid for rows before they were begun anew, if anything was."""
        if not self.lost.rows:
            return {}
        cost = "unknown" if self.lost.usd is None else round(self.lost.usd, 6)
        found = {"rows": self.lost.rows, "cost_usd": cost, "usage": self.lost.usage}
        return {"lost_attempts": found}

    def _cached_share(self) -> dict[str, float]:
        """Return which share of the input tokens came from the provider's cache, if it said."""
        total, cached = self.usage["input_tokens"], self.usage.get("cached_tokens")
        return {"cached_share": round(cached / total, 4)} if total and cached is not None else {}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a finished run reports.

    Attributes:
        exit_code: 0, or 1 where every attempted row failed or ``fail_on_error`` asks for it.
        data: the summary object as it is written and printed.
    """

    exit_code: int
    data: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        """Return one field of the summary object."""
        return self.data[key]
