"""Prism: Beam's local portable runner, a Go program that is started for each run.

We start it and not Beam: its own way downloads the program, stops it at the first Ctrl-C, when
requests in flight are still to be drained, and leaves it behind where the driver is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from beam_batch.agents.tools import supervisor
from beam_batch.errors import OptionsError, RunStopped
from beam_batch.options.engine import RunnerSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.runners.base import (
    Opened,
    Setup,
    check_answers,
    command_of,
    environment_flags,
    is_here,
)

VARIABLE = "BEAM_BATCH_PRISM"
LOCATION = "--prism_location"
INSTALL = "go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0"
CACHE = "~/.apache_beam/cache/prism/bin"
LONGEST_START = 30.0


def prism(spec: RunnerSpec, env: Mapping[str, str]) -> Setup:
    """Describe it.

    Raises:
        OptionsError: there is no Prism, or no worker pool where one is named.
    """
    flags = environment_flags(spec, "loopback")
    program = find_prism(spec.beam_args, env)
    if spec.environment == "process":
        _check_command(str(spec.environment_config))
    for address in spec.pools:
        check_answers("--environment-config", address, "worker pool")
    elsewhere = spec.environment == "docker" or not all(map(is_here, spec.pools))

    @contextlib.contextmanager
    def opened(work: WorkDir) -> Iterator[Opened]:
        from apache_beam.runners.portability.prism_runner import PrismRunner

        with serving(program, work) as port:
            yield Opened(PrismRunner, (f"--job_endpoint=localhost:{port}",))

    return Setup(
        flags=(*spec.beam_args, *flags),
        open=opened,
        workers=max(1, len(spec.pools)),
        remote=elsewhere,
        pools=spec.pools,
    )


def _check_command(config: str) -> None:
    """Look for a worker's program: Prism would wait for it for minutes.

    Raises:
        OptionsError: it is not here.
    """
    try:
        command = json.loads(command_of(config))["command"]
        program = shlex.split(command)[0]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise OptionsError(f"--environment-config {config!r} is no command.") from None
    if shutil.which(program) is None:
        raise OptionsError(f"--environment-config {config}: there is no command {program}.")


def find_prism(beam_args: tuple[str, ...], env: Mapping[str, str]) -> str:
    """Return Prism's path: of --prism_location, BEAM_BATCH_PRISM, PATH, or what Beam has kept.

    Raises:
        OptionsError: none of them has it.
    """
    named = _location(beam_args)
    for source, path in ((LOCATION, named), (VARIABLE, env.get(VARIABLE))):
        if path:
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return os.path.abspath(path)
            raise OptionsError(f"{source} {path}: no program is there. Get one with: {INSTALL}")
    kept = sorted(
        path for path in Path(CACHE).expanduser().glob("*prism*") if path.suffix != ".zip"
    )
    found = shutil.which("prism", path=env.get("PATH")) or next(map(str, kept), None)
    if found is None:
        raise OptionsError(
            f"--runner prism needs the program Prism, and there is none on PATH. Get it with: "
            f"{INSTALL} (needs Go), or name it in {VARIABLE}."
        )
    return found


def _location(beam_args: tuple[str, ...]) -> str | None:
    for place, arg in enumerate(beam_args):
        name, given, value = arg.partition("=")
        if name == LOCATION:
            return value if given else next(iter(beam_args[place + 1 :]), None)
    return None


@contextlib.contextmanager
def serving(program: str, work: WorkDir) -> Iterator[int]:
    """Run Prism until the block ends, or this process; yields its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [program, f"--job_port={port}", "--serve_http=false", "--log_level=warn"]
    with work.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(os.getpid()), "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C is for the driver, which drains first
        )
    try:
        _wait_until_it_listens(process, port, work)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, work: WorkDir) -> None:
    end = time.monotonic() + LONGEST_START
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise RunStopped(f"Prism did not start; {work.log} says why.")
