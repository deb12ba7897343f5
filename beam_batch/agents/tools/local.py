"""Tools of this machine: files below the roots of a card, and commands where they are allowed."""

from __future__ import annotations

import asyncio
import os
import tempfile
from asyncio.subprocess import STDOUT, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beam_batch.agents.tools import processes
from beam_batch.agents.tools.base import RowRun, Tool, ToolReply
from beam_batch.agents.tools.folders import NotAllowed, list_folder, read_text
from beam_batch.agents.tools.threads import NoThread
from beam_batch.providers.base import ToolSpec

SHELL = "/bin/sh"
MOST_OUTPUT = 2**20
"""Bytes of a command's output that are kept; the rest is read and thrown away."""


def file_tools(roots: Sequence[str], timeout: float) -> list[Tool]:
    """Return tools that list and read what is below some folders."""
    folders = tuple(Path(os.path.realpath(root)) for root in roots)
    where = "Paths are absolute, or relative to " + str(folders[0]) + "."
    if len(folders) > 1:
        where += " Folders that may be read: " + ", ".join(map(str, folders)) + "."
    path = {"type": "string", "description": where}
    pattern = {
        "type": "string",
        "description": "Names to look for, such as *.txt; **/*.txt looks in all folders below.",
        "default": "*",
    }
    offset = {"type": "integer", "description": "Byte to begin with.", "default": 0, "minimum": 0}
    listing = _parameters({"path": path | {"default": "."}, "pattern": pattern})
    reading = _parameters({"path": path, "offset": offset}, "path")
    return [
        ListFiles(ToolSpec("list_files", "List the files of a folder.", listing), folders, timeout),
        ReadFile(ToolSpec("read_file", "Read a text file.", reading), folders, timeout),
    ]


def command_tool(roots: Sequence[str], env: Mapping[str, str], timeout: float) -> Tool:
    """Return a tool that runs commands, in the first root or a temporary folder of the row."""
    command = {"type": "string", "description": "A command line for /bin/sh."}
    parameters = _parameters({"command": command}, "command")
    description = (
        f"Run a command line and return its output. It has {timeout:g} s, and no standard input."
    )
    spec = ToolSpec("run_command", description, parameters)
    folder = os.path.realpath(roots[0]) if roots else None
    return RunCommand(spec, folder, processes.base_environment(env), timeout)


@dataclass
class ListFiles:
    """The tool that lists folders."""

    spec: ToolSpec
    roots: tuple[Path, ...]
    timeout: float

    async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
        """List a folder."""
        path, pattern = arguments.get("path", "."), arguments.get("pattern", "*")
        if not (isinstance(path, str) and isinstance(pattern, str)):
            return ToolReply("path and pattern must be text.", is_error=True)
        try:
            listing = await run.room.threads.run(
                list_folder, path, self.roots, pattern or "*", timeout=self.timeout
            )
        except (NotAllowed, NoThread) as error:
            return ToolReply(str(error), is_error=True)
        except TimeoutError:
            return ToolReply("There is too much to look through.", is_error=True)
        more = ["[there are more]"] if listing.more else []
        return ToolReply("\n".join([*listing.names, *more]) or "[nothing]")


@dataclass
class ReadFile:
    """The tool that reads files."""

    spec: ToolSpec
    roots: tuple[Path, ...]
    timeout: float

    async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
        """Read a file."""
        path, offset = arguments.get("path"), arguments.get("offset", 0)
        if not isinstance(path, str) or not isinstance(offset, int):
            return ToolReply("path must be text, and offset a number.", is_error=True)
        try:
            text = await run.room.threads.run(
                read_text, path, self.roots, offset, timeout=self.timeout
            )
        except (NotAllowed, NoThread) as error:
            return ToolReply(str(error), is_error=True)
        except TimeoutError:
            return ToolReply(f"It was not read within {self.timeout:g} s.", is_error=True)
        return ToolReply(text)


@dataclass
class RunCommand:
    """The tool that runs commands."""

    spec: ToolSpec
    folder: str | None
    env: Mapping[str, str]
    timeout: float

    async def call(self, arguments: dict[str, Any], run: RowRun) -> ToolReply:
        """Run a command; all that it has started has ended when this returns."""
        command = arguments.get("command")
        if not isinstance(command, str) or not command.strip() or "\0" in command:
            return ToolReply("command must be text.", is_error=True)
        async with run.room.commands:
            return await self._run(command, run)

    async def _run(self, command: str, run: RowRun) -> ToolReply:
        try:
            process = await processes.start(
                (SHELL, "-c", command), env=self.env, cwd=self._place(run), stderr=STDOUT
            )
        except OSError as error:
            return ToolReply(f"It cannot be run: {error.strerror}.", is_error=True)
        output = bytearray()
        try:
            async with asyncio.timeout(self.timeout):
                more = await _read(process, output)
                await process.wait()
        except TimeoutError:
            text = output.decode("utf-8", "replace")
            return ToolReply(f"{text}\n[killed after {self.timeout:g} s]", is_error=True)
        finally:
            await processes.stop(process)
        text = output.decode("utf-8", "replace")
        if more:
            text += f"\n[{more} more bytes]"
        code = process.returncode
        return ToolReply(text if code == 0 else f"{text}\n[exit code {code}]", code != 0)

    def _place(self, run: RowRun) -> str:
        if self.folder is not None:
            return self.folder
        if run.folder is None:
            made = tempfile.TemporaryDirectory(prefix="beam-batch-", ignore_cleanup_errors=True)
            run.open.callback(made.cleanup)
            run.folder = made.name
        return run.folder


async def _read(process: Process, output: bytearray) -> int:
    """Read all output, keep its beginning; return how many bytes were not kept."""
    assert process.stdout is not None
    more = 0
    with suppress(ConnectionError):
        while chunk := await process.stdout.read(processes.CHUNK):
            kept = chunk[: MOST_OUTPUT - len(output)]
            output += kept
            more += len(chunk) - len(kept)
    return more


def _parameters(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
