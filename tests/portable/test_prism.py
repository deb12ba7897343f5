"""Prism by Beam's own name and flags, through its job server, and when its driver is killed."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import free_port, running
from tests.engines import NO_PRISM, PRISM, answers, children, worker_pool
from tests.fakes import ScriptedServer
from tests.support import beam_batch, environment, interrupt, start, wait_until, write_jsonl

pytestmark = pytest.mark.skipif(not PRISM, reason=NO_PRISM)
ROWS = 60


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    data = [{"id": f"r{n}", "text": f"row {n}"} for n in range(1, ROWS + 1)]
    data[6].pop("text")
    return write_jsonl(tmp_path / "rows.jsonl", data)


@pytest.fixture
def job_server() -> Iterator[str]:
    """Prism as a server that somebody else has started; yields its address."""
    port = free_port()
    with running([PRISM, f"--job_port={port}", "--serve_http=false"], lambda: answers(port)):
        yield f"localhost:{port}"


def _arguments(rows: Path, output: str, *more: str) -> tuple[str, ...]:
    return (
        "run", "-i", str(rows), "-o", str(rows.with_name(output)), "-m", "generic.m",
        "-p", "{{text}}", "--id-field", "id", "--parallel", "8", "--no-final-summary", *more,
    )  # fmt: skip


def _same_as_direct(rows: Path, *engine: str) -> subprocess.CompletedProcess[str]:
    with ScriptedServer() as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        for output, more in (("direct.jsonl", ()), ("prism.jsonl", engine)):
            done = beam_batch(*_arguments(rows, output, *more), env=env)
            assert done.returncode == 0, done.stderr
        assert server.requests == 2 * (ROWS - 1)
    written = [rows.with_name(f"{name}.jsonl").read_bytes() for name in ("direct", "prism")]
    assert written[0] == written[1]
    return done


def test_beam_s_own_name_and_flags_do_as_well(rows: Path) -> None:
    with worker_pool() as (_, port):
        _same_as_direct(
            rows, "--runner", "PrismRunner", "--", f"--prism_location={PRISM}",
            "--environment_type=EXTERNAL", f"--environment_config=localhost:{port}",
        )  # fmt: skip


def test_a_job_server_of_somebody_else_s_runs_the_graph(rows: Path, job_server: str) -> None:
    there = ("--runner", "portable", "--environment", "loopback", "--")
    _same_as_direct(rows, *there, f"--job_endpoint={job_server}")
    unknown = (*there, f"--job_endpoint={job_server}", "--no_such_flag=1")
    refused = beam_batch(*_arguments(rows, "other.jsonl", *unknown), env=environment())
    assert refused.returncode == 2
    assert "'--no_such_flag=1' is no flag" in refused.stderr
    assert not rows.with_name(".other.jsonl.batch").exists()


def test_a_driver_that_is_killed_leaves_no_prism_behind(rows: Path) -> None:
    with ScriptedServer(delay=60) as server:
        env = environment(GENERIC_BASE_URL=server.base_url, BEAM_BATCH_PRISM=PRISM)
        process = start(*_arguments(rows, "out.jsonl", "--runner", "prism"), env=env)
        wait_until(lambda: server.requests >= 1, process)
        (supervisor,) = children(process.pid)
        (prism,) = children(supervisor)
        assert Path(f"/proc/{prism}/cmdline").read_bytes().startswith(PRISM.encode())
        interrupt(process, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{prism}").exists())
