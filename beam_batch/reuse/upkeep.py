"""What is in a cache, and what of it goes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from beam_batch.errors import OptionsError
from beam_batch.reuse.kept import Entry, ReplyStore

_AGES = {"": 86_400, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


class Rules(NamedTuple):
    """What goes: of one model or of all, the old, and the oldest of what is too much.

    Without an age and a size, all of the model goes.

    Attributes:
        older_than: seconds.
        max_size: bytes.
    """

    model: str | None
    older_than: float | None
    max_size: float | None


class Doomed(NamedTuple):
    """How much goes, and how much was looked at; sizes in bytes."""

    replies: int
    size: int
    of: int


def parse_age(flag: str, text: str) -> float:
    """Return the seconds of an age such as 12h, 30d, 2w; a bare number is days.

    Raises:
        OptionsError: it is none.
    """
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise OptionsError(f"{flag} must be an age such as 12h, 30d or 8w, got {text!r}.")
    return float(match[1]) * _AGES[match[2].lower()]


def parse_size(flag: str, text: str) -> float:
    """Return the bytes of a size such as 500MB (decimal) or 2GiB (binary).

    Raises:
        OptionsError: it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise OptionsError(f"{flag} must be a size such as 500MB or 2GB, got {text!r}.")
    base = 1024.0 if match[3] else 1000.0
    return float(match[1]) * base ** _SIZES[match[2].lower()]


def describe(store: ReplyStore) -> dict[str, Any]:
    """Say what a cache holds: counts, bytes, times in UTC; in all, and by model."""
    models: dict[str, dict[str, Any]] = {}
    whole: dict[str, Any] = {"replies": 0, "bytes": 0, "oldest": None, "newest": None}
    for entry in store.entries():
        part = models.setdefault(
            entry.asked, {"replies": 0, "bytes": 0, "input_tokens": 0, "output_tokens": 0}
        )
        part["input_tokens"] += entry.input_tokens
        part["output_tokens"] += entry.output_tokens
        for counts in (whole, part):
            counts["replies"] += 1
            counts["bytes"] += entry.size
        whole["newest"] = whole["newest"] or _utc(entry.made)
        oldest = entry.made
    if whole["replies"]:
        whole["oldest"] = _utc(oldest)
    return whole | {"models": dict(sorted(models.items()))}


def doomed(store: ReplyStore, rules: Rules, now: float) -> Doomed:
    """Count what the rules let go."""
    count = size = 0
    for entry in _chosen(store, rules, now):
        count += 1
        size += entry.size
    return Doomed(count, size, sum(1 for _ in store.entries()))


def prune(store: ReplyStore, rules: Rules, now: float) -> None:
    """Let go what the rules say; memory does not grow with it."""
    store.remove(entry.key for entry in _chosen(store, rules, now))


def _chosen(store: ReplyStore, rules: Rules, now: float) -> Iterator[Entry]:
    everything = rules.older_than is None and rules.max_size is None
    kept = 0
    for entry in store.entries():  # newest first, so that what is too much is the oldest
        if rules.model is not None and entry.asked != rules.model:
            continue
        old = rules.older_than is not None and entry.made < now - rules.older_than
        large = rules.max_size is not None and kept + entry.size > rules.max_size
        if everything or old or large:
            yield entry
        else:
            kept += entry.size


def in_units(size: float) -> str:
    """Write a number of bytes for people, in decimal units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
