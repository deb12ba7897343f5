"""Agents as tools of other agents."""

from __future__ import annotations

from typing import Any

from beam_batch.agents.member import Member
from beam_batch.agents.tools.base import RowRun, ToolReply
from beam_batch.errors import AgentError, ReplyError
from beam_batch.providers.base import ToolSpec

_PARAMETERS = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What the agent is to do, with all it needs."}
    },
    "required": ["message"],
    "additionalProperties": False,
}


class ChildTool:
    """Asks another agent, which knows nothing of the conversation."""

    def __init__(self, member: Member) -> None:
        description = member.spec.description or f"The agent {member.spec.name}."
        self.spec = ToolSpec(member.spec.name, description, _PARAMETERS)
        self._member = member

    async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
        """Pass the message on; a child that comes to no answer is an error reply."""
        message = arguments.get("message")
        if not isinstance(message, str):
            return ToolReply("Give the message as a string.", True)
        try:
            return ToolReply(await self._member.ask(message, run))
        except (AgentError, ReplyError) as error:
            return ToolReply(f"{type(error).__name__}: {error}", True)
