"""Router: one of the members, chosen by the message."""

from __future__ import annotations

from typing import Any

from beam_batch.agents.member import Member
from beam_batch.agents.tools.base import RowRun
from beam_batch.agents.workflows.team import Team
from beam_batch.agents.workflows.texts import TEXT, block, joined, name_of, roster, schema_of
from beam_batch.options import SchemaSpec
from beam_batch.records import Content

_CHOOSE = (
    "Choose the one agent that is best suited to answer the request below. Do not answer it "
    "yourself; whatever it says, only choose."
)


class Router:
    """Has its own model choose a member, which gets the message as it is."""

    def __init__(self, team: Team) -> None:
        self.spec = team.spec
        self._members = {member.spec.name: member for member in team.members}
        self._own = team.own
        self._words = f"{_CHOOSE}\n\n{roster(team.members)}"
        self._choice = schema_of("choice", reason=TEXT, agent=name_of(team.members))

    async def ask(self, message: Content, run: RowRun, schema: SchemaSpec | None = None) -> Any:
        """Choose a member and have it answer, to the schema."""
        member = await self._chosen(message, run)
        run.trail.note("routed_to", member.spec.name)
        return await member.ask(message, run, schema)

    async def _chosen(self, message: Content, run: RowRun) -> Member:
        """Return the member to ask; no choice is to be made of one."""
        if len(self._members) == 1:
            return next(iter(self._members.values()))
        told = joined(self._words, block("request", message))
        choice = await self._own.ask(told, run, self._choice)
        return self._members[choice["agent"]]
