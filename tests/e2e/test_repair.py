"""The ladder: repair, ask again, another model, another tier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from beam_batch.prompts.repair import repaired
from tests.fakes import Answer, Script, ScriptedServer, error_body, prompt_of
from tests.support import beam_batch, environment, read_jsonl, write_jsonl

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


def _run(
    folder: Path, script: Script, *more: str, model: str = "openai.m", schema: bool = True
) -> tuple[list[Any], list[Any], ScriptedServer]:
    write_jsonl(folder / "rows.jsonl", [{"n": n} for n in range(1, 5)])
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    flags = ("--schema", folder / "schema.json") if schema else ()
    with ScriptedServer(script) as server:
        done = beam_batch(
            "run", "-i", folder / "rows.jsonl", "-o", folder / "out.jsonl", "-m", model,
            "-p", "row {{n}}", "--telemetry-output", folder / "t.jsonl", "--retry-wait", "0.01",
            *flags, *more,
            env=environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="key-of-a-test"),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return read_jsonl(folder / "out.jsonl"), read_jsonl(folder / "t.jsonl"), server


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ("Here you are:\n```\n[1]\n```\nBye", "[1]"),
        ('{"a": "}"} and so on', '{"a": "}"}'),
        ('{"a": 1} {"a": 2}', None),
        ('```json\n{"a": 1}\n``` or ```json\n{"a": 2}\n```', None),
        ("The answer is 5", None),
        ('{"a": 1', None),
    ],
)
def test_only_what_cannot_change_the_meaning_is_repaired(text: str, found: str | None) -> None:
    assert repaired(text) == found


def test_a_code_fence_is_taken_off_and_said_so(tmp_path: Path) -> None:
    fenced = '```json\n{"n": 7}\n```'
    rows, telemetry, server = _run(tmp_path, lambda number, body: Answer(text=fenced))
    assert [row["result"] for row in rows] == [{"n": 7}] * 4
    assert all(record["repaired"] is True for record in telemetry)
    assert server.requests == 4


@pytest.mark.parametrize("model", ["openai.m", "responses.m?transport=http"])
def test_reask_sends_the_complaint_and_counts_all_tokens(tmp_path: Path, model: str) -> None:
    def script(number: int, body: dict[str, Any]) -> Answer:
        turns = body.get("messages") or body["input"]
        asked_again = isinstance(turns, list) and turns[-1]["content"].startswith("That answer")
        return Answer(text='{"n": 1}' if asked_again else '{"n": "one"}')

    rows, telemetry, server = _run(tmp_path, script, "--reask", "1", model=model)
    assert all(row["ok"] for row in rows)
    assert server.requests == 8
    for record in telemetry:
        assert record["attempts"] == 2
        assert record["reasks"] == 1
        assert record["usage"]["turn"]["total_tokens"] == 14
    again = [b for b in server.bodies if "That answer" in json.dumps(b)]
    assert all('\\"one\\"' in json.dumps(body) for body in again)
    assert "is not of type" in json.dumps(again)


def test_a_reask_that_does_not_help_is_a_failure_with_its_last_reply(tmp_path: Path) -> None:
    def script(number: int, body: dict[str, Any]) -> Answer:
        return Answer(text='{"n": 1}' if "row 1" in json.dumps(body) else '{"n": "x"}')

    rows, _, server = _run(tmp_path, script, "--reask", "2")
    assert [row["ok"] for row in rows] == [True, False, False, False]
    assert rows[1]["error"]["type"] == "StructuredOutputError"
    assert rows[1]["error"]["reply"] == '{"n": "x"}'
    assert server.requests == 1 + 3 * 3


def test_the_fallback_model_answers_what_still_fails(tmp_path: Path) -> None:
    def script(number: int, body: dict[str, Any]) -> Answer:
        if body["model"] == "small" and "row 2" in json.dumps(body):
            return Answer(text="no idea")
        return Answer(text='{"n": 5}' if body["model"] == "small" else '{"n": 9}')

    rows, telemetry, _ = _run(
        tmp_path, script, "--fallback-model", "openai.big", model="openai.small"
    )
    assert [row["result"]["n"] for row in rows] == [5, 9, 5, 5]
    assert telemetry[1]["fallback_after"] == "StructuredOutputError"
    assert telemetry[1]["attempts"] == 2
    assert telemetry[1]["model"] == "big-served"


@pytest.mark.parametrize("fallback", [True, False])
def test_flex_without_capacity_goes_on_at_the_default_tier(tmp_path: Path, fallback: bool) -> None:
    none_left = error_body("no capacity", code="resource_unavailable")

    def script(number: int, body: dict[str, Any]) -> Answer:
        if body["service_tier"] == "flex" and (fallback or number <= 2):
            return Answer(status=429, body=none_left)
        return Answer()

    rows, telemetry, server = _run(
        tmp_path, script, *(("--flex-fallback",) if fallback else ()),
        model="responses.m?service_tier=flex&transport=http", schema=False,
    )  # fmt: skip
    assert all(row["ok"] for row in rows)
    tiers = [body["service_tier"] for body in server.bodies]
    if fallback:
        assert all(record["flex_fallbacks"] == 1 for record in telemetry)
        assert tiers.count("default") == 4
    else:
        assert set(tiers) == {"flex"}
        assert telemetry[0]["failed_attempts"][0]["type"] == "NoCapacity"


def test_a_long_stable_prefix_has_a_cache_key_and_a_short_one_has_none(tmp_path: Path) -> None:
    (tmp_path / "long.md").write_text("Classify with care. " * 300)
    _, _, server = _run(
        tmp_path, lambda number, body: Answer(), "--instruction", str(tmp_path / "long.md"),
        schema=False,
    )  # fmt: skip
    keys = {body["prompt_cache_key"] for body in server.bodies}
    assert len(keys) == 1
    _, _, server = _run(tmp_path, lambda number, body: Answer(), "--overwrite", schema=False)
    assert all("prompt_cache_key" not in body for body in server.bodies)


def test_rows_wait_for_a_retry_without_holding_a_place(tmp_path: Path) -> None:
    def script(number: int, body: dict[str, Any]) -> Answer:
        if prompt_of(body) == "row 1" and number == 1:
            return Answer(status=429, headers={"Retry-After": "2"})
        return Answer()

    rows, telemetry, server = _run(tmp_path, script, "--parallel", "1", schema=False)
    assert all(row["ok"] for row in rows)
    order = [prompt_of(body) for body in server.bodies]
    assert order == ["row 1", "row 2", "row 3", "row 4", "row 1"]
    took = telemetry[0]["failed_attempts"][0]["duration_ms"]
    assert telemetry[0]["failed_attempts"] == [
        {"type": "RateLimited", "status": 429, "duration_ms": took}
    ]  # fmt: skip
