"""Names that texts hold: ``{{name}}`` for variables of the run, ``${NAME}`` for the environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON, OptionsError

_PLACEHOLDER = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
_ENV = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}")


class UnsetVariable(Exception):
    """A variable of the environment that a text names is not set, and has no default."""


def read_variables(
    pairs: Sequence[str], files: Sequence[str], json_file: str | None
) -> dict[str, str]:
    """Bring together ``--vars-json``, ``--var-file`` and ``--var``; the later ones win.

    Raises:
        OptionsError: not NAME=VALUE, or a file that cannot be read.
    """
    values = _read_json(json_file) if json_file else {}
    for text in files:
        name, path = _pair("--var-file", text, "PATH")
        values[name] = _read(f"--var-file {name}", path)
    values.update(_pair("--var", text, "VALUE") for text in pairs)
    return values


def _pair(flag: str, text: str, what: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise OptionsError(f"{flag} {text}: write it as NAME={what}.")
    return _checked(flag, name), value


def _checked(flag: str, name: str) -> str:
    if not _PLACEHOLDER.fullmatch("{{" + name + "}}") or name != name.strip():
        raise OptionsError(f"{flag}: {name!r} is no name for a variable.")
    return name


def _read(flag: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise OptionsError(f"{flag}: {path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise OptionsError(f"{flag}: {path} is not UTF-8 ({error.reason}).") from None


def _read_json(path: str) -> dict[str, str]:
    try:
        found = jsonio.loads(_read("--vars-json", path))
    except InvalidJSON as error:
        raise OptionsError(f"--vars-json {path}: not JSON ({error}).") from None
    if not isinstance(found, dict):
        raise OptionsError(f"--vars-json {path}: wants an object of names and texts.")
    for name, value in found.items():
        _checked(f"--vars-json {path}", name)
        if not isinstance(value, str):
            raise OptionsError(f"--vars-json {path}: {name} wants text, got {value!r}.")
    return found


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put variables into a text, in one pass; other placeholders stay as they are.

    >>> fill("Be {{tone}}, {{ name }}.", {"tone": "kind"})
    'Be kind, {{ name }}.'
    """
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


def placeholders(text: str) -> tuple[str, ...]:
    """Name what a text wants to be filled with, in order."""
    return tuple(dict.fromkeys(_PLACEHOLDER.findall(text)))


def expand(
    text: str, env: Mapping[str, str], found: Callable[[str], None] = lambda value: None
) -> str:
    """Put the environment into a text: ``${NAME}`` and ``${NAME:default}``; ``$${`` is ``${``.

    `found` is told each value that came from the environment. Expand a text once only: what an
    escape stands for would be a variable the second time.

    >>> expand("${A} ${B:two} $${C}", {"A": "one"})
    'one two ${C}'

    Raises:
        UnsetVariable: one is not set and has no default.
    """

    def value(match: re.Match[str]) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return match[0][1:]
        if name in env:
            found(env[name])
            return env[name]
        if default is None:
            raise UnsetVariable(name)
        return str(default)

    return _ENV.sub(value, text)


def names_environment(text: str) -> bool:
    """Whether a text asks for a variable of the environment."""
    return any(not match[1] for match in _ENV.finditer(text))
