"""One card as fields: read, and checked against what its type takes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import jsonschema_rs

from beam_batch.agents.cards.fields import LISTS, TYPES, Schema, mapping, types_with
from beam_batch.agents.cards.files import CardText, has_front_matter
from beam_batch.agents.cards.foreign import IGNORED, OTHER_NAMES, REFUSED
from beam_batch.agents.cards.variables import UnsetVariable, expand, names_environment
from beam_batch.errors import OptionsError
from beam_batch.options.agents import AGENT

Where = tuple[str | int, ...]

_LATE = (("env",), ("headers",), ("command",), ("args",), ("url",), ("target",))
"""Keys of servers whose texts the worker expands, so that no secret is in a spec."""
_ONE_OR_MORE = ("skills", "roots", "function_tools")


@dataclass
class Card:
    """One card.

    Attributes:
        fields: its YAML; once `check`ed, of the types that `fields` says.
        body: what stands below the front matter.
        trusted: whether it may name what is on this machine.
        lines: of its fields, by path.
        notes: what a user should know though nothing is wrong.
    """

    source: str
    stem: str
    folder: Path
    is_remote: bool
    trusted: bool
    fields: dict[str, Any]
    body: str
    lines: Mapping[Where, int]
    type: str = AGENT
    notes: list[str] = field(default_factory=list)

    def error(self, message: str, *path: str | int) -> OptionsError:
        """Return an error that says where it is."""
        return OptionsError(f"card {self._place(path)}: {message}")

    def note(self, message: str) -> None:
        """Keep a note."""
        self.notes.append(f"card {self.source}: {message}")

    def _place(self, path: Where) -> str:
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.source}:{self.lines[path[:end]]}"
        return self.source


def parse_card(found: CardText, trust: bool) -> Card:
    """Read the YAML of a card.

    Raises:
        OptionsError: it is none, or PyYAML is not installed.
    """
    try:
        from beam_batch.agents.documents import BadYaml, read_yaml
    except ImportError:
        raise OptionsError(
            f"--agent-card {found.source} needs PyYAML: pip install 'beam-batch[agents]'."
        ) from None
    text, body, above = _split(found)
    try:
        document = read_yaml(text)
    except BadYaml as error:
        raise OptionsError(f"card {found.source}:{error.line + above}: {error}.") from None
    if not isinstance(document.value, dict):
        raise OptionsError(f"card {found.source}: its YAML is no mapping of fields.")
    return Card(
        source=found.source,
        stem=found.stem,
        folder=found.folder,
        is_remote=found.is_remote,
        trusted=trust or not found.is_remote,
        fields={name: value for name, value in document.value.items() if value is not None},
        body=body,
        lines={path: line + above for path, line in document.lines.items()},
    )


def _split(found: CardText) -> tuple[str, str, int]:
    """Return a card's YAML, its body and the number of lines above its YAML."""
    if not found.is_markdown:
        return found.text, "", 0
    if not has_front_matter(found.text):
        raise OptionsError(
            f"card {found.source}: it has no front matter between --- and ---; a plain "
            "instruction goes with --instruction."
        )
    lines = found.text.split("\n")
    for place, line in enumerate(lines[1:], 1):
        if line.rstrip() == "---":
            return "\n".join(lines[1:place]), "\n".join(lines[place + 1 :]).strip(), 1
    raise OptionsError(f"card {found.source}: its front matter has no second ---.")


def check(card: Card, env: Mapping[str, str]) -> None:
    """Bring the fields into one form, and check them.

    Raises:
        OptionsError: a field is unknown, missing, or not what it should be.
    """
    _check_environment(card, env)
    card.type = _type_of(card)
    _check_names(card)
    fields = {name: card.fields[name] for name in card.fields if name not in IGNORED}
    for name in _ONE_OR_MORE:
        if isinstance(fields.get(name), str):
            fields[name] = [fields[name]]
    if isinstance(fields.get("variables"), dict):
        fields["variables"] = _variables_of(fields["variables"])
    if isinstance(fields.get("request_params"), dict):
        params = fields["request_params"].items()
        fields["request_params"] = {OTHER_NAMES.get(name, name): value for name, value in params}
    known = TYPES[card.type].fields
    card.fields = fields = {name: _cased(known[name], fields[name]) for name in fields}
    lists = {name: LISTS[name] for name in LISTS if isinstance(fields.get(name), list)}
    check_value(card, fields, mapping("fields", **(known | lists)), ())
    for name in TYPES[card.type].members:
        if name not in fields and card.type != AGENT:
            raise card.error(f"type {card.type} needs {name}.")


