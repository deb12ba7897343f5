"""The summary of a run: counts, exact medians, tokens."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

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


@dataclass
class Tally:
    """Adds up telemetry records."""

    timing: dict[str, Distribution] = field(
        default_factory=lambda: {name: Distribution() for name in TIMINGS}
    )
    usage: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    rows_with_usage: int = 0

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

    def as_dict(self) -> dict[str, Any]:
        """Return the summary's timing and usage fields."""
        usage = dict(self.usage) | {"rows_with_usage": self.rows_with_usage}
        return {
            "requests": self.attempts,
            "timing_ms": {name: found.as_dict() for name, found in self.timing.items()},
            "usage": usage,
        }


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
