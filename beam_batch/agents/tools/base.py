"""What an agent's loop knows of a tool, whatever is behind it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from beam_batch.agents.tools.threads import Threads
from beam_batch.calling.trail import Trail
from beam_batch.providers.base import ToolSpec
from beam_batch.records import Row

MOST_COMMANDS = 8
"""Commands of a worker at a time; each is three processes or more."""


class ToolReply(NamedTuple):
    """What a tool says to the model."""

    text: str
    is_error: bool = False


@dataclass
class Room:
    """How much of this machine all rows of a worker may use at once."""

    threads: Threads = field(default_factory=Threads)
    commands: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_COMMANDS))


@dataclass
class RowRun:
    """What the agents of one row share.

    Attributes:
        open: what is open for this row alone; closed when the row has its outcome.
        sessions: MCP sessions of this row alone, by the server's key.
        folder: where its commands run if their card names no folder; made by the first of them.
        stopping: set when the run is to end: tools are waited for no longer.
        room: of the worker, for all its rows.
        alone: whether it uses sessions of its own, also where servers are shared: it was at work
            when a shared one died.
        fresh: whether each model call is to be a sample of its own, never a reply used again.
    """

    row: Row
    trail: Trail
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    open: AsyncExitStack = field(default_factory=AsyncExitStack)
    sessions: dict[str, Any] = field(default_factory=dict)
    folder: str | None = None
    room: Room = field(default_factory=Room)
    alone: bool = False
    fresh: bool = False


class Tool(Protocol):
    """Something that a model may call.

    Attributes:
        spec: its name (letters, digits, _ and -, at most 64), description and parameters.
    """

    spec: ToolSpec

    async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
        """Do what it does; what goes wrong with the arguments or the work is an error reply.

        Raises:
            RowError: the row cannot go on (ToolServerFailed, RowCostReached, or a provider's
                error where the tool is an agent).
        """
