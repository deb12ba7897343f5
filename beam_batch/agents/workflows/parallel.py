"""Parallel: all members at once, and one that brings their answers together."""

from __future__ import annotations

from typing import Any

from beam_batch.agents.member import together
from beam_batch.agents.tools.base import RowRun
from beam_batch.agents.workflows.team import Team
from beam_batch.agents.workflows.texts import as_text, block, joined
from beam_batch.options import SchemaSpec
from beam_batch.records import Content

_ANSWERS = "Several agents were given the same request. Their answers:"
_BRING_TOGETHER = "Bring their answers together into one."


class Parallel:
    """Gives all members the message, and their answers to fan_in.

    Without fan_in the result is the labelled answers; where it is to satisfy a schema, the
    workflow's own model brings them together.
    """

    def __init__(self, team: Team) -> None:
        self.spec = team.spec
        self._members = team.members
        self._fan_in = team.fan_in
        self._own = team.own
        self._includes_request = team.spec.settings["include_request"]

    async def ask(self, message: Content, run: RowRun, schema: SchemaSpec | None = None) -> Any:
        """Ask all, then have their answers brought together, to the schema."""
        answers = await together(member.ask(message, run) for member in self._members)
        said = [
            block("answer", as_text(answer, None), agent=member.spec.name)
            for member, answer in zip(self._members, answers, strict=True)
        ]
        if self._fan_in is None and schema is None:
            return joined(*said)
        request = block("request", message) if self._includes_request else ""
        told = joined(_ANSWERS, request, *said)
        if self._fan_in is not None:
            return await self._fan_in.ask(told, run, schema)
        return await self._own.ask(joined(told, _BRING_TOGETHER), run, schema)
