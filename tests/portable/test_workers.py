"""Workers that lack something are found out, in a real pool, before anything is paid."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.engines import NO_PRISM, PRISM, worker_pool
from tests.fakes import ScriptedServer
from tests.support import ROOT, beam_batch, environment, write_jsonl

pytestmark = pytest.mark.skipif(not PRISM, reason=NO_PRISM)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(30)])


def _run(
    rows: Path, server: ScriptedServer, ports: list[int], *more: str
) -> subprocess.CompletedProcess[str]:
    pools = ",".join(f"localhost:{port}" for port in ports)
    return beam_batch(
        "run", "-i", rows, "-o", rows.with_name("out.jsonl"), "-p", "{{n}}", "--no-final-summary",
        "--runner", "prism", "--environment", "external", "--environment-config", pools, *more,
        env=environment(OPENAI_BASE_URL=server.base_url, GENERIC_BASE_URL=server.base_url),
    )  # fmt: skip


def _left(rows: Path) -> list[str]:
    return sorted(path.name for path in rows.parent.iterdir())


def test_a_key_that_one_of_two_pools_lacks_is_named_with_the_worker(rows: Path) -> None:
    key = {"OPENAI_API_KEY": "sk-worker"}
    with ScriptedServer() as server, worker_pool(**key) as (_, good), worker_pool() as (_, bad):
        refused = _run(rows, server, [good, bad], "-m", "openai.m")
        assert server.requests == 0
        assert refused.returncode == 2, refused.stderr
        assert re.search(
            r"--model openai.m needs an API key, and worker \S+ \(process \d+\) has none: set the "
            r"environment variable OPENAI_API_KEY there. Nothing was sent.",
            refused.stderr,
        ), refused.stderr
        assert "Traceback" not in refused.stderr
        assert _left(rows) == ["rows.jsonl"]
        done = _run(rows, server, [good], "-m", "openai.m")  # the driver itself has no key
        assert done.returncode == 0, done.stderr
        assert server.requests == 30


def test_a_worker_of_another_version_is_refused(rows: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(ROOT / "beam_batch", other / "beam_batch")
    version = other / "beam_batch" / "version.py"
    version.write_text(version.read_text().replace("0.1.0", "0.0.9"))
    with ScriptedServer() as server, worker_pool(PYTHONPATH=str(other)) as (_, port):
        refused = _run(rows, server, [port], "-m", "generic.m")
        assert server.requests == 0
    assert refused.returncode == 2
    assert "has beam_batch 0.0.9, and the driver 0.1.0" in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr
