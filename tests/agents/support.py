"""Servers for tests, and looking after processes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

from beam_batch.agents.mcp.servers import Servers
from beam_batch.agents.tools.base import RowRun, Tool, ToolReply
from beam_batch.calling.trail import Trail
from beam_batch.options.agents import ServerSpec
from beam_batch.records import Row

FAULTY = Path(__file__).parent / "faulty_server.py"
REMOTE = Path(__file__).parent / "remote_server.py"
NODE = os.environ.get("BEAM_BATCH_MCP_NODE", "")
NO_NODE = "BEAM_BATCH_MCP_NODE names no folder with MCP servers of npm (make test sets it)"


def faulty(**settings: Any) -> ServerSpec:
    settings = {"name": "faulty", "timeout": 20.0} | settings
    return ServerSpec(command=sys.executable, args=("-I", "-S", str(FAULTY)), **settings)


def new_run() -> RowRun:
    return RowRun(row=Row(None, 1, 1, {}), trail=Trail(1))


@asynccontextmanager
async def started(
    *specs: ServerSpec, env: Mapping[str, str] | None = None, log: TextIO | None = None
) -> AsyncIterator[Servers]:
    servers = Servers(specs, os.environ if env is None else env, log)
    await servers.start()
    try:
        yield servers
    finally:
        await servers.close()


def by_name(tools: Sequence[Tool]) -> dict[str, Tool]:
    return {tool.spec.name: tool for tool in tools}


class Caller:
    """Calls the tools of one server for one row."""

    def __init__(self, servers: Servers, spec: ServerSpec, run: RowRun | None = None) -> None:
        self.tools = by_name(servers.tools_of(spec))
        self.run = run or new_run()

    async def reply(self, name: str, /, **arguments: Any) -> ToolReply:
        return await self.tools[name].call(arguments, self.run)

    async def text(self, name: str, /, **arguments: Any) -> str:
        reply = await self.reply(name, **arguments)
        assert not reply.is_error, reply.text
        return reply.text


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return sys.platform != "linux"


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the condition did not come true within 20 seconds"
        await asyncio.sleep(0.01)
