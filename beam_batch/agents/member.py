"""What agents and workflows have in common: they answer a message, in text or to a schema."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from beam_batch.agents.tools.base import RowRun
from beam_batch.calling.gate import Dropped
from beam_batch.options import SchemaSpec
from beam_batch.options.agents import AgentSpec
from beam_batch.records import Content

T = TypeVar("T")


class Member(Protocol):
    """One agent or workflow of a worker; it serves many rows at once and keeps nothing of them."""

    spec: AgentSpec

    async def ask(self, message: Content, run: RowRun, schema: SchemaSpec | None = None) -> Any:
        """Answer a message: with text, or with a value that satisfies the schema.

        Raises:
            RowError: there is no answer.
            FatalReply, Dropped: no row of the run can have one, or the run stopped first.
        """


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Wait for all, in order; the first failure ends the others before it is raised.

    Where the run has stopped, the others come to their end: what is in flight is paid for.
    """
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException as error:
        if not isinstance(error, Dropped):
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
