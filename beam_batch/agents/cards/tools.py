"""What cards name on this machine: functions, skills, folders."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from beam_batch.agents.cards.checks import Card, nearest
from beam_batch.errors import OptionsError
from beam_batch.options.agents import FunctionSpec


def functions_of(card: Card) -> tuple[FunctionSpec, ...]:
    """Find the functions of a checked card; nothing is imported.

    Raises:
        OptionsError: a file or a function is not there.
    """
    _check_trust(card, "function_tools")
    return tuple(
        _function(card, text, place)
        for place, text in enumerate(card.fields.get("function_tools", ()))
    )


def _function(card: Card, text: str, place: int) -> FunctionSpec:
    at = ("function_tools", place)
    module, found, name = text.rpartition(":")
    if not found or not module or not name.isidentifier():
        raise card.error(
            f"function tool {text!r}: write file.py:function or package.module:function.", *at
        )
    if not module.endswith(".py"):
        if not all(part.isidentifier() for part in module.split(".")):
            raise card.error(f"function tool {text!r}: {module} is no name of a module.", *at)
        return FunctionSpec(function=name, module=module)
    path = (card.folder / module).resolve()
    if not path.is_file():
        raise card.error(f"function tool {text!r}: there is no file {path}.", *at)
    names = _names_in(card, path, at)
    if name not in names:
        raise card.error(
            f"function tool {text!r}: the file defines no {name}{nearest(name, names)}", *at
        )
    return FunctionSpec(function=name, file=str(path))


def _names_in(card: Card, path: Path, at: tuple[str | int, ...]) -> list[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise card.error(f"{path}:{error.lineno}: not Python ({error.msg}).", *at) from None
    except (OSError, ValueError) as error:
        raise card.error(f"{path}: cannot be read ({error}).", *at) from None
    return list(_bound(tree.body))


def _bound(body: list[ast.stmt]) -> Iterator[str]:
    """Name what the statements of a module bind, also below an if or a try."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _bound(node.body)
            yield from _bound(getattr(node, "orelse", []))
            for handler in getattr(node, "handlers", []):
                yield from _bound(handler.body)


def skills_of(card: Card) -> tuple[str, ...]:
    """Find the skill folders of a checked card, and read the heads of their skills.

    Raises:
        OptionsError: a folder is not there, holds no skill, or one that is not as it should be.
    """
    found = tuple(map(str, _folders(card, "skills")))
    if found:
        from beam_batch.agents.tools.skills import load_skills

        try:
            load_skills(found)
        except OptionsError as error:
            raise card.error(str(error), "skills") from None
    return found


def roots_of(card: Card) -> tuple[str, ...]:
    """Find the folders that the file tools of a checked card may read.

    Raises:
        OptionsError: one is not there.
    """
    return tuple(map(str, _folders(card, "roots")))


def _folders(card: Card, field: str) -> Iterator[Path]:
    _check_trust(card, field)
    for place, name in enumerate(card.fields.get(field, ())):
        folder = (card.folder / name).resolve()
        if not folder.is_dir():
            raise card.error(f"{field} names {folder}, which is no folder.", field, place)
        yield folder


def check_shell(card: Card) -> bool:
    """Return whether a checked card may run commands.

    Raises:
        OptionsError: it comes from elsewhere.
    """
    _check_trust(card, "shell")
    return bool(card.fields.get("shell"))


def _check_trust(card: Card, field: str) -> None:
    if card.fields.get(field) and not card.trusted:
        raise card.error(
            f"{field} is about this machine; a card from elsewhere may have it only with "
            "--trust-card.",
            field,
        )
