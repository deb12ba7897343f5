"""Against a provider that nobody here wrote, with limits of its own and a journal of raw bodies."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import LLMOCK, Llmock, free_port, running
from tests.support import beam_batch, environment, read_jsonl, write_jsonl


@pytest.fixture
def limited() -> Llmock:
    if not LLMOCK:
        pytest.skip("BEAM_BATCH_LLMOCK names no llmock; `make test` installs one")
    return Llmock(free_port())


def test_the_limits_in_its_headers_are_used_to_the_full_and_kept(
    tmp_path: Path, limited: Llmock
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(130)])
    port = limited.root.rpartition(":")[2]
    command = [
        LLMOCK, "serve", "--host", "127.0.0.1", "-p", port, "--log-level", "error",
        "--rpm", "120", "--tpm", "90000",
    ]  # fmt: skip
    with running(command, limited.answers):
        done = beam_batch(
            "run", "-i", tmp_path / "rows.jsonl", "-o", tmp_path / "out.jsonl", "-m", "openai.m",
            "-p", "row {{n}}", "--telemetry-output", tmp_path / "t.jsonl",
            env=environment(OPENAI_BASE_URL=limited.base_url, OPENAI_API_KEY="key-of-a-test"),
        )  # fmt: skip
        journal = limited.get("/_llmock/requests")["requests"]
    assert done.returncode == 0, done.stderr
    assert all(row["ok"] for row in read_jsonl(tmp_path / "out.jsonl"))
    statuses = Counter(entry["status"] for entry in journal)
    assert statuses[200] == 130
    assert statuses[429] <= 3
    # The first minute's worth is not spread over the minute.
    assert journal[99]["started_at"] - journal[0]["started_at"] < 30


def test_tier_schema_and_cache_key_are_in_the_raw_body(tmp_path: Path, llmock: Llmock) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(5)])
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    (tmp_path / "long.md").write_text("Read with care. " * 400)
    done = beam_batch(
        "run", "-i", tmp_path / "rows.jsonl", "-o", tmp_path / "out.jsonl", "--instruction",
        tmp_path / "long.md", "-m", "responses.m?service_tier=flex&transport=http", "--schema",
        tmp_path / "schema.json",
        env=environment(OPENAI_BASE_URL=llmock.base_url, OPENAI_API_KEY="key-of-a-test"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bodies = llmock.bodies()
    assert len(bodies) == 5
    for body in bodies:
        assert body["service_tier"] == "flex"
        assert body["text"]["format"]["schema"]["properties"] == schema["properties"]
        assert body["text"]["format"]["strict"] is True
        assert body["prompt_cache_key"].startswith("beam-batch-")
    assert len({body["prompt_cache_key"] for body in bodies}) == 1
    assert len({body["instructions"] for body in bodies}) == 1
