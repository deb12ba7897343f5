"""Traces from the command line: their folder over runs and resumptions, and their dataset."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Answer, ScriptedServer, error_body, prompt_of
from tests.hub import Hub
from tests.support import beam_batch, environment, read_jsonl, write_jsonl

TOKEN = "hf_canary_4711"
REPO = "owner/traces"
ROWS = 6
ARGS = ("run", "-i", "rows.jsonl", "-p", "row {{n}}", "--id-field", "id", "-o", "out.jsonl")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    write_jsonl(
        tmp_path / "run" / "rows.jsonl",
        [{"id": f"r/{n}", "n": n} for n in range(1, ROWS)] + [{"id": "r/6"}],
    )
    return tmp_path / "run"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(tokens=(TOKEN,)) as running:
        yield running


def _refuse_second(_: int, body: dict[str, Any]) -> Answer:
    if prompt_of(body) == "row 2":
        return Answer(status=400, body=error_body("no"))
    return Answer()


def _run(folder: Path, server: ScriptedServer, *more: str) -> subprocess.CompletedProcess[str]:
    env = environment(GENERIC_BASE_URL=server.base_url, GENERIC_API_KEY="key-canary-0815")
    args = (*ARGS, "-m", "generic.m", "--export-traces", "traces", *more)
    return beam_batch(*args, env=env, cwd=folder)


def _check(folder: Path) -> list[Any]:
    """Check that list and files agree, and return the list; the last line of a row counts."""
    lines = read_jsonl(folder / "traces" / "manifest.jsonl")
    for line in {line["row_number"]: line for line in lines}.values():
        assert (line["trace"] is None) is (line["record_count"] == 0) is (line["row_number"] == 6)
        if line["trace"] is not None:
            path = folder / "traces" / line["trace"]
            assert path.name.startswith(f"row-{line['row_number']:06d}__id-r_{line['row_number']}_")
            assert "key-canary" not in path.read_text()
            records = read_jsonl(path)
            assert len(records) == line["record_count"]
            assert {"user_message", "task_complete"} <= {r["payload"].get("type") for r in records}
            assert f"row {line['row_number']}" in path.read_text()
    return lines


def _rows(lines: list[Any]) -> list[tuple[int, bool]]:
    return [(line["row_number"], line["ok"]) for line in lines]


def test_traces_are_listed_in_order_added_to_by_resume_and_replaced_by_overwrite(
    folder: Path,
) -> None:
    with ScriptedServer(_refuse_second) as server:
        done = _run(folder, server)
        assert done.returncode == 0, done.stderr
        first = _check(folder)
        assert _rows(first) == [(n, n not in (2, 6)) for n in range(1, ROWS + 1)]
        assert [line["id"] for line in first] == [f"r/{n}" for n in range(1, ROWS + 1)]
        assert first[1]["error"]["type"] == "RequestRejected"
        assert (first[5]["trace"], first[5]["error"]["type"]) == (None, "MissingTemplateField")
        assert json.loads(done.stdout)["traces"]["run_id"] == first[0]["run_id"]
        again = _run(folder, server, "--output", "other.jsonl")
        assert again.returncode == 2
        assert "--export-traces traces" in again.stderr
        assert "--overwrite" in again.stderr
    with ScriptedServer() as server:
        (folder / "traces" / "notes.txt").write_text("mine")
        done = _run(folder, server, "--resume")
        assert done.returncode == 0, done.stderr
        added = _check(folder)
        assert added[:ROWS] == first
        assert _rows(added[ROWS:]) == [(2, True), (6, False)]
        assert added[-1]["run_id"] != first[0]["run_id"]
        done = _run(folder, server, "--overwrite", "--limit", "2")
        assert done.returncode == 0, done.stderr
        assert _rows(_check(folder)) == [(1, True), (2, True)]
    left = {path.name for path in (folder / "traces").iterdir()}
    assert {"manifest.jsonl", "notes.txt"} <= left
    assert not [name for name in left if name.startswith(("row-000003", "."))]


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--export-traces", "rows.jsonl"), "is no folder"),
        (("--export-traces", "hf://datasets/a/b"), "--hf-dataset"),
        (("--export-traces", ".out.jsonl.batch"), "--work-dir"),
        (("--export-traces", "t", "--hf-dataset", "no-owner"), "owner/name"),
        (("--hf-dataset", "a/b"), "--export-traces"),
        (("--export-traces", "t", "--hf-dataset-path", "x"), "--hf-dataset"),
        (("--export-traces", "t", "--backend", "batch", "-m", "openai.m"), "--backend batch"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    folder: Path, flags: tuple[str, ...], word: str
) -> None:
    env = environment(OPENAI_API_KEY="key-canary-0815")
    done = beam_batch(*ARGS, "-m", "echo", *flags, env=env, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert word in done.stderr
    assert not (folder / "out.jsonl").exists()


def _send(folder: Path, hub: Hub, *more: str) -> subprocess.CompletedProcess[str]:
    flags = ("--export-traces", "traces", "--hf-dataset", REPO, *more)
    env = hub.environment(folder.parent, HF_TOKEN=TOKEN)
    return beam_batch(*ARGS, "-m", "echo", *flags, env=env, cwd=folder)


def _commits(hub: Hub) -> int:
    return sum(asked.method == "POST" and "/commit/" in asked.path for asked in hub.log)


def test_traces_arrive_in_one_commit_in_a_private_dataset_that_is_made_for_them(
    hub: Hub, folder: Path
) -> None:
    (folder / "traces").mkdir()
    (folder / "traces" / "notes.txt").write_text("mine")
    done = _send(folder, hub)
    assert done.returncode == 0, done.stderr
    assert _commits(hub) == 1
    assert hub.dataset(REPO).private
    run_id = json.loads(done.stdout)["traces"]["run_id"]
    local = {
        f"traces/{run_id}/{path.name}": path.read_bytes()
        for path in (folder / "traces").iterdir()
        if path.name != "notes.txt"
    }
    assert hub.files(REPO) == local
    assert TOKEN not in done.stderr


@pytest.mark.parametrize(("path", "wanted"), [("a/b", "a/b"), ("a/b/", "a/b/{run}")])
def test_the_path_is_exact_or_what_the_run_s_folder_is_in(
    hub: Hub, folder: Path, path: str, wanted: str
) -> None:
    hub.add(REPO, {"README.md": b"mine"}, readers=(TOKEN,))
    done = _send(folder, hub, "--hf-dataset-path", path)
    assert done.returncode == 0, done.stderr
    run_id = json.loads(done.stdout)["traces"]["run_id"]
    assert f"{wanted.format(run=run_id)}/manifest.jsonl" in hub.files(REPO)
    assert hub.files(REPO)["README.md"] == b"mine"
    assert not hub.dataset(REPO).private


def test_results_and_traces_in_the_same_dataset_are_one_commit(hub: Hub, folder: Path) -> None:
    hub.add(REPO, {}, readers=(TOKEN,))
    done = _send(folder, hub, "-o", f"hf://datasets/{REPO}/results.jsonl")
    assert done.returncode == 0, done.stderr
    assert _commits(hub) == 1
    assert "results.jsonl" in hub.files(REPO)
    assert any(name.endswith("/manifest.jsonl") for name in hub.files(REPO))


def test_a_failed_upload_keeps_the_traces_and_resume_sends_the_same(hub: Hub, folder: Path) -> None:
    hub.script = lambda asked: 403 if "/commit/" in asked.path else 0
    failed = _send(folder, hub, "--limit", "5")
    assert failed.returncode == 1, failed.stderr
    assert "cannot be sent to hf://datasets/owner/traces" in failed.stderr
    assert "kept in traces, " in failed.stderr
    kept = {path.name: path.read_bytes() for path in (folder / "traces").iterdir()}
    hub.script = lambda asked: 0
    done = _send(folder, hub, "--limit", "5", "--resume")
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (folder / "traces").iterdir()} == kept
    assert {name.rpartition("/")[2] for name in hub.files(REPO)} == set(kept)


def test_a_token_that_is_missing_or_refused_is_told_before_anything_is_sent(
    hub: Hub, folder: Path
) -> None:
    args = (*ARGS, "-m", "echo", "--export-traces", "traces", "--hf-dataset", REPO)
    missing = beam_batch(*args, env=hub.environment(folder.parent), cwd=folder)
    assert missing.returncode == 2, missing.stderr
    assert "HF_TOKEN" in missing.stderr
    wrong = hub.environment(folder.parent, HF_TOKEN="hf_nobodys_token")
    refused = beam_batch(*args, env=wrong, cwd=folder)
    assert refused.returncode == 2, refused.stderr
    assert f"--hf-dataset {REPO}" in refused.stderr or "--hf-dataset hf://" in refused.stderr
    assert "hf_nobodys_token" not in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (folder / "out.jsonl").exists()
