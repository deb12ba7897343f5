"""Repairs of a reply that cannot change what it says: a code fence, text after the JSON."""

from __future__ import annotations

import json
import re

_FENCE = re.compile(r"```[a-zA-Z]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.DOTALL)
_decoder = json.JSONDecoder()


def repaired(text: str) -> str | None:
    """Return the JSON text inside a reply, or None where there is not just one.

    >>> repaired('```json\\n{"a": 1}\\n```')
    '{"a": 1}'
    >>> repaired('{"a": 1} I hope this helps!')
    '{"a": 1}'
    >>> repaired('{"a": 1} or {"a": 2}') is None
    True
    """
    fences = _FENCE.findall(text)
    if len(fences) == 1 and "{" not in (rest := _FENCE.sub("", text)) and "[" not in rest:
        return _whole(fences[0].strip())
    return _whole(text.strip().removeprefix("\ufeff"))


def _whole(text: str) -> str | None:
    """Return the object or array that a text begins with, if no other may follow."""
    if not text.startswith(("{", "[")):
        return None
    try:
        _, end = _decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    rest = text[end:]
    return None if "{" in rest or "[" in rest else text[:end]
