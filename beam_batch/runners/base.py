"""What there is to know of an engine, whichever it is, and checks that several need."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

from beam_batch.errors import OptionsError
from beam_batch.options.engine import RunnerSpec
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir

PATIENCE = 5.0
"""Seconds for an address to answer."""
LONGEST_REASON = 500
FAILED = "the run failed"
"""What the reason of a stop begins with where an engine has failed."""


class Opened(NamedTuple):
    """An engine that is ready for one graph.

    Attributes:
        make: makes Beam's runner.
        flags: Beam's flags that are known only now.
    """

    make: Callable[[], Any]
    flags: tuple[str, ...] = ()


def wait_for_all(results: list[Any], stop: StopFlag) -> None:
    """Wait for the end of jobs; where one fails, the others drain."""
    failures: list[BaseException] = []

    def wait(result: Any) -> None:
        try:
            result.wait_until_finish()
        except BaseException as error:
            failures.append(error)
            if others:
                stop.set(f"{FAILED}: {why(error)}", 1)

    others = [threading.Thread(target=wait, args=(result,)) for result in results[1:]]
    for thread in others:
        thread.start()
    wait(results[0])
    for thread in others:
        thread.join()
    if failures:
        raise failures[0]


def why(error: BaseException) -> str:
    """Say in a line why a job failed: what Python said last, before any stack of Go."""
    details = getattr(error, "details", None)  # of gRPC: its own text ends in brackets
    text = (
        str(details() if callable(details) else error)
        .partition("\ngoroutine ")[0]
        .partition("\nStacktrace")[0]
    )
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    said = lines[0] if isinstance(error, OSError) else lines[-1]
    return f"{type(error).__name__}: {said}"[:LONGEST_REASON]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """An engine as a run needs it.

    Attributes:
        flags: Beam's flags.
        open: makes it ready, with the work directory for what it logs.
        wait: waits for the end of all jobs; where one of several fails, the others drain.
        workers: worker processes, or None where nobody knows how many there will be.
        children: whether the driver starts the workers, which are to end with it.
        slots: splits that are worked on at once, where the engine says so.
        remote: workers may be on other machines, or see other files.
        fused: the whole graph must be one step, since the engine would break it.
        shielded: what it starts hears a terminal's Ctrl-C unless it is kept from it.
        pools: worker pools; each gets a job of its own, with its part of the splits. An engine
            has one environment a job, and may start one worker in it, as Prism does.
        knows: flags that the engine knows and Beam does not; None where nobody can say.
    """

    flags: tuple[str, ...]
    open: Callable[[WorkDir], AbstractContextManager[Opened]]
    wait: Callable[[list[Any], StopFlag], None] = wait_for_all
    workers: int | None = None
    children: bool = False
    slots: int | None = None
    remote: bool = True
    fused: bool = False
    shielded: bool = False
    pools: tuple[str, ...] = ()
    knows: tuple[str, ...] | None = ()


def environment_flags(spec: RunnerSpec, default: str | None = None) -> tuple[str, ...]:
    """Return Beam's flags for where workers run.

    Raises:
        OptionsError: Beam's flags after -- name an environment as well.
    """
    named = [arg for arg in spec.beam_args if arg.startswith("--environment")]
    if spec.environment is None:
        if named or default is None:
            return ()
        return (f"--environment_type={default.upper()}",)
    if named:
        raise OptionsError(f"--environment and {named[0]!r} exclude each other; give one of them.")
    flags = [f"--environment_type={spec.environment.upper()}"]
    config = spec.environment_config
    if config:
        first = (
            command_of(config) if spec.environment == "process" else (spec.pools or (config,))[0]
        )
        flags.append(f"--environment_config={first}")
    return tuple(flags)


def command_of(config: str) -> str:
    """Return a worker's command in the form that Beam wants it."""
    return config if config.lstrip().startswith("{") else json.dumps({"command": config})


def check_answers(flag: str, address: str, what: str) -> None:
    """Check that something listens at HOST:PORT.

    Raises:
        OptionsError: no address, or nothing answers within some seconds.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise OptionsError(f"{flag} {address!r} is no address: give HOST:PORT.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OptionsError(f"{flag}: no {what} answers at {address} ({reason}).") from None


def is_here(address: str) -> bool:
    """Whether an address, HOST:PORT, is this machine's for sure."""
    host = address.rpartition("://")[2].rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
