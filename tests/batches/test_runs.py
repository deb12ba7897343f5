"""Runs through a Batch API give what online runs give, whatever becomes of the batches."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.batches.server import AnthropicServer, BatchServer, Fate
from tests.fakes import Answer
from tests.support import beam_batch, environment, read_jsonl, write_jsonl

ROWS = 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"id": f"id{n}", "n": n} for n in range(1, ROWS + 1)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return tmp_path


def arguments(folder: Path, *more: object, output: str = "out.jsonl") -> list[object]:
    return [
        "run", "-i", folder / "rows.jsonl", "-o", folder / output, "-m", "responses.gpt-x",
        "-p", "row {{n}}", "--id-field", "id", "--retry-wait", "0.01", "--no-final-summary",
        "--backend", "batch", "--batch-poll", "0.02", *more,
    ]  # fmt: skip


def env_of(server: BatchServer) -> dict[str, str]:
    return environment(
        OPENAI_BASE_URL=server.base_url,
        OPENAI_API_KEY="sk-test-key-1234",
        ANTHROPIC_BASE_URL=server.base_url,
        ANTHROPIC_API_KEY="sk-ant-key-1234",
    )


def online(folder: Path, server: BatchServer, *more: object) -> bytes:
    """Return what the same run gives with a request a row."""
    args = arguments(folder, "--backend", "online", *more, output="online.jsonl")
    done = beam_batch(*args, env=env_of(server))
    assert done.returncode == 0, done.stderr
    server.online.clear()
    server.answered.clear()
    return (folder / "online.jsonl").read_bytes()


def once_each(server: BatchServer) -> bool:
    return server.answered == Counter(f"row {n}" for n in range(1, ROWS + 1))


@pytest.mark.parametrize("model", ["responses.gpt-x", "openai.gpt-x"])
def test_a_batch_run_gives_what_an_online_run_gives(folder: Path, model: str) -> None:
    with BatchServer() as server:
        calm = online(folder, server, "-m", model)
        more = ("-m", model, "--batch-size", "30", "--telemetry-output", folder / "t.jsonl")
        done = beam_batch(
            *arguments(folder, *more, "--summary-output", folder / "s.json"), env=env_of(server)
        )
        assert done.returncode == 0, done.stderr
        assert [len(work.items) for work in server.works] == [30, 30, 30, 10]
        assert not server.online
        assert once_each(server)
    assert (folder / "out.jsonl").read_bytes() == calm
    assert not (folder / ".out.jsonl.batch").exists()
    first = next(t for t in read_jsonl(folder / "t.jsonl") if t["id"] == "id1")
    assert first == {
        "id": "id1",
        "row_number": 1,
        "ok": True,
        "timing": {"duration_ms": 60_000.0, "time_to_response_ms": 60_000.0},
        "usage": {"turn": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}},
        "cost_usd": None,
        "attempts": 1,
        "batch_id": "batch_1",
        "service_tier": "batch",
        "request_id": "req-1",
        "model": "gpt-x-served",
        "finish_reason": "stop" if model.startswith("openai") else "completed",
    }
    summary = json.loads((folder / "s.json").read_text())
    assert summary["backend"] == "batch"
    assert summary["requests"] == ROWS
    assert "batch: submitted batch_1: 30 requests" in done.stderr


def test_requests_are_in_the_form_of_the_input_file(folder: Path) -> None:
    with BatchServer() as server:
        beam_batch(*arguments(folder, "--limit", "1"), env=env_of(server))
        item = server.works[0].items[0]
        assert item["method"] == "POST"
        assert item["url"] == "/v1/responses"
        assert item["body"]["input"] == "row 1"
        assert "stream" not in item["body"]
        assert len(item["custom_id"]) <= 64


def test_anthropic_batches_give_what_online_runs_give(folder: Path) -> None:
    fates = [Fate(status="expired", share=0.3), Fate()]
    with AnthropicServer(lambda number: fates[number - 1]) as server:
        more = ("-m", "anthropic.claude-x", "--include-input")
        done = beam_batch(*arguments(folder, *more), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert [len(work.items) for work in server.works] == [100, 70]
        assert once_each(server)
    records = read_jsonl(folder / "out.jsonl")
    assert [r["result"] for r in records] == [f"row {n}" for n in range(1, ROWS + 1)]
    assert records[4]["input"] == {"id": "id5", "n": 5}


@pytest.mark.parametrize("finish", ["resubmit", "online"])
def test_an_expired_batch_with_a_third_done_finishes_with_every_row_answered_once(
    folder: Path, finish: str
) -> None:
    fates = [Fate(status="expired", share=0.3), Fate()]
    with BatchServer(lambda number: fates[number - 1]) as server:
        calm = online(folder, server)
        more = ("--batch-finish", finish, "--telemetry-output", folder / "t.jsonl")
        done = beam_batch(*arguments(folder, *more), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert once_each(server)
        assert server.creates == (2 if finish == "resubmit" else 1)
        assert len(server.online) == (0 if finish == "resubmit" else 70)
    assert (folder / "out.jsonl").read_bytes() == calm
    attempts = Counter(t["attempts"] for t in read_jsonl(folder / "t.jsonl"))
    assert attempts == ({1: 30, 2: 70} if finish == "resubmit" else {1: 100})


def test_failures_of_single_rows_are_envelopes_or_tried_again(folder: Path) -> None:
    asked: Counter[str] = Counter()

    def answer(prompt: str) -> Answer:
        asked[prompt] += 1
        bad = {"error": {"message": "too long", "code": "context_length_exceeded"}}
        if prompt == "row 3":
            return Answer(status=400, body=json.dumps(bad).encode())
        if prompt == "row 7":
            return Answer(finish_reason="max_output_tokens")
        if prompt in ("row 8", "row 9") and (asked[prompt] == 1 or prompt == "row 9"):
            return Answer(status=500, body=b'{"error": {"message": "oops"}}')
        return Answer()

    with BatchServer(lambda number: Fate(answer=answer)) as server:
        more = ("--max-attempts", "3", "--telemetry-output", folder / "t.jsonl")
        done = beam_batch(*arguments(folder, *more), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert [len(work.items) for work in server.works] == [100, 2, 1]
    failed = {r["id"]: r["error"] for r in read_jsonl(folder / "out.jsonl") if not r["ok"]}
    assert {name: error["type"] for name, error in failed.items()} == {
        "id3": "RequestRejected", "id7": "Truncated", "id9": "ServerError",
    }  # fmt: skip
    assert failed["id7"]["reply"] == "row 7"
    told = {t["id"]: t for t in read_jsonl(folder / "t.jsonl")}
    assert told["id9"]["attempts"] == 3
    assert told["id7"]["usage"]["turn"]["total_tokens"] == 7


def test_rows_that_the_results_lack_are_sent_again_and_fail_in_the_end(folder: Path) -> None:
    with BatchServer(lambda number: Fate(share=0.5)) as server:
        done = beam_batch(*arguments(folder, "--max-attempts", "2"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert [len(work.items) for work in server.works] == [100, 50]
    records = read_jsonl(folder / "out.jsonl")
    assert sum(record["ok"] for record in records) == 75
    assert {r["error"]["type"] for r in records if not r["ok"]} == {"ServerError"}


def _limited(number: int) -> Fate:
    problem = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for gpt-x."}
    return Fate(status="failed", looks=0, problems=(problem,))


def test_a_file_beyond_the_limit_of_waiting_tokens_is_sent_when_others_are_done(
    folder: Path,
) -> None:
    def fate(number: int) -> Fate:
        return Fate(looks=4) if number == 1 or server.works[0].ended else _limited(number)

    with BatchServer(fate) as server:
        done = beam_batch(*arguments(folder, "--batch-size", "50"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert [len(work.items) for work in server.works] == [50, 50, 50]
        assert once_each(server)
    assert "Enqueued token limit reached" in done.stderr


def test_a_file_that_is_too_much_alone_is_cut(folder: Path) -> None:
    def fate(number: int) -> Fate:
        return _limited(number) if len(server.works) < 2 else Fate()

    with BatchServer(fate) as server:
        done = beam_batch(*arguments(folder), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert [len(work.items) for work in server.works] == [100, 100, 50, 50]
        assert once_each(server)


def test_a_create_that_is_refused_for_waiting_tokens_is_tried_when_others_are_done(
    folder: Path,
) -> None:
    with BatchServer() as server:
        body = {"error": {"message": "Enqueued token limit reached", "code": "rate_limit"}}
        server.refuse = lambda call, number: (
            web.json_response(body, status=429) if (call, number) == ("create", 2) else None
        )
        done = beam_batch(*arguments(folder, "--batch-size", "50"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert server.creates == 2
        assert once_each(server)


def test_requests_that_a_batch_is_refused_for_fail_and_the_others_are_sent(folder: Path) -> None:
    problem = {"code": "invalid_request", "message": "no such thing", "line": 2}
    fates = [Fate(status="failed", problems=(problem,)), Fate()]
    with BatchServer(lambda number: fates[number - 1]) as server:
        done = beam_batch(*arguments(folder), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert [len(work.items) for work in server.works] == [100, 99]
    records = read_jsonl(folder / "out.jsonl")
    assert records[1]["error"]["message"] == "invalid_request: no such thing"
    assert sum(record["ok"] for record in records) == 99


@pytest.mark.parametrize(
    "problem",
    [
        {"code": "billing_hard_limit_reached", "message": "Not now."},
        {"code": "model_not_found", "message": "Not now.", "line": 1},
        {"code": "empty_file", "message": "Not now.", "line": 101},
    ],
)
def test_a_batch_that_is_refused_stops_the_run_and_is_submitted_anew_by_resume(
    folder: Path, problem: dict[str, Any]
) -> None:
    fates = [Fate(status="failed", problems=(problem,)), Fate()]
    with BatchServer(lambda number: fates[number - 1]) as server:
        done = beam_batch(*arguments(folder), env=env_of(server))
        assert done.returncode == 1
        assert "Not now." in done.stderr
        assert server.creates == 1
        assert "--resume" in done.stderr
        assert "Traceback" not in done.stderr
        done = beam_batch(*arguments(folder, "--resume"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert once_each(server)


def test_lost_answers_do_not_create_a_batch_twice(folder: Path) -> None:
    """Each route fails at first; a create is looked for before it is sent again."""
    with BatchServer() as server:
        server.refuse = lambda call, number: (
            web.Response(status=503) if number == 1 and call != "create" else None
        )
        taken = server._take

        def take_and_fail(items: list[Any], metadata: Any = None) -> Any:
            taken(items, metadata)
            server._take = taken  # type: ignore[method-assign]
            raise web.HTTPBadGateway

        server._take = take_and_fail  # type: ignore[method-assign]
        done = beam_batch(*arguments(folder), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert server.creates == 1
        assert "found again batch_1" in done.stderr
        assert once_each(server)


def test_a_download_that_is_cut_is_made_again(folder: Path) -> None:
    with BatchServer() as server:
        server.cuts = 2
        done = beam_batch(*arguments(folder), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert server.calls["download"] == 3
        assert server.creates == 1
        assert once_each(server)
    assert all(record["ok"] for record in read_jsonl(folder / "out.jsonl"))


def test_a_provider_that_cannot_be_asked_for_a_while_is_waited_for(folder: Path) -> None:
    with BatchServer() as server:
        server.refuse = lambda call, number: (
            web.Response(status=503) if call == "poll" and number <= 7 else None
        )
        done = beam_batch(*arguments(folder, "--max-attempts", "2"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert "cannot ask how batch_1 is, trying on" in done.stderr
        assert once_each(server)


def test_a_refused_key_stops_the_run_before_anything_is_created(folder: Path) -> None:
    with BatchServer() as server:
        server.refuse = lambda call, number: web.json_response(
            {"error": {"message": "Incorrect API key provided: sk-test-key-1234"}}, status=401
        )
        done = beam_batch(*arguments(folder), env=env_of(server))
    assert done.returncode == 1
    assert "refused the key" in done.stderr
    assert "sk-test-key" not in done.stderr
    for file in (folder / ".out.jsonl.batch").rglob("*.json*"):
        assert b"sk-test-key" not in file.read_bytes()


def test_max_errors_stops_in_the_middle_of_results_and_resume_records_no_row_twice(
    folder: Path,
) -> None:
    bad = Answer(status=400, body=b'{"error": {"message": "no"}}')
    rows = ("row 20", "row 30", "row 40")
    fate = Fate(answer=lambda prompt: bad if prompt in rows else Answer())
    with BatchServer(lambda number: fate) as server:
        args = arguments(folder, "--telemetry-output", folder / "t.jsonl")
        done = beam_batch(*args, "--max-errors", "2", env=env_of(server))
        assert done.returncode == 3, done.stderr
        done = beam_batch(*args, "--resume", env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert server.creates == 1
        assert server.calls["download"] == 2
    assert [t["row_number"] for t in read_jsonl(folder / "t.jsonl")] == list(range(1, ROWS + 1))
    assert [r["row_number"] for r in read_jsonl(folder / "out.jsonl") if not r["ok"]] == [
        20,
        30,
        40,
    ]


def test_a_key_that_a_provider_sends_back_is_in_no_file(folder: Path) -> None:
    fate = Fate(answer=lambda prompt: Answer(text=f"{prompt} sk-test-key-1234"))
    with BatchServer(lambda number: fate) as server:
        more = ("--keep-temp", "--telemetry-output", folder / "t.jsonl")
        done = beam_batch(*arguments(folder, *more), env=env_of(server))
        assert done.returncode == 0, done.stderr
    assert read_jsonl(folder / "out.jsonl")[0]["result"] == "row 1 ***"
    for path in folder.rglob("*"):
        assert not path.is_file() or b"sk-test-key" not in path.read_bytes(), path


def test_a_schema_is_sent_and_checked(folder: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    (folder / "schema.json").write_text(json.dumps(schema))

    def answer(prompt: str) -> Answer:
        return Answer(text='{"a": 1}' if prompt != "row 2" else '{"a": "x"}')

    with BatchServer(lambda number: Fate(answer=answer)) as server:
        args = arguments(folder, "--schema", folder / "schema.json", "--limit", "2")
        done = beam_batch(*args, env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert server.works[0].items[0]["body"]["text"]["format"]["type"] == "json_schema"
    first, second = read_jsonl(folder / "out.jsonl")
    assert first["result"] == {"a": 1}
    assert second["error"]["type"] == "StructuredOutputError"


def test_bad_rows_are_envelopes_and_a_finished_output_is_added_to(folder: Path) -> None:
    with (folder / "rows.jsonl").open("a") as file:
        file.write('{"id": "broken"}\n')
    with BatchServer() as server:
        done = beam_batch(*arguments(folder), env=env_of(server))
        assert done.returncode == 0, done.stderr
        records = read_jsonl(folder / "out.jsonl")
        assert [r["error"]["type"] for r in records if not r["ok"]] == ["MissingTemplateField"]
        write_jsonl(
            folder / "rows.jsonl",
            [{"id": f"id{n}", "n": n} for n in range(1, ROWS + 2)],
        )
        done = beam_batch(*arguments(folder, "--resume", "--overwrite"), env=env_of(server))
        assert done.returncode == 0, done.stderr
        assert [len(work.items) for work in server.works] == [100, 1]
    assert len(read_jsonl(folder / "out.jsonl")) == ROWS + 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("-m", "echo"), "echo has no Batch API that we know; responses, openai, anthropic"),
        (("-m", "responses.gpt-x?transport=sse"), "transport=sse has no meaning"),
        (("-m", "responses.gpt-x?service_tier=flex"), "leave service_tier=flex out"),
        (("--runner", "PrismRunner"), "--runner direct only"),
        (("--backend", "online", "--detach"), "--detach is for --backend batch only"),
        (("--batch-size", "0"), "--batch-size must be 1 or more"),
        (("--batch-poll", "0"), "--batch-poll must be more than 0"),
        (("--batch-finish", "later"), "'later'"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    folder: Path, more: tuple[str, ...], message: str
) -> None:
    env = environment(OPENAI_API_KEY="k", OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    done = beam_batch(*arguments(folder, *more), env=env)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split())
    assert not (folder / ".out.jsonl.batch").exists()
