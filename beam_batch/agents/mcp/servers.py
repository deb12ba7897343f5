"""The MCP servers of one worker: started with it, shared by its rows, stopped with it."""

from __future__ import annotations

import asyncio
import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, TextIO

import mcp_types
from mcp import MCPError
from pydantic import ValidationError

from beam_batch.agents.mcp.results import to_reply
from beam_batch.agents.mcp.sessions import Died, NotOpened, Session, keep_quiet
from beam_batch.agents.mcp.target import Target, resolve
from beam_batch.agents.tools.base import RowRun, Tool, ToolReply
from beam_batch.agents.tools.names import usable
from beam_batch.errors import FatalReply, OptionsError, ToolServerDied, ToolServerFailed
from beam_batch.options.agents import ServerSpec
from beam_batch.providers.base import ToolSpec

PARALLEL_STARTS = 4
RETRY_AFTER = (0.0, 0.2, 1.0)
"""Seconds before each try to open a session again."""
LONGEST_PAUSE = 5.0
NAMES_SHOWN = 5
PROBE_TIMEOUT = 5.0
"""Seconds that a server has to show that it still answers when a call of it has timed out."""


class Servers:
    """All servers that the agents of a run name; two cards that name the same share it."""

    def __init__(
        self, specs: Sequence[ServerSpec], env: Mapping[str, str], log: TextIO | None = None
    ) -> None:
        """Take servers, the worker's environment, and a file for what their processes say."""
        self._specs: list[ServerSpec] = []
        for spec in map(_whole, specs):
            if spec not in self._specs:
                self._specs.append(spec)
        self._env = env
        self._log = log
        self._servers: list[_Server] = []

    async def start(self) -> None:
        """Start all servers and learn their tools.

        Raises:
            FatalReply: one cannot be started; those that were have been stopped.
        """
        keep_quiet()
        try:
            targets = [resolve(spec, self._env) for spec in self._specs]
        except OptionsError as error:
            raise FatalReply(str(error)) from None
        room = asyncio.Semaphore(PARALLEL_STARTS)
        self._servers = [
            _Server(target, f"{number} {target.spec.name}", room, self._log)
            for number, target in enumerate(targets)
        ]
        starts = [asyncio.create_task(server.start()) for server in self._servers]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            for task in starts:
                task.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            await self.close()
            raise

    def tools_of(self, spec: ServerSpec) -> list[Tool]:
        """Return the tools of a server that a card allows, in the server's order.

        Raises:
            FatalReply: the card names a tool that the server does not have.
        """
        server = self._servers[self._specs.index(_whole(spec))]
        for pattern in spec.allowed:
            _check_pattern(spec.name, pattern, [tool.name for tool in server.tools])
        return [
            ServerTool(_spec_of(tool), spec.name, tool.name, server)
            for tool in server.tools
            if not spec.allowed or any(fnmatchcase(tool.name, want) for want in spec.allowed)
        ]

    @property
    def secrets(self) -> tuple[str, ...]:
        """What servers were given that nobody else may see: values of the environment."""
        return tuple(secret for server in self._servers for secret in server.target.secrets)

    async def close(self) -> None:
        """Stop all servers within some ten seconds, with what rows have left open."""
        await asyncio.gather(*(server.close() for server in self._servers))


@dataclass
class ServerTool:
    """A tool of a server.

    Attributes:
        origin: name of the server, to tell tools of the same name apart.
        name: as the server knows it.
    """

    spec: ToolSpec
    origin: str
    name: str
    server: _Server

    async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
        """Have the server do it; what it says of arguments and work is the model's to read.

        Raises:
            ToolServerDied: the server ended meanwhile.
            ToolServerFailed: it did not answer in time, not with a result, or cannot be started.
        """
        return await self.server.call(self.name, arguments, run)


