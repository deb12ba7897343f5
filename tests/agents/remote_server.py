"""An MCP server of the official package that dies and naps as it is asked to.

python remote_server.py streamable-http|sse PORT
"""

from __future__ import annotations

import os
import sys

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("remote")


@server.tool()
async def echo(text: str) -> str:
    return text


@server.tool()
async def die() -> str:
    os._exit(3)


@server.tool()
async def nap() -> str:
    await anyio.sleep(1000)
    return "late"


@server.tool()
async def fail() -> str:
    raise ToolError("no such luck")


@server.tool()
async def big(size: int) -> str:
    return "x" * size


if __name__ == "__main__":
    server.run(sys.argv[1], port=int(sys.argv[2]))  # type: ignore[call-overload]
