"""How a worker's agents are put together, once a worker process."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from beam_batch.agents.cards.members import members
from beam_batch.agents.cards.models import model_of, models_of
from beam_batch.agents.children import ChildTool
from beam_batch.agents.loop import Agent, Asker, MakeAsker
from beam_batch.agents.member import Member
from beam_batch.agents.tools.base import Room, RowRun, Tool
from beam_batch.agents.tools.skills import load_skills, skills_prompt
from beam_batch.agents.tools.toolbox import tools_of, unique
from beam_batch.agents.workflows import make_workflow
from beam_batch.calling.cache_keys import cache_keys
from beam_batch.calling.caller import Caller
from beam_batch.calling.gate import Gate, GateSpec
from beam_batch.calling.setup import WindowSpec, make_caller
from beam_batch.calling.trail import Trail
from beam_batch.errors import ToolServerDied
from beam_batch.options import SchemaSpec
from beam_batch.options.agents import AGENT, AgentSpec, CrewSpec
from beam_batch.prompts.schema import make_validator
from beam_batch.providers import PROVIDERS, make_provider
from beam_batch.providers.base import NO_TOOLS, Tools
from beam_batch.records import Prompt

if TYPE_CHECKING:
    from beam_batch.agents.mcp.servers import Servers


async def make_crew(spec: WindowSpec, limits: GateSpec, stopping: asyncio.Event) -> Crew:
    """Start what the agents of a run need: models, MCP servers, tools.

    Raises:
        FatalReply: an MCP server does not start.
        OptionsError: a tool cannot be made.
    """
    assert spec.crew is not None
    callers: dict[str, Caller] = {}
    gates: dict[tuple[str, str], Gate] = {}
    for model in (spec.model, *(model for _, model in models_of(spec.crew))):
        if model.text not in callers:  # with options of its own it is another, behind the same gate
            gate = gates.get((model.name, model.base_url))
            callers[model.text] = made = make_caller(spec, model, limits, stopping, gate)
            gates[model.name, model.base_url] = made.gate
    async with AsyncExitStack() as opened:
        servers = await _start_servers(spec, opened)
        member = _Assembly(spec, callers, servers).member(spec.crew.selected)
        crew = Crew(list(callers.values()), member, servers, spec.schema, stopping)
        crew.opened = opened.pop_all()
    return crew


async def _start_servers(spec: WindowSpec, opened: AsyncExitStack) -> Servers | None:
    """Start the MCP servers of all cards; their client takes seconds to import."""
    assert spec.crew is not None
    wanted = [server for agent in spec.crew.agents.values() for server in agent.servers]
    if not wanted:
        return None
    from beam_batch.agents.mcp.servers import Servers

    log = None
    if spec.record is not None and spec.record.work.is_folder:
        file = spec.record.work.log.open("a", buffering=1, encoding="utf-8", errors="replace")
        log = opened.enter_context(file)
    servers = Servers(wanted, os.environ, log)
    opened.push_async_callback(servers.close)
    await servers.start()
    return servers


class Crew:
    """The agents of a worker: answers rows through the selected one.

    Attributes:
        opened: servers and their log; closed with it.
    """

    lists_calls = True

    def __init__(
        self,
        callers: Sequence[Caller],
        member: Member,
        servers: Servers | None,
        schema: SchemaSpec | None,
        stopping: asyncio.Event,
    ) -> None:
        self._room = Room()
        self._stopping = stopping
        self.callers = callers
        self._member = member
        self._schema = schema
        self.opened = AsyncExitStack()
        self.secrets = servers.secrets if servers is not None else ()

    async def work(self, prompt: Prompt, trail: Trail) -> Any:
        """Have one row answered; once more, apart from others, where an MCP server died."""
        try:
            return await self._ask(prompt, trail)
        except ToolServerDied:
            trail.count("restarts")
            return await self._ask(prompt, trail, alone=True)

    async def _ask(self, prompt: Prompt, trail: Trail, *, alone: bool = False) -> Any:
        run = RowRun(prompt.row, trail, stopping=self._stopping, room=self._room, alone=alone)
        async with run.open:
            return await self._member.ask(prompt.text, run, self._schema)

    async def close(self) -> None:
        """End the servers and close the models' connections."""
        closing = [caller.close() for caller in self.callers]
        await asyncio.gather(*closing, self.opened.aclose(), return_exceptions=True)


class _Assembly:
    """Makes members out of cards; each once, whoever uses it."""

    def __init__(
        self, spec: WindowSpec, callers: dict[str, Caller], servers: Servers | None
    ) -> None:
        assert spec.crew is not None
        self._spec = spec
        self._crew: CrewSpec = spec.crew
        self._callers = callers
        self._servers = servers
        self._made: dict[str, Member] = {}

    def member(self, name: str) -> Member:
        """Return a member by its name; the cards are free of cycles."""
        if name not in self._made:
            self._made[name] = self._make(self._crew.agents[name])
        return self._made[name]

    def _make(self, agent: AgentSpec) -> Member:
        if agent.type == AGENT:
            own = tools_of(agent, shell=self._crew.shell, servers=self._servers, env=os.environ)
            children = [ChildTool(self.member(name)) for name in agent.agents]
            skills = skills_prompt(load_skills(agent.skills))
            told = "\n\n".join(filter(None, (agent.instruction, skills)))
            return self._agent(
                dataclasses.replace(agent, instruction=told), unique([*own, *children])
            )
        team = {name: self.member(name) for name in members(agent)}
        return make_workflow(agent, team, self._agent(agent, []))

    def _agent(self, agent: AgentSpec, tools: Sequence[Tool]) -> Agent:
        make_asker = self._asker_of(agent, [tool.spec for tool in tools])
        return Agent(agent, make_asker, tools, self._spec.repair.reask)

    def _asker_of(self, agent: AgentSpec, tools: Sequence[Any]) -> MakeAsker:
        model = model_of(agent)
        offered = Tools(tuple(tools), agent.loop.parallel_tool_calls) if tools else NO_TOOLS
        base = self._callers[model.text]

        def caller(schema: SchemaSpec | None, offered: Tools) -> Caller:
            provider = make_provider(model, schema, offered)
            stable = f"{schema.json if schema else ''}{offered.specs}{agent.instruction}"
            takes_key = PROVIDERS[model.provider].takes_cache_key
            return base.asking_for(
                agent.name,
                provider,
                make_validator(schema, provider.wraps),
                cache_keys(stable) if takes_key else None,
            )

        def make(schema: SchemaSpec | None) -> Asker:
            with_all = caller(schema, offered)
            if schema is None or not tools or not with_all.provider.defers_schema:
                return Asker(with_all, None)
            return Asker(caller(None, offered), caller(schema, NO_TOOLS))

        return make
