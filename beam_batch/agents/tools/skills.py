"""Skills: folders with a SKILL.md, whose body a model reads when it wants to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from beam_batch.agents.tools.base import RowRun, Tool, ToolReply
from beam_batch.agents.tools.folders import NotAllowed, read_text
from beam_batch.agents.tools.threads import NoThread, Threads
from beam_batch.errors import OptionsError, first_line
from beam_batch.providers.base import ToolSpec

BODY = "SKILL.md"
LONGEST_DESCRIPTION = 1024


class Skill(NamedTuple):
    """One skill; `folder` is resolved."""

    name: str
    description: str
    folder: Path


def load_skills(folders: Iterable[str]) -> list[Skill]:
    """Read the heads of skills; a folder without a SKILL.md stands for the skills in it.

    Raises:
        OptionsError: a folder holds none, a head is not as it should be, or two share a name.
    """
    skills: dict[str, Skill] = {}
    for folder in folders:
        for path in _skill_folders(Path(folder)):
            skill = _load(path)
            known = skills.setdefault(skill.name, skill)
            if known.folder != skill.folder:
                raise OptionsError(
                    f"skills {known.folder} and {skill.folder} share the name {skill.name!r}."
                )
    return list(skills.values())


def skills_prompt(skills: Sequence[Skill]) -> str:
    """Return what the system prompt says of skills; '' where there are none."""
    if not skills:
        return ""
    listed = "\n".join(
        f"  <skill>\n    <name>{escape(skill.name, quote=False)}</name>\n"
        f"    <description>{escape(skill.description, quote=False)}</description>\n  </skill>"
        for skill in skills
    )
    return (
        "Skills are instructions for particular kinds of work. Where one fits, read it with the "
        f"tool read_skill before you begin.\n<available_skills>\n{listed}\n</available_skills>"
    )


@dataclass
class ReadSkill:
    """The tool that reads a file of a skill, and nothing outside of its folder."""

    skills: Sequence[Skill]
    spec: ToolSpec
    timeout: float

    async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
        """Read a file of a skill."""
        name, path = arguments.get("name"), arguments.get("path") or BODY
        for skill in self.skills:
            if skill.name == name and isinstance(path, str):
                return await self._read(path, skill.folder, run.room.threads)
        known = ", ".join(skill.name for skill in self.skills)
        return ToolReply(f"There is no skill {name!r}; there are {known}.", is_error=True)

    async def _read(self, path: str, folder: Path, threads: Threads) -> ToolReply:
        try:
            return ToolReply(await threads.run(read_text, path, [folder], timeout=self.timeout))
        except (NotAllowed, NoThread) as error:
            return ToolReply(str(error), is_error=True)
        except TimeoutError:
            return ToolReply(f"It was not read within {self.timeout:g} s.", is_error=True)


def read_skill(skills: Sequence[Skill], timeout: float) -> Tool:
    """Return the tool that reads skills."""
    name = {"type": "string", "enum": [skill.name for skill in skills]}
    path = {"type": "string", "description": "A file that the skill names.", "default": BODY}
    parameters = {
        "type": "object",
        "properties": {"name": name, "path": path},
        "required": ["name"],
        "additionalProperties": False,
    }
    description = "Read the instructions of a skill, or another file of its folder."
    return ReadSkill(skills, ToolSpec("read_skill", description, parameters), timeout)


def _skill_folders(folder: Path) -> list[Path]:
    if (folder / BODY).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{BODY}"))
    if not found:
        raise OptionsError(f"skills: there is no {BODY} in {folder}, nor one folder below.")
    return found


def _load(folder: Path) -> Skill:
    from beam_batch.agents.documents import BadYaml, read_yaml  # PyYAML is an extra

    where = f"skill {folder / BODY}"
    try:
        text = (folder / BODY).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionsError(f"{where} cannot be read: {first_line(error)}.") from None
    first, _, rest = text.lstrip("\ufeff").partition("\n")
    head, end, _ = rest.partition("\n---")
    if first.strip() != "---" or not end:
        raise OptionsError(f"{where} must begin with a head between two lines of ---.")
    try:
        values = read_yaml(head).value
    except BadYaml as error:
        raise OptionsError(f"{where}:{error.line + 1}: {error}.") from None
    if not isinstance(values, dict):
        values = {}
    name, description = values.get("name"), values.get("description")
    for key, value in (("name", name), ("description", description)):
        if not isinstance(value, str) or not value.strip():
            raise OptionsError(f"{where}: its head needs a {key}.")
    return Skill(
        " ".join(str(name).split()),
        " ".join(str(description).split())[:LONGEST_DESCRIPTION],
        Path(os.path.realpath(folder)),
    )
