"""One agent on one message: ask the model, call the tools it wants, ask again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from beam_batch import jsonio
from beam_batch.agents.children import ChildTool
from beam_batch.agents.member import together
from beam_batch.agents.tools.base import RowRun, Tool, ToolReply
from beam_batch.calling.caller import Caller
from beam_batch.calling.gate import Dropped
from beam_batch.calling.judging import complaint, judge
from beam_batch.errors import (
    BatchError,
    InvalidJSON,
    RepeatedCall,
    StructuredOutputError,
    TooManyIterations,
)
from beam_batch.options import SchemaSpec
from beam_batch.options.agents import AgentSpec
from beam_batch.providers.base import Reply, ToolCall, ToolResult, Turn
from beam_batch.records import Content

MOST_CALLS, MOST_AT_ONCE = 32, 8
"""Tool calls of one reply that are made, and how many of them at a time."""
_TOO_MANY = f"Not done: only the first {MOST_CALLS} calls of a reply are made."
_GIVE_RESULT = "Now give the result of your work, as JSON in the form that is asked for."


class Asker(NamedTuple):
    """Who is asked in one loop.

    Attributes:
        caller: knows the tools, and the schema unless `last` has it.
        last: asked for the result where the provider takes tools or a schema, but not both.
    """

    caller: Caller
    last: Caller | None


MakeAsker = Callable[[SchemaSpec | None], Asker]


class Agent:
    """A model with an instruction and tools; serves many rows at once."""

    def __init__(
        self,
        spec: AgentSpec,
        make_asker: MakeAsker,
        tools: Sequence[Tool] = (),
        reask: int = 0,
    ) -> None:
        self.spec = spec
        self._make_asker = make_asker
        self._askers: dict[str | None, Asker] = {}
        self._tools = {tool.spec.name: tool for tool in tools}
        self._reask = reask

    async def ask(self, message: Content, run: RowRun, schema: SchemaSpec | None = None) -> Any:
        """Answer a message: with text, or with a value that satisfies the schema.

        Raises:
            TooManyIterations, RepeatedCall: the model does not come to an end.
            StructuredOutputError: its answer does not satisfy the schema.
        """
        return await _Conversation(self, message, run, self._asker(schema)).answer()

    def _asker(self, schema: SchemaSpec | None) -> Asker:
        key = schema.json if schema is not None else None
        if key not in self._askers:
            self._askers[key] = self._make_asker(schema)
        return self._askers[key]

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Its tools by name."""
        return self._tools

    @property
    def reasks(self) -> int:
        """Times to ask again for a result that satisfies the schema."""
        return self._reask


class _Conversation:
    """One agent's work on one message."""

    def __init__(self, agent: Agent, message: Content, run: RowRun, asker: Asker) -> None:
        self._agent = agent
        self._limits = agent.spec.loop
        self._message = message
        self._run = run
        self._caller = asker.caller
        self._last = asker.last
        self._history: tuple[Turn, ...] = ()
        self._seen: Counter[tuple[str, str, str]] = Counter()
        self._reasks = agent.reasks

    async def answer(self) -> Any:
        """Go on until there is an answer that holds."""
        talk, name = self._run.trail.talk, self._agent.spec.name
        talk.begins(name, self._caller.model, self._agent.spec.instruction, self._message)
        calls = self._limits.max_iterations + (self._last is not None)
        renew = False
        for _ in range(calls):
            request = self._caller.to_request(
                self._agent.spec.instruction, self._message, self._history
            )
            reply = await self._caller.ask(
                request, self._run.trail, fresh=self._run.fresh, renew=renew
            )
            renew = False
            if reply.calls:
                self._history += (Turn(reply, await self._call_all(reply)),)
                continue
            try:
                judged = judge(self._caller.validate, reply.text)
            except StructuredOutputError as error:
                renew = self._run.trail.drop_source("cache")  # judged by another schema
                await self._caller.forget(request)
                if not renew:
                    self._complain(reply, error)
                continue
            if self._last is None:
                if judged.was_repaired:
                    self._run.trail.note("repaired", True)
                return judged.result
            self._tell(reply, _GIVE_RESULT)
            self._caller, self._last = self._last, None
        raise TooManyIterations(
            f"agent {self._agent.spec.name}: no answer after max_iterations="
            f"{self._limits.max_iterations} model calls"
        )

    def _complain(self, reply: Reply, error: StructuredOutputError) -> None:
        """Have the model answer again, if it may."""
        if self._reasks <= 0:
            raise error
        self._reasks -= 1
        self._tell(reply, complaint(error))
        self._run.trail.count("reasks")

    def _tell(self, reply: Reply, message: str) -> None:
        self._history += (Turn(reply, message=message),)
        self._run.trail.talk.told(self._agent.spec.name, message)

    async def _call_all(self, reply: Reply) -> tuple[ToolResult, ...]:
        """Call what a reply wants called, some at a time."""
        room = asyncio.Semaphore(MOST_AT_ONCE if self._limits.parallel_tool_calls else 1)

        async def call(wanted: ToolCall) -> ToolResult:
            async with room:
                return await self._call(wanted)

        results = await together(call(wanted) for wanted in reply.calls[:MOST_CALLS])
        results += [ToolResult(call, _TOO_MANY, True) for call in reply.calls[MOST_CALLS:]]
        self._run.trail.talk.returned(self._agent.spec.name, results)
        for result in results:
            self._refuse_repetition(result)
        return tuple(results)

    async def _call(self, call: ToolCall) -> ToolResult:
        """Call one tool; what goes wrong with it is for the model to read."""
        trail = self._run.trail
        tool = self._agent.tools.get(call.name)
        if tool is None:
            known = ", ".join(self._agent.tools) or "none"
            return ToolResult(call, f"There is no tool {call.name!r}; there are: {known}.", True)
        try:
            arguments = jsonio.loads(call.arguments.encode() or b"{}")
        except InvalidJSON as error:
            return ToolResult(call, f"The arguments are not JSON: {error}", True)
        if not isinstance(arguments, dict):
            return ToolResult(call, "The arguments are not a JSON object.", True)
        trail.called(call.name)
        said = await self._unless_stopped(tool, arguments)
        return ToolResult(call, self._capped(said.text), said.is_error)

    async def _unless_stopped(self, tool: Tool, arguments: dict[str, Any]) -> ToolReply:
        """Wait for a tool; a run that ends waits for none, but for agents: they are paid for."""
        if isinstance(tool, ChildTool):
            return await tool.call(arguments, self._run)
        work = asyncio.ensure_future(tool.call(arguments, self._run))
        stop = asyncio.ensure_future(self._run.stopping.wait())
        try:
            await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait((work,))
        if work.cancelled():
            if self._run.stopping.is_set():
                raise Dropped
            return ToolReply("The tool gave up.", True)
        error = work.exception()
        if error is None or isinstance(error, (BatchError, Dropped)):
            return work.result()
        return ToolReply(f"The tool failed: {type(error).__name__}", True)  # a bug of its own

    def _capped(self, text: str) -> str:
        most = self._limits.max_result
        if len(text) <= most:
            return text
        return f"{text[:most]}\n[cut: {len(text) - most} of {len(text)} characters left out]"

    def _refuse_repetition(self, result: ToolResult) -> None:
        key = (result.call.name, result.call.arguments, result.text)
        self._seen[key] += 1
        if self._seen[key] > self._limits.max_repeats:
            raise RepeatedCall(
                f"agent {self._agent.spec.name}: the model called {result.call.name} "
                f"{self._seen[key]} times with the same arguments and got the same result"
            )
