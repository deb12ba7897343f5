"""A server's process and its pipes, as a transport of the official MCP client.

The client's own would do but for three things: lines have no largest length, a server that writes
no messages is only noticed by a call's timeout, and no process ends when this one is killed.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, NamedTuple, TextIO

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from beam_batch import jsonio
from beam_batch.agents.mcp.target import Target
from beam_batch.agents.tools import processes
from beam_batch.errors import InvalidJSON

LARGEST = 64 * 2**20
"""Bytes of one message."""
STRAY_LINES = 1000
"""Lines between two messages that are no messages, such as logs; more is no server."""
PATIENCE = 1.0
"""Seconds that a server has to end by itself when its input has ended."""
TAIL = 2000
LONGEST_STRAY = 200
"""Characters of a line that is no message which go to the log."""


class BrokenMessage(Exception):
    """What a server wrote is meant as a message, and is none."""


def to_message(line: bytes) -> SessionMessage | None:
    """Read a line; None for one that is not meant as a message (an empty line, a log).

    Raises:
        BrokenMessage: it is meant as one, or no text at all.
    """
    try:
        text = line.decode().strip()
    except UnicodeDecodeError:
        raise BrokenMessage("wrote bytes that are not UTF-8") from None
    if not text.startswith("{"):
        return None
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(text, by_name=False))
    except ValueError:
        try:
            if "jsonrpc" not in jsonio.loads(text):
                return None
        except InvalidJSON:
            pass
        raise BrokenMessage("wrote what is no JSON-RPC message") from None


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield a stream's lines, of any length up to LARGEST.

    Raises:
        BrokenMessage: a line is longer.
    """
    parts: list[bytes] = []
    size = 0
    while chunk := await stream.read(processes.CHUNK):
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            yield b"".join((*parts, piece))
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > LARGEST:
            raise BrokenMessage(f"wrote a line of more than {LARGEST >> 20} MiB")


class _Pipes(NamedTuple):
    """The four ends of what is between process and client."""

    read_in: MemoryObjectSendStream[SessionMessage | Exception]
    read_out: MemoryObjectReceiveStream[SessionMessage | Exception]
    write_in: MemoryObjectSendStream[SessionMessage]
    write_out: MemoryObjectReceiveStream[SessionMessage]


class StdioTransport:
    """Starts a server when it is entered, and stops it with all its children when it is left.

    Attributes:
        tail: the end of what the server has written to its standard error, without secrets.
        stray: lines of its standard output that were no messages, since the last message.
    """

    def __init__(self, target: Target, ended: Callable[[str], None], log: TextIO | None) -> None:
        """Take a function that is told once why the server can do no more."""
        self.tail = ""
        self.stray = 0
        self._target = target
        self._ended = ended
        self._log = log
        self._process: Process | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> tuple[Any, Any]:
        target = self._target
        process = self._process = await processes.start(
            target.command, env=target.env, cwd=target.spec.cwd, stdin=PIPE
        )
        reading = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        writing = anyio.create_memory_object_stream[SessionMessage](0)
        self._pipes = _Pipes(*reading, *writing)
        self._tasks = [
            asyncio.create_task(work)
            for work in (self._read(process), self._write(process), self._listen(process))
        ]
        return self._pipes.read_out, self._pipes.write_in

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        self._pipes.read_out.close()  # the reader throws away what still comes
        self._pipes.write_in.close()
        try:
            await processes.stop(self._process, PATIENCE)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for end in self._pipes:
                end.close()

    def kill(self) -> None:
        """Kill the server at once; for when it was not left in order."""
        if self._process is not None:
            processes.kill(self._process)

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        reason = None
        try:
            async for line in lines(process.stdout):
                message = to_message(line)
                if message is not None:
                    self.stray = 0
                    await self._pipes.read_in.send(message)
                elif line.strip():
                    self._note_stray(line)
        except BrokenMessage as error:
            reason = str(error)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            reason = "was stopped"
        if reason is None:
            await processes.ended(process, 1.0)
            reason = processes.how(process.returncode)
        self._ended(reason)
        self._pipes.read_in.close()
        while await process.stdout.read(processes.CHUNK):
            pass

    def _note_stray(self, line: bytes) -> None:
        self.stray += 1
        self._say(line[: processes.CHUNK], LONGEST_STRAY)
        if self.stray > STRAY_LINES:
            raise BrokenMessage(f"wrote {STRAY_LINES} lines that are no messages")

    async def _write(self, process: Process) -> None:
        assert process.stdin is not None
        try:
            async for message in self._pipes.write_out:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
        except (ConnectionError, RuntimeError):  # the reader says how it ended
            pass

    async def _listen(self, process: Process) -> None:
        """Keep the end of standard error, and pass all of it to the log, line by line."""
        assert process.stderr is not None
        rest = b""
        try:
            while chunk := await process.stderr.read(processes.CHUNK):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    self._keep(line)
                if len(rest) > processes.CHUNK:  # no line any more
                    self._keep(rest)
                    rest = b""
        finally:
            self._keep(rest)

    def _keep(self, line: bytes) -> None:
        self.tail = (self.tail + self._say(line) + "\n")[-TAIL:]

    def _say(self, line: bytes, most: int | None = None) -> str:
        """Write a line to the log, and return it: without secrets, and only then cut."""
        said = self._target.redact(line.decode("utf-8", "replace"))[:most]
        if self._log is not None:
            name = self._target.spec.name
            with suppress(OSError):  # a full disk ends a run where outcomes are written
                self._log.writelines(
                    f"[{name}] {part}\n" for part in said.splitlines() if part.strip()
                )
        return said
