"""What is said in a row's conversations, noted where traces are wanted."""

from __future__ import annotations

import time
from collections.abc import Sequence

from beam_batch.outputs.traces import Asked, Called, Event, Instructed, Replied, Returned, Used
from beam_batch.providers.base import Reply, ToolResult
from beam_batch.records import Content


class Talk:
    """Notes one row's conversations; does nothing where nobody wants them.

    Attributes:
        events: what was said, in order.
    """

    def __init__(self, wanted: bool) -> None:
        self.events: list[Event] = []
        self._wanted = wanted

    def begins(self, agent: str, model: str, instruction: str, message: Content) -> None:
        """Note that an agent is given a message."""
        if self._wanted:
            now = time.time()
            self.events.append(Instructed(now, agent, model, instruction))
            self.events.append(Asked(now, agent, message))

    def replied(self, agent: str, reply: Reply, paid: bool) -> None:
        """Note what its model said, and what that took where it was not there already."""
        if not self._wanted:
            return
        now = time.time()
        self.events.append(Replied(now, agent, reply.text, reply.finish_reason))
        for call in reply.calls:
            self.events.append(Called(now, agent, call.id, call.name, call.arguments))
        if paid:
            self.events.append(Used(now, agent, reply.usage.as_dict()))

    def returned(self, agent: str, results: Sequence[ToolResult]) -> None:
        """Note what tools said."""
        if self._wanted:
            now = time.time()
            for result in results:
                event = Returned(now, agent, result.call.id, result.text, result.is_error)
                self.events.append(event)

    def told(self, agent: str, message: str) -> None:
        """Note what an agent was told beside its message."""
        if self._wanted:
            self.events.append(Asked(time.time(), agent, message))
