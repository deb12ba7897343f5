"""The same graph on Beam's portable runner: workers in this process, and in a pool of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import ScriptedServer
from tests.support import beam_batch, environment, read_jsonl, wait_until, write_jsonl

ROWS = 300
PRISM = os.environ.get("BEAM_BATCH_PRISM", "")
pytestmark = pytest.mark.skipif(
    not PRISM, reason="BEAM_BATCH_PRISM names no Prism binary; `make portable` builds one"
)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def pool() -> Iterator[int]:
    """A worker pool in a process of its own; yields its port."""
    port = _free_port()
    # The pool starts its workers as `python`, whichever that is on its PATH.
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"]
    process = subprocess.Popen(
        [*command, f"--service_port={port}"],
        env=environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _answers(port), process)
        yield port
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    data = [{"id": f"r{n}", "text": f"row {n}"} for n in range(1, ROWS + 1)]
    data[6].pop("text")
    return write_jsonl(tmp_path / "rows.jsonl", data)


def _run(rows: Path, output: Path, server: ScriptedServer, *more: str) -> None:
    done = beam_batch(
        "run", "-i", rows, "-o", output, "-m", "generic.m", "-p", "{{text}}", "--id-field", "id",
        "--parallel", "8", "--no-final-summary", *more,
        env=environment(GENERIC_BASE_URL=server.base_url),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _prism(environment_type: str, *more: str) -> tuple[str, ...]:
    return (
        "--runner", "PrismRunner", "--", f"--prism_location={PRISM}",
        f"--environment_type={environment_type}", *more,
    )  # fmt: skip


def test_prism_with_loopback_workers_writes_what_the_direct_runner_writes(
    rows: Path, tmp_path: Path
) -> None:
    with ScriptedServer() as server:
        _run(rows, tmp_path / "direct.jsonl", server)
        _run(rows, tmp_path / "prism.jsonl", server, *_prism("LOOPBACK"))
        assert server.requests == 2 * (ROWS - 1)
    assert (tmp_path / "prism.jsonl").read_bytes() == (tmp_path / "direct.jsonl").read_bytes()


def test_prism_with_an_external_worker_pool_writes_what_the_direct_runner_writes(
    rows: Path, tmp_path: Path, pool: int
) -> None:
    with ScriptedServer() as server:
        _run(rows, tmp_path / "direct.jsonl", server)
        external = _prism("EXTERNAL", f"--environment_config=localhost:{pool}")
        _run(rows, tmp_path / "prism.jsonl", server, *external)
        assert server.requests == 2 * (ROWS - 1)
    assert (tmp_path / "prism.jsonl").read_bytes() == (tmp_path / "direct.jsonl").read_bytes()
    failed = [r for r in read_jsonl(tmp_path / "prism.jsonl") if not r["ok"]]
    assert [r["error"]["type"] for r in failed] == ["MissingTemplateField"]
