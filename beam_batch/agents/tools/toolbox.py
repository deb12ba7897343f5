"""All tools of one agent, under names that tell them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from beam_batch.agents.tools.base import RowRun, Tool, ToolReply
from beam_batch.agents.tools.local import command_tool, file_tools
from beam_batch.agents.tools.names import LONGEST_NAME, usable
from beam_batch.agents.tools.skills import load_skills, read_skill
from beam_batch.options.agents import AgentSpec
from beam_batch.providers.base import ToolSpec

if TYPE_CHECKING:  # which takes as long to import as all of the rest
    from beam_batch.agents.mcp.servers import Servers


def tools_of(
    agent: AgentSpec, *, shell: bool, servers: Servers | None, env: Mapping[str, str]
) -> list[Tool]:
    """Return an agent's own tools, always in the same order: they are part of the cached prefix.

    Args:
        shell: whether the run allows commands; the card must as well.
        servers: those of the run, started; None where no card has any.
        env: the worker's environment; commands see the part of it that every process may see.

    Raises:
        OptionsError: a function or a skill is not usable.
    """
    tools: list[Tool] = []
    if agent.functions:
        from beam_batch.agents.tools.functions import tool_of  # imports Pydantic

        tools += [tool_of(function, agent.loop.tool_timeout) for function in agent.functions]
    for server in agent.servers:
        assert servers is not None
        tools += servers.tools_of(server)
    if agent.skills:
        tools.append(read_skill(load_skills(agent.skills), agent.loop.tool_timeout))
    if agent.roots:
        tools += file_tools(agent.roots, agent.loop.tool_timeout)
    if agent.shell and shell:
        tools.append(command_tool(agent.roots, env, agent.loop.tool_timeout))
    return unique(tools)


def unique(tools: Sequence[Tool]) -> list[Tool]:
    """Give tools that share a name their origin before it: ``server__tool``; a number if need be.

    Tools of no origin (skills, files, commands, agents) keep their names.
    """
    counts = Counter(tool.spec.name for tool in tools)
    taken = {tool.spec.name for tool in tools if counts[tool.spec.name] == 1 or not _origin(tool)}
    named: list[Tool] = []
    seen: set[str] = set()
    for tool in tools:
        name = tool.spec.name
        if counts[name] > 1 and _origin(tool):
            name = usable(f"{_origin(tool)}__{name}")
        if name != tool.spec.name or name in seen:
            name = _free(name, taken | seen)
            tool = Renamed(tool.spec._replace(name=name), tool)
        seen.add(name)
        named.append(tool)
    return named


@dataclass
class Renamed:
    """A tool under another name."""

    spec: ToolSpec
    tool: Tool

    async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
        """Call the tool itself."""
        return await self.tool.call(arguments, run)


def _origin(tool: Tool) -> str:
    return getattr(tool, "origin", "")


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name[: LONGEST_NAME - 4]}_{number}"
    return free
