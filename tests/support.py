"""Running the command line in a process of its own, and reading what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.starter import Fork

ROOT = Path(__file__).parent.parent


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_jsonl(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def environment(**extra: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENAI_", "GENERIC_", "BEAM_BATCH_MODEL"))
    }
    return kept | {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1,localhost"} | extra


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "beam_batch", *map(str, args)]


def beam_batch(
    *args: object,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end; `fresh` as for `start`."""
    with start(*args, env=env or environment(), cwd=cwd, fresh=fresh) as process:
        try:
            stdout, stderr = process.communicate(timeout=300)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def start(
    *args: object,
    env: Mapping[str, str],
    cwd: Path | None = None,
    new_group: bool = False,
    fresh: bool = False,
) -> subprocess.Popen[str]:
    """Start the command line, by default in a fork that has Beam imported (tests/starter.py).

    `fresh` starts an interpreter, where its own start, or what can be imported, is what is tested:
    Beam has imported a good deal already, PyYAML too.
    """
    line = command(*args)
    program: type[subprocess.Popen[str]] = subprocess.Popen
    if not fresh:
        program, line = Fork, line[3:]
    return program(
        line,
        env=dict(env),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0 if new_group else None,
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[Any] | None = None) -> None:
    """Wait for a condition; give up when the process has ended or after two minutes."""
    end = time.monotonic() + 120
    while not condition():
        if process is not None and process.poll() is not None:
            return
        assert time.monotonic() < end, "the condition did not come true within two minutes"
        time.sleep(0.005)


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal, and return the exit code and stderr."""
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr
