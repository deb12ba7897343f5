"""What providers say of their limits in the headers of every answer. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Limits(NamedTuple):
    """Requests and tokens a minute, and how many of them are left; None where nothing is said."""

    requests: float | None = None
    requests_left: float | None = None
    tokens: float | None = None
    tokens_left: float | None = None


_NAMES = (
    # OpenAI, xAI, Groq and compatible (platform.openai.com/docs/guides/rate-limits)
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
)
_ANTHROPIC = (  # docs.claude.com/en/api/rate-limits
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-tokens-limit",
    "anthropic-ratelimit-tokens-remaining",
)
LIMIT_HEADERS = (_NAMES[0], _NAMES[2], _ANTHROPIC[0], _ANTHROPIC[2])
"""Headers that name a limit, in lower case."""
_RESET = "x-ratelimit-reset-requests"


def read_limits(headers: Mapping[str, str]) -> Limits:
    """Read the limits out of an answer's headers.

    Groq's request limits are a day's (console.groq.com/docs/rate-limits): a reset that is more
    than two minutes away is no minute's limit, and is passed over.
    """
    names = _NAMES if _NAMES[0] in headers or _NAMES[2] in headers else _ANTHROPIC
    requests, requests_left, tokens, tokens_left = (_number(headers.get(name)) for name in names)
    if _seconds(headers.get(_RESET)) > 120:
        requests = requests_left = None
    return Limits(requests or None, requests_left, tokens or None, tokens_left)


def _number(text: str | None) -> float | None:
    """Read a number that is none of a broken header's."""
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 1e15 else None


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(text: str | None) -> float:
    """Read a span such as 1s, 6m0s, 20ms or 12.5; 0.0 where it is none.

    >>> _seconds("1h2m0.5s")
    3720.5
    """
    if not text:
        return 0.0
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd])?", text)
    return sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
