"""Traces: their records, their secrets, their folder, and kills while it is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_batch import jsonio
from beam_batch.outputs import parts
from beam_batch.outputs.commit import APPEND, NEW, CommitSpec, IncompleteRun, commit
from beam_batch.outputs.trace_files import TRACE, TraceFolder, file_name, listed, new_run_id
from beam_batch.outputs.traces import (
    Asked,
    Called,
    Event,
    Instructed,
    Replied,
    Returned,
    Used,
    trace_of,
)
from beam_batch.outputs.workdir import WorkDir
from beam_batch.records import Image, Outcome
from beam_batch.redaction import redactor
from tests.support import read_jsonl

RUN = "260901-101500-0123abcd"
AT = 1_788_257_700.5
KEY = 'k-"1234\\5678'


def _outcome(
    number: int, ok: bool = True, trace: Any = None, row_id: str | int | None = None
) -> Outcome:
    error = None if ok else {"type": "Truncated", "message": "cut", "reply": "{"}
    result = {"label": "é"} if ok else None
    row_id = number if row_id is None else row_id
    envelope = {"id": row_id, "row_number": number, "ok": ok, "result": result, "error": error}
    telemetry = {"id": row_id, "timing": {}, "usage": {}, "attempts": 1}
    return Outcome(0, number, ok, envelope, telemetry, trace)


def _conversation(said: str = "found", given: str = '{"q":1}') -> list[Event]:
    return [
        Instructed(AT, "triage", "gpt-x", "Sort tickets."),
        Asked(AT + 1, "triage", ("See ", Image("https://x/y.png", None, None), "!")),
        Replied(AT + 2, "triage", "", "tool_calls"),
        Used(AT + 2, "triage", {"input_tokens": 10, "output_tokens": 2, "cached_tokens": 4}),
        Called(AT + 2, "triage", "c1", "look", given),
        Instructed(AT + 3, "helper", "gpt-y", "Help."),
        Asked(AT + 3, "helper", "what?"),
        Replied(AT + 4, "helper", "this", "stop"),
        Returned(AT + 5, "triage", "c1", said, is_error=True),
        Replied(AT + 6, "triage", '{"label":"é"}', "stop"),
        Used(AT + 6, "triage", {"input_tokens": 20, "output_tokens": 3, "reasoning_tokens": 1}),
    ]


def _payloads(records: Any, kind: str) -> list[Any]:
    return [r["payload"] for r in records if kind in (r["type"], r["payload"].get("type"))]


def test_a_conversation_becomes_a_rollout() -> None:
    records = trace_of(RUN, _outcome(7), _conversation(), ended=AT + 7)
    assert records is not None
    assert [record["payload"].get("type", record["type"]) for record in records] == [
        "session_meta", "message", "task_started", "user_message", "turn_context", "message",
        "token_count", "function_call", "message", "message", "message", "function_call_output",
        "message", "token_count", "task_complete",
    ]  # fmt: skip
    meta = records[0]["payload"]
    assert (meta["id"], meta["model"]) == (f"{RUN}-row-000007", "gpt-x")
    assert meta["base_instructions"] == {"text": "Sort tickets."}
    assert meta["timestamp"] == records[0]["timestamp"] == "2026-09-01T10:15:00.500Z"
    assert _payloads(records, "user_message") == [
        {"type": "user_message", "message": "See [image]!"}
    ]
    items = _payloads(records, "response_item")
    assert [(item.get("role", item["type"]), item["agent"]) for item in items] == [
        ("developer", "triage"), ("user", "triage"), ("function_call", "triage"),
        ("developer", "helper"), ("user", "helper"), ("assistant", "helper"),
        ("function_call_output", "triage"), ("assistant", "triage"),
    ]  # fmt: skip
    assert items[-1]["content"] == [{"type": "output_text", "text": '{"label":"é"}'}]
    assert items[-2] == {
        "type": "function_call_output", "agent": "triage", "call_id": "c1", "output": "found",
        "status": "error",
    }  # fmt: skip
    first, last = _payloads(records, "token_count")
    assert first["info"]["last_token_usage"] == {
        "input_tokens": 10, "output_tokens": 2, "cached_input_tokens": 4, "total_tokens": 12,
    }  # fmt: skip
    assert last["info"]["total_token_usage"]["total_tokens"] == 35
    assert records[-1]["payload"]["last_agent_message"] == '{"label":"é"}'


def test_a_failed_row_says_why_and_one_without_a_conversation_has_no_trace() -> None:
    records = trace_of(RUN, _outcome(1, ok=False), _conversation()[:2])
    assert records is not None
    assert records[-2]["payload"] == {"type": "error", "message": "Truncated: cut"}
    assert records[-1]["payload"]["last_agent_message"] is None
    assert _payloads(records, "message")[-1]["content"] == [{"type": "output_text", "text": "{"}]
    trace = trace_of(RUN, _outcome(1, ok=False), [*_conversation()[:2], Replied(AT, "a", "{")])
    assert [m["role"] for m in _payloads(trace, "message")] == ["developer", "user", "assistant"]
    assert trace_of(RUN, _outcome(1, ok=False), []) is None


def test_no_secret_is_in_a_trace_wherever_it_was_said() -> None:
    events: list[Event] = [
        Instructed(AT, "a", "m", f"key {KEY}"),
        Asked(AT, "a", (f"{KEY}", Image(None, "image/png", KEY))),
        Called(AT, "a", "c", "fetch", json.dumps({"key": KEY, "also": ["sk-abcdefgh"]})),
        Returned(AT, "a", "c", f"x={KEY}\nAuthorization: Basic dXNlcjpwYXNz\nBearer abcd1234"),
        Returned(AT, "a", "c", '{"authorization": "Token 0123456789"}'),
        Replied(AT, "a", f"it is {KEY}"),
    ]
    outcome = _outcome(1)._replace(envelope=_outcome(1).envelope | {"result": f"is {KEY}"})
    records = trace_of(RUN, outcome, events, clean=redactor([None, "", "EMPTY", KEY]))
    text = jsonio.dumps(records).decode()
    for secret in ("1234", "5678", "abcdefgh", "dXNlcjpwYXNz", "0123456789"):
        assert secret not in text, secret
    assert text.count("***") >= 8
    assert "EMPTY" not in text
    asked, clean = [Asked(AT, "a", "it is canary+0815")], redactor(["Basic canary+0815"])
    headers = trace_of(RUN, _outcome(1), asked, clean=clean)
    assert "canary" not in jsonio.dumps(headers).decode()


@given(text=st.text(), secrets=st.lists(st.text(min_size=8), max_size=3))
def test_any_text_can_be_kept_and_holds_no_secret(text: str, secrets: list[str]) -> None:
    events = [Asked(AT, "a", f"{text}{''.join(secrets)}\ud800"), Replied(AT, "a", text)]
    trace = trace_of(RUN, _outcome(1), events, clean=redactor(secrets))
    outcome = _outcome(1, trace=trace)
    found = parts.decode(parts.encode(outcome), 1)
    assert found is not None
    for record in json.loads(found.trace):
        said = record["payload"].get("message", "")
        assert not any(secret in said for secret in secrets if "*" not in secret)


@given(row_id=st.text() | st.integers(), agent=st.text())
def test_the_name_of_a_trace_is_a_name_whatever_the_id_is(row_id: str | int, agent: str) -> None:
    name = file_name(7, row_id, agent)
    assert TRACE.fullmatch(name)
    assert not {"/", "\\", "\0", "\n"} & set(name)
    assert len(name.encode()) <= 255


def test_names_stay_readable() -> None:
    assert file_name(12, "Straße 9/b", "triage") == (
        "row-000012__id-Straße_9_b__triage.codex.jsonl"
    )
    assert file_name(1_234_567, "..", "a b") == "row-1234567__id-..__a_b.codex.jsonl"
    assert file_name(1, "y" * 200, "a").count("y") == 80
    assert new_run_id() != new_run_id()


def test_a_line_without_a_trace_is_what_it_was_and_one_with_a_trace_comes_apart() -> None:
    plain = _outcome(3)
    assert parts.encode(plain) == (
        b'{"row_number":3,"ok":true,"size":%d,"envelope":%b,"telemetry":%b}\n'
        % (
            len(jsonio.dumps(plain.envelope)),
            jsonio.dumps(plain.envelope),
            jsonio.dumps(plain.telemetry),
        )
    )
    traced = plain._replace(trace=({"type": "x", "payload": {"trace": ',"trace":[é'}},))
    line = parts.encode(traced)
    found = parts.decode(line, 1)
    assert found is not None
    assert found.telemetry == jsonio.dumps(plain.telemetry)
    assert json.loads(found.trace) == list(traced.trace or ())
    assert json.loads(line)["trace"] == json.loads(found.trace)


@pytest.fixture
def work(tmp_path: Path) -> WorkDir:
    found = WorkDir(str(tmp_path / "work"))
    found.create()
    return found


def _write(work: WorkDir, session: int, *outcomes: Outcome, kind: str = "ok") -> None:
    writer = parts.PartWriter(work.place, kind, session)
    for outcome in outcomes:
        writer.append(outcome)
    writer.close()


def _traced(number: int, ok: bool = True, row_id: str | None = None) -> Outcome:
    outcome = _outcome(number, ok, row_id=row_id)
    return outcome._replace(trace=trace_of(RUN, outcome, _conversation(), ended=AT))


def _spec(work: WorkDir, rows: int, **changes: Any) -> CommitSpec:
    folder = work.root.parent / "traces"
    settings: dict[str, Any] = {
        "work": work, "output": str(work.root.parent / "out.jsonl"), "error_output": None,
        "telemetry_output": None, "mode": NEW, "session": 1, "rows": (rows,), "keep_bytes": (),
        "traces": TraceFolder(path=str(folder), run_id=RUN, agent="triage", replace=True),
    }  # fmt: skip
    return CommitSpec(**(settings | changes))


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_commit_writes_a_file_a_row_and_lists_all_rows_in_input_order(work: WorkDir) -> None:
    _write(work, 1, _traced(3), _traced(1, ok=False, row_id="a/b"), _outcome(2, ok=False))
    counts = commit(_spec(work, 3))
    assert counts["traces"] == {"run_id": RUN, "rows": 2}
    folder = work.root.parent / "traces"
    lines = read_jsonl(folder / "manifest.jsonl")
    assert [line["row_number"] for line in lines] == [1, 2, 3]
    assert lines[0] == {
        "run_id": RUN, "row_number": 1, "id": "a/b", "ok": False,
        "trace": "row-000001__id-a_b__triage.codex.jsonl", "record_count": 17, "agent": "triage",
        "error": {"type": "Truncated", "message": "cut"},
    }  # fmt: skip
    assert (lines[1]["trace"], lines[1]["record_count"]) == (None, 0)
    assert "error" not in lines[2]
    for line in (lines[0], lines[2]):
        records = read_jsonl(folder / line["trace"])
        assert len(records) == line["record_count"]
        assert records[0]["payload"]["id"] == f"{RUN}-row-{line['row_number']:06d}"
    assert sorted(_files(folder)) == sorted(
        ["manifest.jsonl", *(line["trace"] for line in lines if line["trace"])]
    )


def test_of_several_attempts_the_trace_is_that_of_the_outcome(work: WorkDir) -> None:
    _write(work, 1, _traced(1, ok=False))
    answered = _outcome(1)
    trace = trace_of(RUN, answered, [Asked(AT, "triage", "second")], ended=AT)
    _write(work, 2, answered._replace(trace=trace))
    commit(_spec(work, 1, session=2))
    (path,) = (work.root.parent / "traces").glob("row-*")
    assert "second" in path.read_text()


def _append(work: WorkDir, folder: Path) -> CommitSpec:
    size = (folder / "manifest.jsonl").stat().st_size
    return _spec(
        work, 2, mode=APPEND, keep_bytes=((str(folder / "manifest.jsonl"), size),),
        traces=TraceFolder(path=str(folder), run_id="later", agent="triage"),
    )  # fmt: skip


def test_an_addition_appends_to_the_list_and_keeps_the_traces_that_are_there(
    work: WorkDir,
) -> None:
    _write(work, 1, _traced(1), _traced(2, ok=False))
    commit(_spec(work, 2))
    folder = work.root.parent / "traces"
    first = _files(folder)
    shutil.rmtree(work.root / "parts")
    work.create()
    kept = Outcome(0, 1, True, {"id": 1, "ok": True, "error": None}, {})
    _write(work, parts.KEPT_SESSION, kept, kind="kept")
    _write(work, 1, _traced(2))
    spec = _append(work, folder)
    commit(spec)
    once = _files(folder)
    commit(spec)
    assert _files(folder) == once
    assert once.keys() == first.keys()
    assert once["manifest.jsonl"].startswith(first["manifest.jsonl"])
    lines = read_jsonl(folder / "manifest.jsonl")
    assert [(line["row_number"], line["ok"], line["run_id"]) for line in lines] == [
        (1, True, RUN), (2, False, RUN), (2, True, "later"),
    ]  # fmt: skip
    assert len(list(listed(folder))) == 3


def test_what_is_not_ours_stays_and_traces_of_a_replaced_run_go(work: WorkDir) -> None:
    folder = work.root.parent / "traces"
    folder.mkdir()
    for name in ("notes.txt", "row-1.codex.jsonl", "row-000009__id-9__old.codex.jsonl"):
        (folder / name).write_text("old")
    _write(work, 1, _traced(1))
    commit(_spec(work, 1))
    assert sorted(_files(folder)) == [
        "manifest.jsonl", "notes.txt", "row-000001__id-1__triage.codex.jsonl", "row-1.codex.jsonl",
    ]  # fmt: skip


def test_nothing_is_placed_where_a_row_has_no_outcome(work: WorkDir) -> None:
    _write(work, 1, _traced(1))
    with pytest.raises(IncompleteRun):
        commit(_spec(work, 2))
    assert list((work.root.parent / "traces").iterdir()) == []


def _dying(at: int, call: Callable[[], object]) -> bool:
    """Run in a fork that is killed before its n-th change of a file's name; whether it was."""
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def change(*args: Any, **more: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **more)

            return change

        for module, name in ((os, "replace"), (os, "unlink"), (shutil, "rmtree")):
            setattr(module, name, counted(getattr(module, name)))
        os.sync = lambda: None
        try:
            call()
            os._exit(0)
        except BaseException:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("adds", [False, True], ids=["new", "addition"])
def test_a_kill_at_any_step_of_the_commit_is_made_good_by_the_next(
    tmp_path: Path, adds: bool
) -> None:
    def prepared(name: str) -> CommitSpec:
        work = WorkDir(str(tmp_path / name / "work"))
        work.create()
        folder = tmp_path / name / "traces"
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
        _write(work, 1, _traced(1), _traced(2, ok=False))
        if not adds:
            (folder / file_name(8, 8, "old")).write_text("old")
            return _spec(work, 2)
        commit(_spec(work, 2))
        shutil.rmtree(work.root / "parts")
        work.create()
        kept = Outcome(0, 1, True, {"id": 1, "ok": True, "error": None}, {})
        _write(work, parts.KEPT_SESSION, kept, kind="kept")
        _write(work, 1, _traced(2))
        return _append(work, folder)

    calm = prepared("calm")
    commit(calm)
    expected = _files(tmp_path / "calm" / "traces")
    assert len(expected) == 4
    for step in range(1, 40):
        spec = prepared(f"killed-{step}")
        was_killed = _dying(step, lambda spec=spec: commit(spec))
        commit(spec)
        assert _files(tmp_path / f"killed-{step}" / "traces") == expected, step
        if not was_killed:
            assert step > 6, "hardly any step was tried"
            return
    pytest.fail("the commit never came to its end")
