"""One connection to an MCP server, kept in a task of its own.

What the official client opens must be closed by the task that opened it, whichever row asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TextIO

import httpx2
import mcp_types
from mcp import Client, MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from beam_batch.agents.mcp.stdio import LARGEST, StdioTransport
from beam_batch.agents.mcp.target import Target
from beam_batch.errors import first_line

CLIENT = mcp_types.Implementation(name="beam-batch", version="0.1.0")
LONGEST_CLOSE = 8.0
"""Seconds until what does not close is cancelled and killed."""
CONNECT_TIMEOUT = 30.0
MOST_PAGES = 100
"""Pages of a list of tools."""
_QUIET = ("mcp", "httpx2")


class NotOpened(Exception):
    """A session did not come about.

    Attributes:
        late: whether it took too long, so that another try would take as long.
    """

    def __init__(self, message: str, late: bool = False) -> None:
        super().__init__(message)
        self.late = late


class Died(Exception):
    """The session ended before the server had answered."""


class Session:
    """A session that any task may use and close.

    Attributes:
        tools: what the server offers; there when it is open.
        reason: why it can be used no more.
    """

    def __init__(self, target: Target, log: TextIO | None) -> None:
        self.tools: list[mcp_types.Tool] = []
        self.reason = ""
        self._target = target
        self._log = log
        self._over = asyncio.Event()
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._stdio: StdioTransport | None = None

    @property
    def alive(self) -> bool:
        """Whether it may be used; a lost connection to a URL is only seen when it is used."""
        return self._task is not None and not (self._task.done() or self._over.is_set())

    @property
    def said(self) -> str:
        """The end of what the server's process has said, without secrets."""
        return self._stdio.tail.strip() if self._stdio is not None else ""

    @property
    def stray(self) -> int:
        """Lines since the last message that were no messages."""
        return self._stdio.stray if self._stdio is not None else 0

    async def open(self) -> None:
        """Start or reach the server, and learn its tools.

        Raises:
            NotOpened: it does not answer as it should.
        """
        self._task = asyncio.create_task(self._live())
        timeout = self._target.spec.start_timeout
        try:
            await asyncio.wait(
                (self._task, self._ready), timeout=timeout, return_when="FIRST_COMPLETED"
            )
        finally:
            if not self._ready.done():
                late = not self._task.done()
                self.condemn(f"did not answer within {timeout:g} s" if late else "ended")
                await self.close()
        if not self._ready.done():
            raise NotOpened(self.reason, late)

    async def call(self, name: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        """Call a tool.

        Raises:
            MCPError: the server's answer is an error.
            Died: there will be no answer.
            TimeoutError: there is none within the server's timeout.
            pydantic.ValidationError: it is no result of a tool.
        """
        parameters = mcp_types.CallToolRequestParams(name=name, arguments=arguments)
        request = mcp_types.CallToolRequest(params=parameters)
        result: mcp_types.CallToolResult = await self._ask(
            request, mcp_types.CallToolResult, self._target.spec.timeout
        )
        return result

    async def answers(self, timeout: float) -> bool:
        """Whether the server still answers at all."""
        try:
            await self._ask(mcp_types.ListToolsRequest(), mcp_types.ListToolsResult, timeout)
        except (Died, TimeoutError):
            return False
        except Exception:  # any answer is one
            return True
        return True

    def condemn(self, reason: str) -> None:
        """Let nobody use it any more, and end it."""
        self.reason = self.reason or self._target.redact(reason)
        self._over.set()

    async def close(self) -> None:
        """End it; takes at most LONGEST_CLOSE and a little."""
        self.condemn("was closed")
        if self._task is None:
            return
        if not self._ready.done():  # it waits for an answer, not for its end
            self._task.cancel()
        await asyncio.wait((self._task,), timeout=LONGEST_CLOSE)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=1.0)
        if self._stdio is not None:
            self._stdio.kill()

    async def _ask(self, request: Any, result_type: Any, timeout: float) -> Any:
        if not self.alive or self._task is None:
            raise Died(self.reason)
        session = self._ready.result().session
        # Not through Client.call_tool: it validates structured content in the loop, for seconds
        # where there is much, and a model can read what does not fit the server's own schema.
        asking = asyncio.create_task(session.send_request(request, result_type))
        try:
            await asyncio.wait((asking, self._task), timeout=timeout, return_when="FIRST_COMPLETED")
            if not asking.done():
                raise Died(self.reason) if self._task.done() else TimeoutError
            return asking.result()
        except MCPError as error:
            if not _is_loss(error):
                raise
            if not self.reason:  # what ended the connection may know more
                await asyncio.wait((self._task,), timeout=0.2)
            self.condemn(f"lost its connection ({first_line(error)})")
            raise Died(self.reason) from None
        finally:
            if not asking.done():
                asking.cancel()
                asking.add_done_callback(_forget)

    async def _live(self) -> None:
        try:
            async with (
                self._transport() as transport,
                Client(transport, cache=None, client_info=CLIENT) as client,
            ):
                self.tools = await _list_tools(client)
                self._ready.set_result(client)
                await self._over.wait()
        except BaseException as error:  # whatever ended it, rows are told as much
            self.condemn(_cause(error))
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
        finally:
            self.condemn("ended")

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        target = self._target
        timeout = httpx2.Timeout(CONNECT_TIMEOUT, read=None)  # calls have a timeout of their own
        if target.spec.transport == "stdio":
            self._stdio = StdioTransport(target, self.condemn, self._log)
            yield self._stdio
        elif target.spec.transport == "sse":
            yield sse_client(
                target.url, dict(target.headers), CONNECT_TIMEOUT, sse_read_timeout=10.0**9
            )
        else:
            async with httpx2.AsyncClient(headers=dict(target.headers), timeout=timeout) as http:
                yield streamable_http_client(
                    target.url, http_client=http, max_sse_event_size=LARGEST
                )


async def _list_tools(client: Client) -> list[mcp_types.Tool]:
    tools: list[mcp_types.Tool] = []
    if client.server_capabilities.tools is None:
        return tools
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return tools


def _is_loss(error: MCPError) -> bool:
    """Whether an error is the client's own word for a connection or an HTTP answer of no use."""
    if error.code == mcp_types.INTERNAL_ERROR:
        return error.message == "Server returned an error response"
    return error.code in (
        mcp_types.CONNECTION_CLOSED,  # also what servers say that do not know the session
        mcp_types.INVALID_REQUEST,
        mcp_types.PARSE_ERROR,
    )


def _cause(error: BaseException) -> str:
    """Return what a group of errors began with."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"cannot be started: there is no {error.filename}"
    return f"failed ({type(error).__name__}: {first_line(error)})"


def _forget(task: asyncio.Task[Any]) -> None:
    """Take note of how a task ended whose result nobody waits for."""
    if not task.cancelled():
        task.exception()


def keep_quiet() -> None:
    """Keep the client's log of single messages, which may hold rows, from a worker's log."""
    for name in _QUIET:
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
