"""What is said in a row's conversations, noted where traces are wanted."""

from __future__ import annotations

import time
from collections.abc import Sequence

from beam_batch.errors import RowError
from beam_batch.outputs.traces import Asked, Called, Event, Instructed, Replied, Returned, Used
from beam_batch.providers.base import Reply, ToolResult, Usage
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

    def replied(self, agent: str, said: Reply | RowError, *, paid: bool = True) -> None:
        """Note what its model said, good or not, and what that took unless it was there already."""
        if not self._wanted:
            return
        now = time.time()
        text = said.text if isinstance(said, Reply) else getattr(said, "reply", None)
        reason = getattr(said, "finish_reason", None)
        self.events.append(Replied(now, agent, text or "", reason or ""))
        for call in getattr(said, "calls", ()):
            self.events.append(Called(now, agent, call.id, call.name, call.arguments))
        usage: Usage | None = getattr(said, "usage", None)
        if paid and usage is not None:
            self.events.append(Used(now, agent, usage.as_dict()))

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
