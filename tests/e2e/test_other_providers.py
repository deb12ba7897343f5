"""Anthropic's and Google's formats against a server that nobody here wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Llmock
from tests.support import beam_batch, environment, read_jsonl, write_jsonl

SCHEMA = {
    "type": "object",
    "properties": {"sentiment": {"type": "string", "enum": ["good", "bad"]}},
    "required": ["sentiment"],
    "additionalProperties": False,
}


def _run(folder: Path, llmock: Llmock, model: str, *more: str) -> tuple[Any, list[Any]]:
    write_jsonl(folder / "rows.jsonl", [{"n": n} for n in range(6)])
    (folder / "system.md").write_text("Judge.")
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    env = environment(
        ANTHROPIC_BASE_URL=f"{llmock.root}/anthropic/v1",
        ANTHROPIC_API_KEY="sk-ant",
        GEMINI_BASE_URL=f"{llmock.root}/gemini/v1beta",
        GEMINI_API_KEY="AIza",
    )
    done = beam_batch(
        "run", "-i", "rows.jsonl", "-o", "out.jsonl", "-p", "Row {{n}}", "-m", model,
        "--instruction", "system.md", "--telemetry-output", "t.jsonl", *more, env=env, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + (folder / "out.jsonl").read_text()
    assert all(r["ok"] for r in read_jsonl(folder / "out.jsonl"))
    return json.loads(done.stdout), read_jsonl(folder / "t.jsonl")


@pytest.mark.parametrize("transport", ["http", "sse"])
def test_anthropic_messages_are_answered_and_counted(
    tmp_path: Path, llmock: Llmock, transport: str
) -> None:
    model = f"anthropic.claude-x?transport={transport}"
    summary, telemetry = _run(tmp_path, llmock, model)
    assert summary["usage"]["output_tokens"] > 0
    assert {record["finish_reason"] for record in telemetry} == {"end_turn"}
    assert all(("ttft_ms" in r["timing"]) == (transport == "sse") for r in telemetry)
    for body in llmock.bodies():
        assert body["system"][0]["text"] == "Judge."
        assert body["messages"][0]["content"].startswith("Row ")


@pytest.mark.parametrize("transport", ["http", "sse"])
def test_gemini_contents_are_answered_and_counted(
    tmp_path: Path, llmock: Llmock, transport: str
) -> None:
    summary, telemetry = _run(tmp_path, llmock, f"gemini-x?transport={transport}")
    assert summary["usage"]["output_tokens"] > 0
    assert {record["finish_reason"] for record in telemetry} == {"STOP"}
    for body in llmock.bodies():
        assert body["systemInstruction"]["parts"] == [{"text": "Judge."}]


def test_gemini_results_fit_the_schema_that_was_sent(tmp_path: Path, llmock: Llmock) -> None:
    _run(tmp_path, llmock, "gemini-x", "--schema", str(tmp_path / "schema.json"))
    results = [r["result"]["sentiment"] for r in read_jsonl(tmp_path / "out.jsonl")]
    assert set(results) <= {"good", "bad"}
