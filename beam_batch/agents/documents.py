"""YAML that stands for JSON: text, numbers, lists and mappings, with the line of each value."""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

from beam_batch import jsonio

DEEPEST = 40
MOST_VALUES = 20_000
"""Levels and values of one text, with aliases written out: a few lines can stand for millions."""

Path = tuple[str | int, ...]

_JSON_TAGS = ("str", "int", "float", "bool", "null", "map", "seq")
_PREFIX = "tag:yaml.org,2002:"


class Document(NamedTuple):
    """What a text says.

    Attributes:
        value: as JSON would have it.
        lines: the line of each value, counted from 1, by its path.
    """

    value: Any
    lines: dict[Path, int]


class BadYaml(Exception):
    """The text is no YAML, or more than JSON can say.

    Attributes:
        line: where, counted from 1.
    """

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates, sets and bytes, and without keys that are doubled or no text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == f"{_PREFIX}merge":
                continue
            if key.tag != f"{_PREFIX}str":
                text = key.value if isinstance(key, yaml.ScalarNode) else "of this mapping"
                raise BadYaml(_line(key), f"the key {text} is no text; put it in quotes")
            if key.value in seen:
                raise BadYaml(_line(key), f"{key.value} is there twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [found for found in resolvers if not found[0].endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_PREFIX) in _JSON_TAGS
}


def read_yaml(text: str) -> Document:
    """Read one YAML document.

    >>> read_yaml("a: [1, x]").value
    {'a': [1, 'x']}

    Raises:
        BadYaml: it is none, or holds what JSON cannot.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[Path, int] = {}
        if node is None:
            return Document(None, lines)
        _note_lines(node, (), lines)
        value = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadYaml(mark.line + 1 if mark else 1, error.problem or str(error)) from None
    except yaml.reader.ReaderError as error:
        raise BadYaml(1, f"it holds a character that YAML does not ({error.reason})") from None
    except ValueError as error:  # a number such as 0b, or one of thousands of digits
        raise BadYaml(1, str(error)) from None
    except RecursionError:
        raise BadYaml(1, f"it is nested deeper than {DEEPEST} levels") from None
    if jsonio.has_nan(value):
        raise BadYaml(1, "a number is NaN or infinite")
    return Document(value, lines)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _note_lines(node: yaml.Node, path: Path, lines: dict[Path, int]) -> None:
    """Note where each value begins; a key's line is that of its value."""
    lines[path] = _line(node)
    if len(lines) > MOST_VALUES:
        raise BadYaml(_line(node), f"it holds more than {MOST_VALUES:,} values")
    if len(path) > DEEPEST:
        raise BadYaml(_line(node), f"it is nested deeper than {DEEPEST} levels")
    if isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            _note_lines(item, (*path, place), lines)
    elif isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            _note_lines(item, (*path, str(key.value)), lines)
            lines[(*path, str(key.value))] = _line(key)
