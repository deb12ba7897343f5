"""Chain: one member after another."""

from __future__ import annotations

from typing import Any

from beam_batch.agents.tools.base import RowRun
from beam_batch.agents.workflows.team import Team
from beam_batch.agents.workflows.texts import as_text, block, joined
from beam_batch.options import SchemaSpec
from beam_batch.records import Content


class Chain:
    """Gives each member the answer of the one before; with `cumulative`, all that was said so far.

    The result is the last member's answer.
    """

    def __init__(self, team: Team) -> None:
        self.spec = team.spec
        self._members = team.members
        self._cumulative = team.spec.settings["cumulative"]

    async def ask(self, message: Content, run: RowRun, schema: SchemaSpec | None = None) -> Any:
        """Pass the message through the chain; the last member's answer is held to the schema."""
        *first, last = self._members
        said: list[Content] = []
        now = message
        for member in first:
            answer = as_text(await member.ask(now, run), None)
            said.append(block("answer", answer, agent=member.spec.name))
            now = joined(block("request", message), *said) if self._cumulative else answer
        return await last.ask(now, run, schema)
