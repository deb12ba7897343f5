"""What a server can do wrong, and the name each outcome has."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Answer, Script, ScriptedServer, completion, error_body, prompt_of
from tests.support import beam_batch, environment, read_jsonl, write_jsonl

QUICK = ("--retry-wait", "0.01", "--no-final-summary")


def _run(
    folder: Path,
    script: Script,
    *more: str,
    model: str = "openai.m",
    rows: int = 6,
    delay: float = 0,
    key: str = "sk-canary-123",
    upgrade: int = 426,
) -> tuple[Any, ScriptedServer]:
    write_jsonl(folder / "rows.jsonl", [{"n": n} for n in range(1, rows + 1)])
    with ScriptedServer(script, delay=delay, upgrade=upgrade) as server:
        done = beam_batch(
            "run", "-i", folder / "rows.jsonl", "-o", folder / "out.jsonl", "-m", model,
            "-p", "row {{n}}", "--telemetry-output", folder / "t.jsonl", *QUICK, *more,
            env=environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY=key),
        )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done, server


def _once(prompt: str, bad: Answer) -> Script:
    """Misbehave at the first request for a prompt only."""
    seen: set[str] = set()

    def script(number: int, body: dict[str, Any]) -> Answer:
        if prompt_of(body) != prompt or prompt in seen:
            return Answer()
        seen.add(prompt)
        return bad

    return script


SHAPELESS = json.dumps(
    {
        "object": "response",
        "output": [{"type": "message", "content": 7}],
        "choices": [{"message": {"content": [7]}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens_details": "x", "input_tokens_details": "x"},
    }
).encode()


def _always(prompt: str, bad: Answer) -> Script:
    return lambda number, body: bad if prompt_of(body) == prompt else Answer()


@pytest.mark.parametrize("model", ["openai.m", "responses.m"])
@pytest.mark.parametrize(
    "bad",
    [
        Answer(fault="drop"),
        Answer(status=500, body=error_body("oops")),
        Answer(status=503, body=b"<html><h1>Busy</h1></html>"),
        Answer(status=429, body=error_body("slow down"), headers={"Retry-After": "0"}),
        Answer(status=408, body=b""),
        Answer(status=409, body=b""),
        Answer(status=425, body=b""),
    ],
    ids=["drop", "500", "503", "429", "408", "409", "425"],
)
def test_a_passing_fault_is_retried_and_counted(tmp_path: Path, bad: Answer, model: str) -> None:
    done, server = _run(tmp_path, _once("row 3", bad), model=model)
    assert done.returncode == 0, done.stderr
    assert server.requests == 7
    records = read_jsonl(tmp_path / "t.jsonl")
    assert [r["attempts"] for r in records] == [1, 1, 2, 1, 1, 1]
    assert [r["result"] for r in read_jsonl(tmp_path / "out.jsonl")][2] == "row 3"


def test_a_hanging_request_times_out_and_is_retried(tmp_path: Path) -> None:
    done, server = _run(tmp_path, _once("row 2", Answer(fault="hang")), "--timeout", "1")
    assert done.returncode == 0, done.stderr
    assert server.requests == 7


def test_retry_after_is_obeyed(tmp_path: Path) -> None:
    times: list[float] = []

    def script(number: int, body: dict[str, Any]) -> Answer:
        if prompt_of(body) == "row 4":
            times.append(time.monotonic())
            if len(times) == 1:
                return Answer(
                    status=429, body=error_body("wait"), headers={"retry-after-ms": "700"}
                )
        return Answer()

    done, _ = _run(tmp_path, script)
    assert done.returncode == 0, done.stderr
    assert times[1] - times[0] >= 0.7


def test_a_lasting_fault_costs_max_attempts_and_fails_the_row_only(tmp_path: Path) -> None:
    bad = Answer(status=500, body=error_body("still broken"))
    done, server = _run(tmp_path, _always("row 5", bad), "--max-attempts", "3")
    assert done.returncode == 0
    assert server.requests == 5 + 3
    results = read_jsonl(tmp_path / "out.jsonl")
    assert [r["ok"] for r in results] == [True, True, True, True, False, True]
    assert results[4]["error"] == {"type": "ServerError", "message": "500: still broken"}
    assert "1 rows failed with ServerError" in done.stderr


@pytest.mark.parametrize(
    ("bad", "name", "reply"),
    [
        (Answer(finish_reason="length", text="half an ans"), "Truncated", "half an ans"),
        (Answer(finish_reason="content_filter"), "ContentFiltered", "row 2"),
        (Answer(text=""), "EmptyReply", None),
        (Answer(body=b"<html>proxy</html>"), "InvalidResponse", None),
        (Answer(body=b"[1, 2]"), "InvalidResponse", None),
        (Answer(body=b'{"half": '), "InvalidResponse", None),
        (Answer(body=SHAPELESS), "InvalidResponse", None),
        (Answer(status=400, body=error_body("bad prompt")), "RequestRejected", None),
        (Answer(status=413, body=error_body("too large")), "RequestRejected", None),
        (Answer(status=422, body=error_body("no")), "RequestRejected", None),
        (Answer(status=404, body=b"no such page"), "RequestRejected", None),
        (
            Answer(status=302, headers={"Location": "http://127.0.0.1:1/steal"}, body=b""),
            "RequestRejected",
            None,
        ),
    ],
    ids=[
        "truncated", "filtered", "empty", "html", "list", "half", "shapeless", "400", "413", "422",
        "404", "302",
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", ["openai.m", "responses.m"])
def test_a_bad_answer_is_a_failure_with_a_name_and_is_sent_once(
    tmp_path: Path, bad: Answer, name: str, reply: str | None, model: str
) -> None:
    done, server = _run(tmp_path, _always("row 2", bad), model=model)
    assert done.returncode == 0, done.stderr
    assert server.requests == 6
    results = read_jsonl(tmp_path / "out.jsonl")
    assert [r["ok"] for r in results] == [True, False, True, True, True, True]
    assert results[1]["result"] is None
    assert results[1]["error"]["type"] == name
    assert results[1]["error"].get("reply") == reply


def test_a_refusal_is_a_failure_that_keeps_its_text_and_its_tokens(tmp_path: Path) -> None:
    refusal = completion({"messages": [{"content": ""}], "model": "m"}, Answer())
    refusal["choices"][0]["message"] = {"content": None, "refusal": "I cannot help with that."}
    bad = Answer(body=json.dumps(refusal).encode())
    _run(tmp_path, _always("row 1", bad))
    first = read_jsonl(tmp_path / "out.jsonl")[0]
    assert first["error"]["type"] == "Refused"
    assert first["error"]["reply"] == "I cannot help with that."
    assert read_jsonl(tmp_path / "t.jsonl")[0]["usage"]["turn"]["input_tokens"] == 5


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Answer(status=401, body=error_body("Bad key sk-canary-123")), "refused the key"),
        (Answer(status=403, body=error_body("not yours")), "refused the key"),
        (
            Answer(status=404, body=error_body("no model m", code="model_not_found")),
            "does not know the model",
        ),
        (
            Answer(status=429, body=error_body("pay", code="insufficient_quota")),
            "quota is used up",
        ),
        (
            Answer(status=400, body=error_body("bad", param="response_format.json_schema.schema")),
            "refuses the schema",
        ),
    ],
    ids=["401", "403", "unknown-model", "quota", "schema"],
)
def test_a_fault_of_every_request_ends_the_run_before_the_second(
    tmp_path: Path, bad: Answer, words: str
) -> None:
    done, server = _run(tmp_path, lambda number, body: bad, rows=100)
    assert done.returncode == 1
    assert words in done.stderr
    assert "sk-canary-123" not in done.stderr
    assert server.requests == 1
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("event", [[], {"choices": [None]}, {"choices": [{"delta": "x"}]}])
def test_a_shapeless_event_fails_its_row_only(tmp_path: Path, event: Any) -> None:
    def script(number: int, body: dict[str, Any]) -> Answer:
        return Answer(events=(event,) if prompt_of(body) == "row 2" else WHOLE)

    done, server = _run(tmp_path, script, model="openai.m?transport=sse")
    assert done.returncode == 0, done.stderr
    assert server.requests == 6
    results = read_jsonl(tmp_path / "out.jsonl")
    assert [r["ok"] for r in results] == [True, False, True, True, True, True]
    assert results[1]["error"]["type"] == "InvalidResponse"


@pytest.mark.parametrize(
    "body",
    [
        {"object": "response", "status": "failed", "error": {"code": "server_error"}},
        {"object": "response", "status": "failed", "error": {"code": "rate_limit_exceeded"}},
    ],
)
def test_an_error_in_a_200_body_is_retried(tmp_path: Path, body: dict[str, Any]) -> None:
    bad = Answer(body=json.dumps(body).encode())
    done, server = _run(tmp_path, _once("row 3", bad), model="responses.m")
    assert done.returncode == 0, done.stderr
    assert server.requests == 7
    assert [r["attempts"] for r in read_jsonl(tmp_path / "t.jsonl")] == [1, 1, 2, 1, 1, 1]


def test_a_400_that_quotes_a_row_about_models_does_not_end_the_run(tmp_path: Path) -> None:
    bad = Answer(status=400, body=error_body("cannot process: 'the model was not found'"))
    done, _ = _run(tmp_path, _always("row 2", bad))
    assert done.returncode == 0, done.stderr
    assert [r["ok"] for r in read_jsonl(tmp_path / "out.jsonl")].count(False) == 1


def test_a_provider_that_asks_for_a_day_fails_the_row(tmp_path: Path) -> None:
    bad = Answer(status=429, body=error_body("tomorrow"), headers={"Retry-After": "86400"})
    done, server = _run(tmp_path, _always("row 2", bad))
    assert done.returncode == 0, done.stderr
    assert server.requests == 6
    assert read_jsonl(tmp_path / "out.jsonl")[1]["error"]["type"] == "RateLimited"


@pytest.mark.parametrize("model", ["openai.m", "responses.m", "openai.m?transport=sse"])
def test_a_key_that_a_server_sends_back_is_in_no_file(tmp_path: Path, model: str) -> None:
    key = "CANARYKEY4711"
    said = f"got Bearer {key} and {key}"
    bodies = (
        json.dumps({"error": {"message": said}}).encode(),
        json.dumps({"object": "response", "status": "failed", "error": {"message": said}}).encode(),
        said.encode(),
        json.dumps({"detail": said}).encode(),
    )

    def script(number: int, body: dict[str, Any]) -> Answer:
        if number == 5:
            return Answer(text=said, headers={"x-request-id": key})
        if number == 6:
            return Answer(status=400, body=error_body(said))
        return Answer(body=bodies[number % 4])

    done, _ = _run(tmp_path, script, "--max-attempts", "1", model=model, key=key)
    assert key not in done.stdout + done.stderr
    for path in tmp_path.rglob("*.json*"):
        assert key not in path.read_text(), path


def test_a_key_revoked_in_mid_run_keeps_what_is_done(tmp_path: Path) -> None:
    def script(number: int, body: dict[str, Any]) -> Answer:
        return Answer() if number <= 20 else Answer(status=401, body=error_body("revoked"))

    done, _ = _run(tmp_path, script, "--parallel", "4", rows=50)
    assert done.returncode == 1
    again, server = _run(tmp_path, lambda number, body: Answer(), "--resume", rows=50)
    assert again.returncode == 0, again.stderr
    assert server.requests == 30
    assert [r["result"] for r in read_jsonl(tmp_path / "out.jsonl")] == [
        f"row {n}" for n in range(1, 51)
    ]


def test_parallel_is_the_number_of_requests_in_flight(tmp_path: Path) -> None:
    done, server = _run(
        tmp_path, lambda number, body: Answer(), "--parallel", "7", rows=60, delay=0.05
    )
    assert done.returncode == 0
    assert server.most_in_flight == 7


def test_max_errors_stops_with_exit_3_and_can_be_resumed(tmp_path: Path) -> None:
    bad = Answer(status=400, body=error_body("no"))
    more = ("--max-errors", "3", "--parallel", "2", "--sample", "90")
    done, server = _run(tmp_path, lambda number, body: bad, *more, rows=100)
    assert done.returncode == 3
    assert server.requests <= 3 + 2
    assert "--max-errors 3" in done.stderr
    again, _ = _run(tmp_path, lambda number, body: Answer(), *more, "--resume", rows=100)
    assert again.returncode == 0, again.stderr
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 90


def test_all_rows_failed_is_exit_1_and_still_one_envelope_a_row(tmp_path: Path) -> None:
    bad = Answer(status=400, body=error_body("no"))
    done, _ = _run(tmp_path, lambda number, body: bad)
    assert done.returncode == 1
    assert [r["ok"] for r in read_jsonl(tmp_path / "out.jsonl")] == [False] * 6


def test_fail_on_error_is_exit_1_where_a_row_failed(tmp_path: Path) -> None:
    bad = Answer(status=400, body=error_body("no"))
    done, _ = _run(tmp_path, _always("row 2", bad), "--fail-on-error")
    assert done.returncode == 1
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 6


def _delta(text: str) -> dict[str, Any]:
    return {"id": "c1", "model": "m", "choices": [{"delta": {"content": text}}]}


STOP = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
WHOLE = (
    _delta("row "),
    _delta("x"),
    STOP,
    {"choices": [], "usage": {"prompt_tokens": 3}},
    b"[DONE]",
)


def test_a_stream_is_put_together_and_times_its_first_text(tmp_path: Path) -> None:
    done, server = _run(
        tmp_path, lambda number, body: Answer(events=WHOLE), model="openai.m?transport=sse"
    )
    assert done.returncode == 0, done.stderr
    assert {r["result"] for r in read_jsonl(tmp_path / "out.jsonl")} == {"row x"}
    record = read_jsonl(tmp_path / "t.jsonl")[0]
    assert 0 < record["timing"]["ttft_ms"] <= record["timing"]["duration_ms"]
    assert record["usage"]["turn"] == {"input_tokens": 3}
    assert server.bodies[0]["stream"] is True


@pytest.mark.parametrize("fault", ["", "cut", "stall"])
def test_a_stream_that_ends_early_is_retried(tmp_path: Path, fault: str) -> None:
    calls: list[int] = []

    def script(number: int, body: dict[str, Any]) -> Answer:
        if prompt_of(body) == "row 3" and not calls:
            calls.append(number)
            return Answer(events=(_delta("row "),), fault=fault)
        return Answer(events=WHOLE)

    done, server = _run(tmp_path, script, "--stall-timeout", "0.5", model="openai.m?transport=sse")
    assert done.returncode == 0, done.stderr
    assert server.requests == 7
    assert [r["attempts"] for r in read_jsonl(tmp_path / "t.jsonl")] == [1, 1, 2, 1, 1, 1]


DELTA = {"type": "response.output_text.delta", "delta": "row"}
CREATED = {"type": "response.created", "response": {"id": "r"}}


@pytest.mark.parametrize("transport", ["auto", "websocket"])
@pytest.mark.parametrize(
    "bad",
    [
        Answer(events=(CREATED, DELTA), fault="cut"),
        Answer(events=(CREATED, DELTA), fault="end"),
        Answer(fault="drop"),
        Answer(status=429, body=error_body("slow down")),
        Answer(status=500, body=error_body("oops")),
    ],
    ids=["cut", "end", "drop", "429", "500"],
)
def test_a_socket_that_fails_in_mid_response_costs_its_own_row_one_attempt(
    tmp_path: Path, bad: Answer, transport: str
) -> None:
    done, server = _run(
        tmp_path, _once("row 3", bad), model=f"responses.m?transport={transport}", upgrade=101
    )
    assert done.returncode == 0, done.stderr
    assert (server.requests, server.posts) == (7, 0)
    records = read_jsonl(tmp_path / "t.jsonl")
    assert [r["attempts"] for r in records] == [1, 1, 2, 1, 1, 1]
    assert all(0 < r["timing"]["ttft_ms"] <= r["timing"]["duration_ms"] for r in records)
    assert [r["result"] for r in read_jsonl(tmp_path / "out.jsonl")] == [
        f"row {n}" for n in range(1, 7)
    ]


def test_a_refused_handshake_costs_no_row_an_attempt(tmp_path: Path) -> None:
    done, server = _run(tmp_path, lambda number, body: Answer(), model="responses.m")
    assert done.returncode == 0, done.stderr
    assert (server.posts, len(server.handshakes)) == (6, 1)
    assert {r["attempts"] for r in read_jsonl(tmp_path / "t.jsonl")} == {1}


def test_a_server_without_sockets_ends_a_run_that_asks_for_them(tmp_path: Path) -> None:
    model = "responses.m?transport=websocket"
    done, server = _run(tmp_path, lambda number, body: Answer(), model=model)
    assert done.returncode == 1
    assert "transport=http" in done.stderr
    assert "sk-canary-123" not in done.stderr
    assert (server.posts, len(server.handshakes)) == (0, 1)
