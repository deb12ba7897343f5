"""The placeholder syntax: ``{{field}}`` and ``{{row_json}}``, replaced in a single pass."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import InvalidTemplateValue, MissingTemplateField

_PLACEHOLDER = re.compile(r"\{\{\s*([^}]+?)\s*\}\}")
ROW_JSON = "row_json"


@lru_cache(maxsize=64)
def _parse(template: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a template into literals and field names; there is one literal more than names."""
    pieces = _PLACEHOLDER.split(template)
    # A whitespace-only placeholder is no placeholder: the pattern matches it as a blank name.
    literals, names = [pieces[0]], []
    for match, literal in zip(_PLACEHOLDER.finditer(template), pieces[2::2], strict=True):
        name = match.group(1).strip()
        if name:
            names.append(name)
            literals.append(literal)
        else:
            literals[-1] += match.group(0) + literal
    return tuple(literals), tuple(names)


def fields(template: str) -> tuple[str, ...]:
    """Name the fields a template needs, each once, in order of first use."""
    return tuple(dict.fromkeys(name for name in _parse(template)[1] if name != ROW_JSON))


def render(template: str, row: Mapping[str, Any]) -> str:
    """Fill a template from one row.

    >>> render("{{n}} is {{ name }}", {"n": 1, "name": "one"})
    '1 is one'

    Raises:
        MissingTemplateField: the row lacks fields; all of them are named.
    """
    literals, names = _parse(template)
    missing = [name for name in dict.fromkeys(names) if name != ROW_JSON and name not in row]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise MissingTemplateField(f"Missing template field{plural}: {', '.join(missing)}")
    out = [literals[0]]
    for name, literal in zip(names, literals[1:], strict=True):
        out.append(_text(row, name))
        out.append(literal)
    return "".join(out)


def _text(row: Mapping[str, Any], name: str) -> str:
    if name == ROW_JSON:
        return jsonio.pretty(row)
    value = row[name]
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidTemplateValue(f"field {name!r} cannot be written as JSON: {error}") from None
