"""What workflows tell members: text around contents, in labelled blocks, with their images."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from typing import Any

from beam_batch import jsonio
from beam_batch.agents.member import Member
from beam_batch.options import SchemaSpec
from beam_batch.records import Content, Image

_LONGEST_DESCRIPTION = 300


def joined(*parts: Content, between: str = "\n\n") -> Content:
    """Put contents one after another; what has no image is text.

    >>> joined("a", "", "b")
    'a\\n\\nb'
    """
    flat: list[str | Image] = []
    for part in filter(None, parts):
        pieces = (part,) if isinstance(part, str) else part
        for piece in (between, *pieces) if flat else pieces:
            if isinstance(piece, str) and flat and isinstance(flat[-1], str):
                flat[-1] += piece
            else:
                flat.append(piece)
    if len(flat) == 1 and isinstance(flat[0], str):
        return flat[0]
    return tuple(flat) if flat else ""


def block(tag: str, content: Content, **labels: object) -> Content:
    """Put content between tags that do not occur in it, so that it cannot pretend to be over.

    >>> block("task", "Count.", agent="counter")
    '<task agent="counter">\\nCount.\\n</task>'
    """
    name = _free(tag, content)
    says = "".join(f' {label}="{value}"' for label, value in labels.items())
    return joined(f"<{name}{says}>", content, f"</{name}>", between="\n")


def _free(tag: str, content: Content) -> str:
    pieces = (content,) if isinstance(content, str) else content
    used = {
        int(number or 1)
        for piece in pieces
        if isinstance(piece, str)
        for number in re.findall(rf"</?\s*{tag}(?:-([0-9]{{1,9}}))?", piece, re.IGNORECASE)
    }
    number = next(number for number in itertools.count(1) if number not in used)
    return tag if number == 1 else f"{tag}-{number}"


def as_text(answer: Any, schema: SchemaSpec | None) -> str:
    """Return an answer as text: itself, or the JSON of a value that satisfies a schema."""
    return str(answer) if schema is None else jsonio.dumps(answer).decode()


def roster(members: Iterable[Member]) -> str:
    """List members with what they are for."""
    lines = (f"- {member.spec.name}: {_description(member)}" for member in members)
    return "The agents:\n" + "\n".join(dict.fromkeys(lines))


def _description(member: Member) -> str:
    text = " ".join((member.spec.description or member.spec.instruction).split())
    if len(text) > _LONGEST_DESCRIPTION and not member.spec.description:
        text = text[:_LONGEST_DESCRIPTION] + " …"
    return text or "(no description)"


def closed(**properties: Any) -> dict[str, Any]:
    """Return the JSON Schema of an object with these properties, all of them required."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def schema_of(name: str, **properties: Any) -> SchemaSpec:
    """Return the schema of a workflow's own model call."""
    return SchemaSpec(json=json.dumps(closed(**properties)), name=name)


def name_of(members: Iterable[Member]) -> dict[str, Any]:
    """Return the JSON Schema of the name of one of some members."""
    names = dict.fromkeys(member.spec.name for member in members)
    return {"type": "string", "enum": list(names)}


TEXT: dict[str, Any] = {"type": "string"}
FLAG: dict[str, Any] = {"type": "boolean"}
