"""A run through the Files and Batches of aimock, nothing of ours. Its answers are canned."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.batches.test_runs import arguments, folder
from tests.support import beam_batch, environment, read_jsonl, wait_until

__all__ = ["folder"]

AIMOCK = os.environ.get("BEAM_BATCH_AIMOCK", "")
CANNED = "Mock batch completion"


class Aimock:
    """A running aimock with its journal."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"

    def journal(self) -> list[Any]:
        with urllib.request.urlopen(self.root + "/__aimock/journal") as response:
            found = json.load(response)
        entries: list[Any] = found if isinstance(found, list) else found["entries"]
        return entries

    def answers(self) -> bool:
        try:
            self.journal()
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def calls(self, method: str, path: str) -> int:
        return sum(e["method"] == method and e["path"] == path for e in self.journal())


@pytest.fixture
def aimock(tmp_path: Path) -> Iterator[Aimock]:
    if not AIMOCK:
        pytest.skip("BEAM_BATCH_AIMOCK names no aimock")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fixtures = tmp_path / "fixtures"
    fixtures.mkdir()
    (fixtures / "none.json").write_text('{"fixtures": []}')
    process = subprocess.Popen(
        [AIMOCK, "-p", str(port), "-f", str(fixtures), "--journal-max", "0", "--log-level", "warn"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Aimock(port)
        wait_until(server.answers, process)
        yield server
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("model", ["responses.gpt-x", "openai.gpt-x"])
def test_a_run_through_aimock_s_batches(folder: Path, aimock: Aimock, model: str) -> None:
    env = environment(OPENAI_BASE_URL=f"{aimock.root}/v1", OPENAI_API_KEY="sk-test")
    done = beam_batch(*arguments(folder, "-m", model, "--batch-size", "60"), env=env)
    assert done.returncode == 0, done.stderr
    assert aimock.calls("POST", "/v1/batches") == 2
    results = [record["result"] for record in read_jsonl(folder / "out.jsonl")]
    assert len(results) == 100
    assert all(CANNED in result for result in results)


def test_a_detached_run_through_aimock_is_cancelled_and_sent_again(
    folder: Path, aimock: Aimock
) -> None:
    env = environment(OPENAI_BASE_URL=f"{aimock.root}/v1", OPENAI_API_KEY="sk-test")
    done = beam_batch(*arguments(folder, "--detach"), env=env)
    assert done.returncode == 0, done.stderr
    done = beam_batch("cancel", folder / "out.jsonl", env=env)
    assert done.returncode == 0, done.stderr
    done = beam_batch("fetch", folder / "out.jsonl", env=env)
    assert done.returncode == 1
    assert "100 rows have no answer" in done.stderr
    done = beam_batch(*arguments(folder, "--resume"), env=env)
    assert done.returncode == 0, done.stderr
    assert aimock.calls("POST", "/v1/batches") == 2
    assert all(record["ok"] for record in read_jsonl(folder / "out.jsonl"))


def test_a_create_that_aimock_took_is_found_again_by_its_mark(folder: Path, aimock: Aimock) -> None:
    env = environment(OPENAI_BASE_URL=f"{aimock.root}/v1", OPENAI_API_KEY="sk-test")
    beam_batch(*arguments(folder, "--detach"), env=env)
    journal = folder / ".out.jsonl.batch" / "batches" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert b'"event":"created"' in lines[-1]
    journal.write_bytes(b"".join(lines[:-1]))
    done = beam_batch(*arguments(folder, "--resume"), env=env)
    assert done.returncode == 0, done.stderr
    assert "found again" in done.stderr
    assert aimock.calls("POST", "/v1/batches") == 1
