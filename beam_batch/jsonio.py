"""Strict JSON in and out: no NaN, no lost digits, one line a value."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

from beam_batch.errors import InvalidJSON

_DIGITS_ALIKE = bytes.maketrans(b"0123456789", b"0" * 10)
_LONG_NUMBER = b"0" * 19
DEEPEST = 100
"""Levels of nesting that a row or a reply may have: what carries it on (pickling) recurses."""
RECORD_DEEPEST = DEEPEST + 10
"""Levels that our own records may have, which hold rows and replies."""


def loads(data: bytes | str, deepest: int = DEEPEST) -> Any:
    """Parse strict JSON; integers of any size stay exact.

    Raises:
        InvalidJSON: not JSON, or NaN, Infinity or a lone surrogate (RFC 8259), or nested too
            deep.
    """
    raw = data.encode() if isinstance(data, str) else data
    try:
        value = orjson.loads(raw)  # strict; but integers beyond 64 bits lose digits
        if _LONG_NUMBER in raw.translate(_DIGITS_ALIKE):  # a tenth of what a regex takes
            value = json.loads(raw)
        if raw.count(b"[") + raw.count(b"{") > deepest and _is_deep(value, deepest):
            raise InvalidJSON(f"nested deeper than {deepest} levels")
        return value
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"not UTF-8: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidJSON(str(error)) from None


def loads_own(data: bytes) -> Any:
    """Parse JSON that we wrote ourselves, whose numbers and levels are known to be small.

    Raises:
        InvalidJSON: it was damaged.
    """
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise InvalidJSON(str(error)) from None


def dumps(value: Any) -> bytes:
    """Write compact UTF-8 JSON without a newline; NaN and Infinity become null."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        text = json.dumps(
            _without_nan(value), ensure_ascii=False, separators=(",", ":"), default=str
        )
        return text.encode("utf-8", "backslashreplace")


def pretty(value: Any) -> str:
    """Write JSON with a two-space indent, keys in their own order."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return json.dumps(_without_nan(value), ensure_ascii=False, indent=2, default=str)


def _is_deep(value: Any, deepest: int) -> bool:
    level = [value]
    for _ in range(deepest + 1):
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return bool(level)


def has_nan(value: Any) -> bool:
    """Whether a value holds a NaN or an infinity, which JSON cannot say."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(has_nan(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(has_nan(item) for item in value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value
