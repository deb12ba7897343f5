"""The placeholders ``{{field}}``, ``{{row_json}}`` and ``{{image:field}}``, in a single pass."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import InvalidTemplateValue, MissingTemplateField
from beam_batch.records import Content, Image

_PLACEHOLDER = re.compile(r"\{\{\s*([^}]+?)\s*\}\}")
ROW_JSON = "row_json"
IMAGE = "image:"


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


def stable_prefix(template: str) -> str:
    """Return what every prompt begins with: the text before the first placeholder."""
    return _parse(template)[0][0]


def image_fields(template: str) -> tuple[str, ...]:
    """Name the fields that a template inserts as images."""
    names = (name for name in _parse(template)[1] if name.startswith(IMAGE))
    return tuple(dict.fromkeys(name.removeprefix(IMAGE).strip() for name in names))


def leading_text(template: str) -> str:
    """Return what all prompts of a template begin with."""
    return _parse(template)[0][0]


def render(template: str, row: Mapping[str, Any], files_root: str | None = None) -> Content:
    """Fill a template from one row; text, or with ``{{image:field}}`` text and images.

    >>> render("{{n}} is {{ name }}", {"n": 1, "name": "one"})
    '1 is one'

    Raises:
        MissingTemplateField: the row lacks fields; all of them are named.
        InvalidTemplateValue, InvalidImage: a field cannot be inserted.
    """
    literals, names = _parse(template)
    missing = [name for name in dict.fromkeys(names) if _field(row, name) is None]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise MissingTemplateField(f"Missing template field{plural}: {', '.join(missing)}")
    if not any(name.startswith(IMAGE) for name in names):
        texts = (
            _text(row, name) + literal for name, literal in zip(names, literals[1:], strict=True)
        )
        return literals[0] + "".join(texts)
    parts: list[str | Image] = [literals[0]]
    for name, literal in zip(names, literals[1:], strict=True):
        field = _field(row, name)
        if name.startswith(IMAGE) and field != name and field is not None:
            from beam_batch.prompts.images import to_image

            parts.append(to_image(field, row[field], files_root))
        else:
            parts.append(_text(row, name))
        parts.append(literal)
    return _joined(parts)


def _field(row: Mapping[str, Any], name: str) -> str | None:
    """Return the field that a placeholder stands for, None where the row lacks it."""
    if name in row or name == ROW_JSON:
        return name
    field = name.removeprefix(IMAGE).strip()
    return field if name.startswith(IMAGE) and field in row else None


def _joined(parts: list[str | Image]) -> Content:
    """Join neighbouring texts; a message of text alone is one string."""
    joined: list[str | Image] = []
    for is_text, group in itertools.groupby(parts, key=lambda part: isinstance(part, str)):
        found = list(group)
        text = "".join(str(part) for part in found) if is_text else ""
        joined.extend([text] if text else [] if is_text else found)
    if len(joined) == 1 and isinstance(joined[0], str):
        return joined[0]
    return tuple(joined) or ""


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
