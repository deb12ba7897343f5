"""Processes that end with this one: servers over stdio, and commands."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress

from beam_batch.agents.tools import supervisor

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
"""What every process may see of the worker's environment."""
CHUNK = 2**16
LONGEST_STOP = supervisor.GRACE + 1.0
_TICK = 0.01


def base_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that holds no secrets, and that programs need."""
    return {name: env[name] for name in INHERITED if name in env}


async def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None = None,
    stdin: int = DEVNULL,
    stderr: int = PIPE,
) -> Process:
    """Start a command under a supervisor, in a process group of its own.

    Raises:
        OSError: the folder does not exist, or the system has no room for a process.
    """
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", supervisor.__file__, str(os.getpid()), "--", *command),
        env=dict(env),
        cwd=cwd,
        stdin=stdin,
        stdout=PIPE,
        stderr=stderr,
        limit=CHUNK,
        start_new_session=True,
    )


async def ended(process: Process, timeout: float) -> bool:
    """Wait for the end of a process, not for the end of its pipes, which others may hold."""
    end = asyncio.get_running_loop().time() + timeout
    while process.returncode is None:
        if asyncio.get_running_loop().time() >= end:
            return False
        await asyncio.sleep(_TICK)
    return True


async def stop(process: Process, patience: float = 0.0) -> None:
    """Close its standard input, wait; then tell it to end, and kill what does not.

    What it has started ends with it. Takes at most `patience` and LONGEST_STOP.
    """
    try:
        if process.stdin is not None:
            process.stdin.close()
        if not await ended(process, patience):
            with suppress(ProcessLookupError):
                process.terminate()
            await ended(process, LONGEST_STOP)
    finally:
        kill(process)
        transport = getattr(process, "_transport", None)  # else it stays open while pipes are held
        if transport is not None:
            transport.close()


def kill(process: Process) -> None:
    """Kill a process and its group, where it has not ended in order."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def how(code: int | None) -> str:
    """Say how a process ended."""
    if code is None:
        return "closed its output"
    number = -code if code < 0 else code - 128
    if number in signal.valid_signals():
        return f"was killed ({signal.Signals(number).name})"
    return f"ended (exit code {code})"