def _cased(schema: Schema, value: Any) -> Any:
    """Write a word out of some as its field does."""
    words = {str(word).lower(): word for word in schema.get("enum", ())}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def _variables_of(found: dict[str, Any]) -> list[Any]:
    """Write a mapping of variables as the list that it is short for."""
    return [
        {"name": name, **value} if isinstance(value, dict) else {"name": name, "default": value}
        for name, value in found.items()
    ]


def _type_of(card: Card) -> str:
    given = card.fields.get("type", AGENT)
    kind = str(given).lower().replace("-", "_")
    if kind == "smart":
        card.note("type smart is an old word for agent.")
        return AGENT
    if kind == "a2a":
        raise card.error(f"type a2a: {REFUSED['url']}.", "type")
    if not isinstance(given, str) or kind not in TYPES:
        raise card.error(f"type wants one of {', '.join(TYPES)}; got {given!r}.", "type")
    return kind


def _check_names(card: Card) -> None:
    """Refuse unknown fields, each with what may help."""
    known = TYPES[card.type].fields
    for name in card.fields:
        if name in known:
            continue
        if name in IGNORED:
            card.note(f"{name} has no effect: {IGNORED[name]}.")
            continue
        if name in REFUSED:
            raise card.error(f"{name} is not taken: {REFUSED[name]}.", name)
        others = types_with(name)
        if others:
            raise card.error(
                f"{name} is a field of type {' and '.join(others)}; this card is of type "
                f"{card.type}.",
                name,
            )
        raise card.error(f"unknown field {name}{nearest(name, known)}", name)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message that names what somebody may have meant."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else "."


class Source(Protocol):
    """Where values come from: a card, or a file of servers."""

    def error(self, message: str, *path: str | int) -> OptionsError:
        """Return an error that says where it is."""


def check_value(source: Source, value: Any, schema: Schema, at: Where) -> None:
    """Check a value that stands at a path of a card or file.

    Raises:
        OptionsError: it does not satisfy the schema.
    """
    error = next(iter(jsonschema_rs.validator_for(schema).iter_errors(value)), None)
    if error is None:
        return
    path = (*at, *error.instance_path)
    where = ".".join(map(str, path))
    found = _schema_at(schema, error.schema_path[:-1])
    kind: Any = error.kind
    if kind.name == "additionalProperties":
        name = sorted(kind.unexpected)[0]
        full = f"{where}.{name}" if where else name
        if full in REFUSED:
            raise source.error(f"{full} is not taken: {REFUSED[full]}.", *path, name)
        close = nearest(name, found["properties"])
        raise source.error(f"unknown field {full}{close}", *path, name)
    if kind.name == "required":
        raise source.error(f"{where} needs {kind.property}.", *path)
    seen = repr(error.instance)
    seen = seen if len(seen) <= 60 else seen[:57] + "..."
    raise source.error(f"{where} wants {found['description']}; got {seen}.", *path)


def _schema_at(schema: Schema, path: Iterable[str | int]) -> Schema:
    """Return the innermost schema on a path that says in words what it wants."""
    found: Any = schema
    described = schema
    for step in path:
        found = found[step]
        if isinstance(found, dict) and isinstance(found.get("description"), str):
            described = found
    return described


def _check_environment(card: Card, env: Mapping[str, str]) -> None:
    """Expand ``${NAME}``, or refuse it where somebody else wrote the card."""

    def walk(value: Any, path: Where) -> Any:
        if isinstance(value, dict):
            return {name: walk(item, (*path, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, place)) for place, item in enumerate(value)]
        return expanded(value, path) if isinstance(value, str) else value

    def expanded(text: str, path: Where) -> str:
        if not card.trusted and names_environment(text):
            raise card.error(
                f"{_at(path)} asks for a variable of the environment; a card from elsewhere may "
                "do so only with --trust-card.",
                *path,
            )
        if is_late(path):
            return text
        try:
            return expand(text, env)
        except UnsetVariable as unset:
            raise card.error(
                f"{_at(path)} names ${{{unset}}}, which is not set; set it, or write a default: "
                f"${{{unset}:default}}.",
                *path,
            ) from None

    card.fields = walk(card.fields, ())
    card.body = expanded(card.body, ())


def is_late(path: Where) -> bool:
    """Whether the worker expands the text at a path of a card, rather than the driver."""
    return path[:1] in (("servers",), ("mcp_connect",)) and path[2:3] in _LATE


def _at(path: Where) -> str:
    return ".".join(map(str, path)) or "the instruction"
