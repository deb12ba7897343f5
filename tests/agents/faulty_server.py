"""An MCP server that dies, hangs, writes garbage or very much, as it is asked to.

It speaks the protocol by itself, so that it is up in some milliseconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

STUBBORN = (
    "import os, signal, sys, time\n"
    "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
    "    signal.signal(number, signal.SIG_IGN)\n"
    "if 'away' in sys.argv: os.setsid()\n"
    "print(os.getpid(), flush=True)\n"
    "time.sleep(1000)\n"
)
GARBAGE = {
    "broken": b'{"jsonrpc": "2.0", "id": nonsense}\n',
    "binary": b"\xff\xfe\x00\x01\n",
    "text": b"Listening on port 80\n\n",
    "log": b'{"level": "info", "message": "hello"}\n',
    "flood": b"garbage\n" * 1100,
    "no result": b'{"jsonrpc": "2.0", "id": %d, "result": {"content": 7}}\n',
}
TOOLS: dict[str, Callable[..., str | None]] = {}
_lock = threading.Lock()


def tool(function: Callable[..., str | None]) -> Callable[..., str | None]:
    """Offer a function; one that returns None lets its caller wait."""
    TOOLS[function.__name__.replace("_name", ".name/with spaces")] = function
    return function


@tool
def echo(text: str) -> str:
    return text


@tool
def pid() -> str:
    return str(os.getpid())


@tool
def variables() -> str:
    return " ".join(sorted(os.environ))


@tool
def variable(name: str) -> str:
    return os.environ.get(name, "")


@tool
def die() -> None:
    os._exit(3)


@tool
def hang() -> None:
    """Answer nobody any more."""
    time.sleep(1000)


@tool
def nap() -> None:
    """Let this caller wait, and nobody else."""


@tool
def fail() -> str:
    raise ValueError("no such luck")


@tool
def big(size: int) -> str:
    return "x" * size


@tool
def garbage(kind: str) -> str:
    """Write it before the answer."""
    _write(GARBAGE[kind])
    return "sane"


@tool
def only_garbage(kind: str) -> None:
    """Write it in the place of an answer."""
    line = GARBAGE[kind]
    _write(line % LAST[0] if b"%d" in line else line)


@tool
def endless() -> None:
    """Write a line that does not end."""
    while True:
        _write(b"x" * 2**20)


@tool
def odd_name() -> str:
    return "odd"


@tool
def spawn(away: bool = False) -> str:
    """Start a child that ignores signals; `away` lets it leave the process group."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", STUBBORN, "away" if away else "near"],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    return child.stdout.readline().decode().strip()


@tool
def stay() -> str:
    """Ignore SIGTERM, and the end of standard input, from now on."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    STAY.append(True)
    return str(os.getpid())


LAST: list[Any] = [None]
STAY: list[bool] = []


def _write(data: bytes) -> None:
    with _lock:
        while data:
            data = data[os.write(1, data) :]


def _answer(request: dict[str, Any]) -> dict[str, Any] | None:
    method, parameters = request["method"], request.get("params", {})
    if method == "initialize":
        return {
            "result": {
                "protocolVersion": parameters["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "faulty", "version": "1"},
            }
        }
    if method == "tools/list":
        schema = {"$schema": "x", "type": "object", "additionalProperties": True}
        tools = [{"name": name, "description": "A.", "inputSchema": schema} for name in TOOLS]
        half = len(tools) // 2
        if parameters.get("cursor"):
            return {"result": {"tools": tools[half:]}}
        return {"result": {"tools": tools[:half], "nextCursor": "more"}}
    if method != "tools/call":
        return {"error": {"code": -32601, "message": f"no method {method}"}}
    LAST[0] = request["id"]
    try:
        text = TOOLS[parameters["name"]](**parameters.get("arguments", {}))
    except TypeError as error:
        return {"error": {"code": -32602, "message": str(error)}}
    except ValueError as error:
        return {"result": {"content": [{"type": "text", "text": str(error)}], "isError": True}}
    return None if text is None else {"result": {"content": [{"type": "text", "text": text}]}}


def main() -> None:
    print("faulty is here", file=sys.stderr, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request and (answer := _answer(request)) is not None:
            _write(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}).encode() + b"\n")
    while STAY:
        time.sleep(1)


if __name__ == "__main__":
    main()
