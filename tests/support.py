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
    *args: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*args),
        env=dict(env or environment()),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def start(
    *args: object, env: Mapping[str, str], cwd: Path | None = None, new_group: bool = False
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*args),
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
