"""Results on the Hub: one commit at the end, nothing half-written, nothing paid twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import Answer, ScriptedServer, error_body, prompt_of
from tests.hub import Asked, Hub
from tests.support import beam_batch, write_jsonl

TOKEN = "hf_canary_4711"
REPO = "owner/results"
BASE = f"hf://datasets/{REPO}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(tokens=(TOKEN,)) as running:
        running.add(REPO, {"README.md": b"mine"}, readers=(TOKEN,))
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    write_jsonl(tmp_path / "run" / "rows.jsonl", [{"id": f"r{n}", "n": n} for n in range(1, 7)])
    return tmp_path / "run"


def _env(hub: Hub, folder: Path, **extra: str) -> dict[str, str]:
    return hub.environment(folder.parent, HF_TOKEN=TOKEN, **extra)


ARGS = ("run", "-i", "rows.jsonl", "-p", "{{n}}", "--id-field", "id")


def _lines(hub: Hub, path: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in hub.files(REPO)[path].splitlines()]


def _commits(hub: Hub) -> int:
    return sum(asked.method == "POST" and "/commit/" in asked.path for asked in hub.log)


def test_all_outputs_arrive_in_one_commit_and_the_rest_of_the_repository_stays(
    hub: Hub, folder: Path
) -> None:
    done = beam_batch(
        *ARGS, "-m", "echo", "-o", f"{BASE}/out/results.jsonl",
        "--error-output", f"{BASE}/out/errors.jsonl",
        "--telemetry-output", f"{BASE}/out/telemetry.jsonl",
        "--summary-output", f"{BASE}/out/summary.json",
        env=_env(hub, folder), cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert _commits(hub) == 1
    assert sorted(hub.files(REPO)) == [
        "README.md", "out/.results.jsonl.settings.json", "out/errors.jsonl", "out/results.jsonl",
        "out/summary.json",
        "out/telemetry.jsonl",
    ]  # fmt: skip
    assert [r["id"] for r in _lines(hub, "out/results.jsonl")] == [f"r{n}" for n in range(1, 7)]
    summary = json.loads(hub.files(REPO)["out/summary.json"])
    assert summary == json.loads(done.stdout)
    assert summary["output"] == f"{BASE}/out/results.jsonl"
    assert sorted(path.name for path in folder.iterdir()) == ["rows.jsonl"]


def test_a_folder_on_the_hub_gets_shards(hub: Hub, folder: Path) -> None:
    done = beam_batch(*ARGS, "-m", "echo", "-o", f"{BASE}/out/", env=_env(hub, folder), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(_lines(hub, "out/part-00000-of-00001.jsonl")) == 6


def test_a_failed_upload_keeps_the_files_and_resume_sends_them_without_a_request(
    hub: Hub, folder: Path
) -> None:
    hub.script = lambda asked: 403 if "/commit/" in asked.path else 0
    args = (*ARGS, "-m", "generic.m", "-o", f"{BASE}/results.jsonl")
    with ScriptedServer() as server:
        env = _env(hub, folder, GENERIC_BASE_URL=server.base_url)
        failed = beam_batch(*args, env=env, cwd=folder)
        assert failed.returncode == 1, failed.stderr
        assert "cannot be sent to hf://datasets/owner/results" in failed.stderr
        assert "--resume" in failed.stderr
        assert "Traceback" not in failed.stderr
        assert TOKEN not in failed.stderr
        (work,) = folder.glob(".results.jsonl-*.batch")
        kept = work / "uploads" / "0" / "results.jsonl"
        assert len(kept.read_text().splitlines()) == 6
        hub.script = lambda asked: 0
        done = beam_batch(*args, "--resume", env=env, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert server.requests == 6
    assert len(_lines(hub, "results.jsonl")) == 6
    assert sorted(path.name for path in folder.iterdir()) == ["rows.jsonl"]


def test_an_existing_result_is_refused_then_added_to_then_replaced(hub: Hub, folder: Path) -> None:
    def script(number: int, body: dict[str, object]) -> Answer:
        return Answer(status=400, body=error_body("no")) if prompt_of(body) == "2" else Answer()

    args = (*ARGS, "-m", "generic.m", "-o", f"{BASE}/results.jsonl")
    with ScriptedServer(script) as server:
        env = _env(hub, folder, GENERIC_BASE_URL=server.base_url)
        assert beam_batch(*args, env=env, cwd=folder).returncode == 0
        again = beam_batch(*args, env=env, cwd=folder)
        assert again.returncode == 2
        assert "results.jsonl exists" in again.stderr
    with ScriptedServer() as server:
        env = _env(hub, folder, GENERIC_BASE_URL=server.base_url)
        done = beam_batch(*args, "--resume", env=env, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert server.requests == 1
        assert [r["id"] for r in _lines(hub, "results.jsonl")] == [
            "r1", "r2", "r3", "r4", "r5", "r6", "r2",
        ]  # fmt: skip
        rewritten = beam_batch(*args, "--resume", "--overwrite", env=env, cwd=folder)
        assert rewritten.returncode == 0, rewritten.stderr
        assert server.requests == 1
    assert [r["id"] for r in _lines(hub, "results.jsonl")] == [f"r{n}" for n in range(1, 7)]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("hf://datasets/owner/nowhere/r.jsonl", "HF_TOKEN"),
        ("hf://datasets/owner/results", "name a path"),
        ("hf://models/owner/results/r.jsonl", "write hf://datasets/owner/name"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_before_anything_is_sent(
    hub: Hub, folder: Path, output: str, words: str
) -> None:
    with ScriptedServer() as server:
        env = _env(hub, folder, GENERIC_BASE_URL=server.base_url)
        done = beam_batch(*ARGS, "-m", "generic.m", "-o", output, env=env, cwd=folder)
        assert server.requests == 0
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["rows.jsonl"]


def test_fewer_shards_leave_no_old_ones_and_other_settings_are_refused(
    hub: Hub, folder: Path
) -> None:
    write_jsonl(folder / "rows.jsonl", [{"id": f"r{n}", "n": n} for n in range(12_000)])
    args = (*ARGS, "-m", "echo", "-o", f"{BASE}/out/")
    assert beam_batch(*args, env=_env(hub, folder), cwd=folder).returncode == 0
    assert sum("part-" in path for path in hub.files(REPO)) == 3
    few = beam_batch(*args, "--overwrite", "--limit", "9", env=_env(hub, folder), cwd=folder)
    assert few.returncode == 0, few.stderr
    assert [path for path in hub.files(REPO) if "part-" in path] == [
        "out/part-00000-of-00001.jsonl"
    ]
    mixed = beam_batch(
        *args, "--resume", "--overwrite", "--limit", "9", "--include-input",
        env=_env(hub, folder), cwd=folder,
    )  # fmt: skip
    assert json.loads(mixed.stdout)["skipped_rows"] == 0


def test_the_token_is_in_no_file(hub: Hub, folder: Path) -> None:
    hub.script = lambda asked: 500 if _is_commit(asked) else 0
    args = (*ARGS, "-m", "echo", "-o", f"{BASE}/results.jsonl")
    assert beam_batch(*args, env=_env(hub, folder), cwd=folder).returncode == 1
    files = [path for path in folder.parent.rglob("*") if path.is_file()]
    assert any("uploads" in str(path) for path in files)
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
    assert any(asked.authorization == f"Bearer {TOKEN}" for asked in hub.log)


def _is_commit(asked: Asked) -> bool:
    return "/commit/" in asked.path
