"""When two answers say the same."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON
from beam_batch.prompts.repair import repaired

_EDGES = ".,;:!?…'\"`´‘’‚“”„«»‹›()[]{}*_"
_LEADING = re.compile(rf"^(?:(?![.,][0-9])[{re.escape(_EDGES)}])+")


def matcher(strategy: str, has_schema: bool) -> Callable[[Any], str]:
    """Return what turns an answer into the key that it shares with answers that say the same.

    exact: every character counts. normalized: neither case, nor space, nor punctuation around
    words. structured: the JSON value. Answers to a schema are compared as JSON values; normalized
    holds for the texts in them.
    """
    if has_schema:
        return _canonical_words if strategy == "normalized" else canonical
    keys = {"exact": _as_it_is, "normalized": normalized, "structured": _structured}
    return keys[strategy]


def _as_it_is(text: str) -> str:
    return text


def normalized(text: str) -> str:
    """Return text without what makes no difference; what is within words and numbers stays.

    >>> normalized("**Yes**,  it is -4.5!")
    'yes it is -4.5'
    """
    plain = unicodedata.normalize("NFC", text).casefold()
    words = (_bare(word) for word in plain.split())
    return " ".join(filter(None, words)) or plain.strip()


def _bare(word: str) -> str:
    return _LEADING.sub("", word.rstrip(_EDGES))


def canonical(value: Any) -> str:
    """Write a JSON value so that equal values are equal text."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    """Write numbers that are equal alike: 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _canonical_words(value: Any) -> str:
    return canonical(_each(value))


def _each(value: Any) -> Any:
    """Normalize the texts in a value; the keys are the schema's."""
    if isinstance(value, str):
        return normalized(value)
    if isinstance(value, dict):
        return {key: _each(item) for key, item in value.items()}
    return [_each(item) for item in value] if isinstance(value, list) else value


def _structured(text: str) -> str:
    """Compare by the JSON in a text; a text without any is compared as it is."""
    for found in (text, repaired(text)):
        try:
            return canonical(jsonio.loads(found or ""))
        except InvalidJSON:
            continue
    return text
