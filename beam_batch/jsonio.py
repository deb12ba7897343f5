"""Strict JSON in and out: no NaN, no lost digits, one line a value."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from beam_batch.errors import InvalidJSON

_LONG_NUMBER = re.compile(rb"\d{19}")


def loads(data: bytes | str) -> Any:
    """Parse strict JSON; integers of any size stay exact.

    Raises:
        InvalidJSON: not JSON, or NaN, Infinity or a lone surrogate (RFC 8259).
    """
    raw = data.encode() if isinstance(data, str) else data
    try:
        if _LONG_NUMBER.search(raw):
            return json.loads(raw, parse_constant=_refuse_constant)
        return orjson.loads(raw)
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"not UTF-8: {error}") from None
    except (ValueError, RecursionError) as error:
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


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value