class _Server:
    """One server, and its session where rows share it."""

    def __init__(
        self, target: Target, key: str, room: asyncio.Semaphore, log: TextIO | None
    ) -> None:
        self.tools: list[mcp_types.Tool] = []
        self.target = target
        self._spec = target.spec
        self._key = key
        self._room = room
        self._log = log
        self._shared: Session | None = None
        self._opening: asyncio.Task[Session] | None = None
        self._of_rows: set[Session] = set()
        self._losses = 0  # sessions since the last answer
        self._closed = False

    async def start(self) -> None:
        session = self._new_shared()
        try:
            async with self._room:
                await session.open()
        except NotOpened as error:
            spec = self._spec
            what = spec.url or shlex.join((spec.command, *spec.args))
            said = f" It said: {session.said}" if session.said else ""
            raise FatalReply(f"MCP server {spec.name!r} ({what}) {error}.{said}") from None
        self.tools = session.tools
        if self._spec.session == "row":
            await session.close()
            self._shared = None

    async def call(self, name: str, arguments: dict[str, Any], run: RowRun) -> ToolReply:
        session = await self._session(run)
        who = f"MCP server {self._spec.name!r}"
        try:
            result = await session.call(name, arguments)
        except MCPError as error:
            reply = ToolReply(self.target.redact(error.message), is_error=True)
        except Died as error:
            raise ToolServerDied(f"{who} {error} during a call of {name!r}.") from None
        except TimeoutError:
            stray = f" (it wrote {session.stray} lines that are no messages)" * bool(session.stray)
            within = f"within {self._spec.timeout:g} s{stray}"
            said = f"{who} did not answer a call of {name!r} {within}."
            shared = session is self._shared
            if await self._is_lost(session) and shared:  # by the fault of another row, perhaps
                raise ToolServerDied(said) from None
            raise ToolServerFailed(said) from None
        except ValidationError:
            raise ToolServerFailed(
                f"{who} answered a call of {name!r} with what is no result of a tool."
            ) from None
        else:
            reply = to_reply(result)
        self._losses = 0
        return reply

    async def close(self) -> None:
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        shared = [] if self._shared is None else [self._shared]
        await asyncio.gather(*(session.close() for session in (*shared, *self._of_rows)))

    def _new_shared(self) -> Session:
        self._shared = Session(self.target, self._log)
        return self._shared

    async def _session(self, run: RowRun) -> Session:
        """Return an open session: the row's own, or the one that rows share."""
        if self._spec.session == "row" or run.alone:
            return await self._row_session(run)
        if self._shared is not None and self._shared.alive and self._opening is None:
            return self._shared
        if self._opening is None:
            self._opening = asyncio.create_task(self._reopen())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    def _opened(self, task: asyncio.Task[Session]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()

    async def _reopen(self) -> Session:
        if self._shared is not None:
            await self._shared.close()
        self._losses += 1
        if self._losses > 1:
            await asyncio.sleep(min(LONGEST_PAUSE, 0.1 * 2**self._losses))
        reason = "was closed"
        for pause in RETRY_AFTER:
            await asyncio.sleep(pause)
            if self._closed:
                break
            session = self._new_shared()
            try:
                await session.open()
            except NotOpened as error:
                reason = str(error)
                if error.late:
                    break
            else:
                return session
        raise ToolServerFailed(f"MCP server {self._spec.name!r} cannot be started again: {reason}.")

    async def _row_session(self, run: RowRun) -> Session:
        opening: asyncio.Task[Session] | None = run.sessions.get(self._key)
        if opening is None or (opening.done() and not _is_alive(opening)):
            session = Session(self.target, self._log)
            opening = run.sessions[self._key] = asyncio.create_task(self._open_for_row(session))
            opening.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._of_rows.add(session)  # before it opens: the row may end while it waits
            run.open.push_async_callback(self._end_of_row, session, opening)
        return await asyncio.shield(opening)

    async def _open_for_row(self, session: Session) -> Session:
        reason = "was closed"
        async with self._room:
            try:
                if not self._closed:
                    await session.open()
                    return session
            except NotOpened as error:
                reason = str(error)
        raise ToolServerFailed(
            f"MCP server {self._spec.name!r} cannot be started for this row: it {reason}."
        )

    async def _end_of_row(self, session: Session, opening: asyncio.Task[Session]) -> None:
        opening.cancel()
        try:
            await asyncio.wait((opening,))
        finally:
            await session.close()
        self._of_rows.discard(session)

    async def _is_lost(self, session: Session) -> bool:
        """Whether a session that rows share answers nobody any more; it is ended then."""
        if session is self._shared and await session.answers(PROBE_TIMEOUT):
            return False
        session.condemn("does not answer any more")
        return True


def _is_alive(opening: asyncio.Task[Session]) -> bool:
    """Whether a session came of it, and can still be used."""
    return not (opening.cancelled() or opening.exception()) and opening.result().alive


def _whole(spec: ServerSpec) -> ServerSpec:
    """Return a server with all its tools: which of them a card allows makes no other server."""
    return replace(spec, allowed=())


def _check_pattern(server: str, pattern: str, names: list[str]) -> None:
    if any(fnmatchcase(name, pattern) for name in names):
        return
    near = difflib.get_close_matches(pattern, names, cutoff=0.5)
    some = ", ".join(names[:NAMES_SHOWN]) or "none"
    more = ", ..." * (len(names) > NAMES_SHOWN)
    raise FatalReply(
        f"card: tools names {pattern!r} of MCP server {server!r}, which has no such tool; "
        + (f"did you mean {' or '.join(near)}?" if near else f"it has {some}{more}.")
    )


def _spec_of(tool: mcp_types.Tool) -> ToolSpec:
    schema = {word: value for word, value in tool.input_schema.items() if word != "$schema"}
    schema.setdefault("properties", {})  # providers refuse an object without
    return ToolSpec(usable(tool.name), tool.description or tool.title or "", schema)
