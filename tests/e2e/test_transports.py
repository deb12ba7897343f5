"""Every transport against a server that nobody here wrote, and answers that do not depend on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Aimock
from tests.support import beam_batch, environment, read_jsonl, write_jsonl

TRANSPORTS = ("websocket", "auto", "sse", "http")
ROWS = 40
Start = Callable[[list[dict[str, Any]]], Aimock]


def _fixture(row: int, **more: Any) -> dict[str, Any]:
    content = f"The answer to row {row:02} has more than one piece.\n"
    return {
        "match": {"userMessage": f"row {row:02}"},
        "response": {"content": content * 3},
    } | more


def _run(folder: Path, server: Aimock, model: str, rows: int = ROWS) -> tuple[bytes, list[Any]]:
    """Run, and return the output as it is and the telemetry."""
    write_jsonl(folder / "rows.jsonl", [{"n": f"{n:02}"} for n in range(rows)])
    done = beam_batch(
        "run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", model, "-p", "row {{n}}",
        "--telemetry-output", "t.jsonl", "--overwrite", "--retry-wait", "0.01", "--fail-on-error",
        env=environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-1", XAI_API_KEY="k",
                        XAI_BASE_URL=server.base_url),
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + (folder / "out.jsonl").read_text()
    return (folder / "out.jsonl").read_bytes(), read_jsonl(folder / "t.jsonl")


def test_the_transport_does_not_change_an_envelope(tmp_path: Path, aimock: Start) -> None:
    server = aimock([_fixture(n) for n in range(ROWS)])
    outputs: dict[str, bytes] = {}
    came: list[str] = []
    for transport in TRANSPORTS:
        output, telemetry = _run(tmp_path, server, f"responses.m?transport={transport}")
        outputs[transport] = output
        assert output.count(b'"ok":true') == ROWS
        assert {record["attempts"] for record in telemetry} == {1}
        for record in telemetry:
            assert ("ttft_ms" in record["timing"]) == (transport != "http")
        came += [transport + " " + method for method in server.methods()[len(came) :]]
    assert set(outputs.values()) == {outputs["http"]}
    expected = {"websocket": "WS", "auto": "WS", "sse": "POST", "http": "POST"}
    assert came == [f"{t} {expected[t]}" for t in TRANSPORTS for _ in range(ROWS)]


def test_xai_uses_sockets_of_its_own_accord(tmp_path: Path, aimock: Start) -> None:
    server = aimock([_fixture(n) for n in range(4)])
    _run(tmp_path, server, "xai.grok-4", rows=4)
    assert server.methods() == ["WS"] * 4


@pytest.mark.parametrize(
    "cut",
    [{"truncateAfterChunks": 4}, {"disconnectAfterMs": 30, "latency": 10}],
    ids=["chunks", "time"],
)
@pytest.mark.parametrize("transport", ["websocket", "auto"])
def test_an_answer_that_is_cut_is_asked_for_again(
    tmp_path: Path, aimock: Start, transport: str, cut: dict[str, Any]
) -> None:
    once = _fixture(3) | cut
    once["match"]["sequenceIndex"] = 0
    server = aimock([once, *(_fixture(n) for n in range(8))])
    _, telemetry = _run(tmp_path, server, f"responses.m?transport={transport}", rows=8)
    assert [r["attempts"] for r in telemetry] == [1, 1, 1, 2, 1, 1, 1, 1]
    assert server.methods() == ["WS"] * 9


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_answer_that_was_searched_for_is_an_answer(
    tmp_path: Path, aimock: Start, transport: str
) -> None:
    fixture = _fixture(0)
    fixture["response"]["webSearches"] = ["first query", "second query"]
    model = f"responses.m?web_search=true&transport={transport}"
    output, _ = _run(tmp_path, aimock([fixture]), model, rows=1)
    assert b"The answer to row 00" in output


def test_an_error_frame_fails_its_row_only(tmp_path: Path, aimock: Start) -> None:
    error = {"error": {"message": "not this", "type": "invalid_request_error"}, "status": 400}
    server = aimock([_fixture(0), _fixture(1, response=error), _fixture(2)])
    write_jsonl(tmp_path / "rows.jsonl", [{"n": f"{n:02}"} for n in range(3)])
    done = beam_batch(
        "run", "-i", "rows.jsonl", "-o", "out.jsonl", "-m", "responses.m?transport=websocket",
        "-p", "row {{n}}", cwd=tmp_path,
        env=environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-1"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = read_jsonl(tmp_path / "out.jsonl")
    assert [r["ok"] for r in results] == [True, False, True]
    assert results[1]["error"] == {"type": "RequestRejected", "message": "400: not this"}
