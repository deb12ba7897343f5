"""Agents from card to envelope: real MCP servers, scripted models, processes killed at will."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.agents.support import FAULTY, NO_NODE, NODE, parent_of
from tests.conftest import Aimock, free_port
from tests.fakes import Answer, ScriptedServer
from tests.support import (
    beam_batch,
    environment,
    interrupt,
    read_jsonl,
    start,
    wait_until,
    write_jsonl,
)

TOOLS = '''
def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())
'''


def _write(folder: Path, **cards: str) -> Path:
    """Write cards into a folder, with a Python tool beside them."""
    place = folder / "cards"
    place.mkdir(exist_ok=True)
    (place / "tools.py").write_text(TOOLS)
    for name, text in cards.items():
        (place / f"{name}.md").write_text(f"---\n{text}\n---\nDo what the row says.\n")
    return place


def _faulty(mark: str, session: str = "shared", timeout: float = 5) -> str:
    """Write the servers: of a card with a server that fails on demand, its environment marked."""
    return (
        f"servers: {{faulty: {{command: {sys.executable}, args: [-I, -S, {FAULTY}], "
        f"env: {{MARK: {mark}}}, session: {session}, timeout: {timeout}}}}}"
    )


def _last(body: dict[str, Any]) -> tuple[str, str | None]:
    """Return the prompt of a request, and what its last tool said, or None."""
    said = body["messages"]
    prompt = next(message["content"] for message in said if message["role"] == "user")
    return prompt, said[-1]["content"] if said[-1]["role"] == "tool" else None


def call_what_is_asked(number: int, body: dict[str, Any]) -> Answer:
    """Call the tools that a prompt names as JSON, then answer with what the last one said."""
    prompt, result = _last(body)
    if result is not None:
        return Answer(text=result[:60])
    wanted = json.loads(prompt)
    return Answer(text="", calls=tuple((name, given) for name, given in wanted.items()))


def _arguments(folder: Path, cards: Path, *more: str) -> list[str]:
    return [
        "run", "-i", str(folder / "rows.jsonl"), "-o", str(folder / "out.jsonl"),
        "--agent-card", str(cards), "-p", "{{calls}}", "-m", "generic.m", "--no-final-summary",
        "--telemetry-output", str(folder / "telemetry.jsonl"), "--retry-wait", "0", *more,
    ]  # fmt: skip


def _processes(mark: str) -> list[int]:
    """List the processes whose environment holds a mark."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            marked = mark.encode() in (place / "environ").read_bytes()
            is_zombie = (place / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
        except OSError:
            continue
        if marked and not is_zombie:
            found.append(int(place.name))
    return found


needs_proc = pytest.mark.skipif(
    sys.platform != "linux", reason="processes are found by their environment in /proc"
)


@pytest.fixture
def mark() -> str:
    return f"beam-batch-{uuid.uuid4().hex}"


# ---- every kind of tool ------------------------------------------------------------------------

KINDS = {
    "words": ("count_words", {"text": "a b c"}, "3"),
    "stdio": ("near__echo", {"message": "hello near"}, "hello near"),
    "http": ("far__echo", {"message": "hello far"}, "hello far"),
    "time": ("get_current_time", {"timezone": "UTC"}, "timezone"),
    "file": ("read_text_file", {"path": "FILE"}, "what the file says"),
    "child": ("helper", {"message": "question for the helper"}, "the helper's answer"),
}


def _fixtures(file: Path) -> list[dict[str, Any]]:
    """Return what aimock answers: a call first, then an answer once there is a result."""
    fixtures: list[dict[str, Any]] = [
        {
            "match": {"userMessage": "question for the helper"},
            "response": {"content": "the helper's answer"},
        }
    ]
    for kind, (tool, arguments, result) in KINDS.items():
        given = {k: str(file) if v == "FILE" else v for k, v in arguments.items()}
        match = {"userMessage": f"kind {kind}", "hasToolResult": True, "toolResultContains": result}
        call = {"name": tool, "arguments": json.dumps(given)}
        fixtures += [
            {"match": match, "response": {"content": f"{kind} is done"}},
            {
                "match": {"userMessage": f"kind {kind}", "hasToolResult": False},
                "response": {"toolCalls": [call]},
            },
        ]
    return fixtures


@needs_proc
@pytest.mark.skipif(not NODE, reason=NO_NODE)
@pytest.mark.parametrize(("model", "count"), [("generic.m", 120), ("responses.m", 240)])
def test_rows_use_every_kind_of_tool_at_32_in_flight(
    tmp_path: Path,
    aimock: Callable[[list[dict[str, Any]]], Aimock],
    mark: str,
    model: str,
    count: int,
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "note.txt").write_text("what the file says")
    port = free_port()
    cards = _write(
        tmp_path,
        main=f"""name: main
agents: [helper]
function_tools: ["tools.py:count_words"]
servers:
  near: {{command: {NODE}/mcp-server-everything, args: [stdio], env: {{MARK: {mark}}}}}
  far: {{url: "http://127.0.0.1:{port}/mcp"}}
  time: {{command: {sys.executable}, args: [-m, mcp_server_time, --local-timezone, UTC],
          env: {{MARK: {mark}}}}}
  files: {{command: {NODE}/mcp-server-filesystem, args: ["{root}"], env: {{MARK: {mark}}}}}""",
        helper="name: helper\ndescription: Answers questions.\ntool_only: true",
    )
    kinds = list(KINDS)
    rows = [{"text": f"kind {kinds[n % len(kinds)]}, row {n}"} for n in range(count)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    server = aimock(_fixtures(root / "note.txt"))
    env = environment(
        GENERIC_BASE_URL=server.base_url, OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-12345"
    )
    with ExitStack() as stack:
        far = subprocess.Popen(
            [f"{NODE}/mcp-server-everything", "streamableHttp"],
            env=os.environ | {"PORT": str(port)}, stderr=subprocess.PIPE,
        )  # fmt: skip
        stack.callback(far.communicate)
        stack.callback(far.kill)
        assert far.stderr is not None
        while b"listening" not in far.stderr.readline():
            pass
        done = beam_batch(
            *_arguments(tmp_path, cards, "-m", model, "-p", "{{text}}", "--parallel", "32"),
            "--no-dedupe", "--agent", "main", env=env,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = read_jsonl(tmp_path / "out.jsonl")
    assert [r["result"] for r in results] == [f"{kinds[n % 6]} is done" for n in range(count)]
    telemetry = read_jsonl(tmp_path / "telemetry.jsonl")
    used: Counter[str] = Counter()
    for line in telemetry:
        used.update(line["tools"])
        assert line["tool_calls"] == 1
        assert line["attempts"] == len(line["calls"]) == (3 if "helper" in line["tools"] else 2)
    assert set(used) == {tool for tool, *_ in KINDS.values()}
    children = [line for line in telemetry if "helper" in line["tools"]]
    assert [call["agent"] for call in children[0]["calls"]] == ["main", "helper", "main"]
    assert len(server.methods()) == sum(len(line["calls"]) for line in telemetry)
    assert _processes(mark) == []


# ---- no process stays --------------------------------------------------------------------------


@needs_proc
@pytest.mark.parametrize("session", ["shared", "row"])
def test_no_process_stays_after_success_and_failure(
    tmp_path: Path, mark: str, session: str
) -> None:
    cards = _write(tmp_path, main=_faulty(mark, session))
    calls = [{"spawn": {}}, {"stay": {}}, {"fail": {}}, {"echo": {"text": "hi"}}]
    write_jsonl(tmp_path / "rows.jsonl", [{"calls": json.dumps(call)} for call in calls])
    with ScriptedServer(call_what_is_asked) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        done = beam_batch(*_arguments(tmp_path, cards), env=env)
        assert done.returncode == 0, done.stderr
        assert _processes(mark) == []
        refused = beam_batch(
            *_arguments(tmp_path, cards, "--overwrite", "-m", "generic.m?max_tokens=5"),
            env=env | {"GENERIC_BASE_URL": "http://127.0.0.1:9/v1"},
        )
    results = [row["result"] for row in read_jsonl(tmp_path / "out.jsonl")]
    assert results[2] is None or "no such luck" in results[2]
    assert refused.returncode == 1
    assert _processes(mark) == []


@needs_proc
@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, 1), (signal.SIGKILL, 1), (signal.SIGKILL, 2)]
)
def test_no_process_stays_when_a_run_is_stopped(
    tmp_path: Path, mark: str, number: signal.Signals, workers: int
) -> None:
    """A hanging tool, and a child of the server that ignores every polite signal."""
    cards = _write(tmp_path, main=_faulty(mark, timeout=600))
    calls = [{"spawn": {}}, {"stay": {}}, {"nap": {}}]
    write_jsonl(tmp_path / "rows.jsonl", [{"calls": json.dumps(call)} for call in calls])
    with ScriptedServer(call_what_is_asked) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        args = _arguments(tmp_path, cards, "--", f"--direct_num_workers={workers}")
        process = start(*args, env=env)
        wait_until(lambda: server.requests == 5, process)  # all but the last answer of `nap`
        assert len(_processes(mark)) >= 2
        if number == signal.SIGKILL:
            parents = {parent_of(pid) for pid in _processes(mark)} - set(_processes(mark))
            assert (process.pid in parents) is (workers == 1)
            for worker in parents - {1}:
                os.kill(worker, signal.SIGKILL)
            wait_until(lambda: not _processes(mark))
            process.kill()
            process.communicate(timeout=60)
        else:
            code, _ = interrupt(process, number)
            assert code == 130
    wait_until(lambda: not _processes(mark))


# ---- faults of servers -------------------------------------------------------------------------


def test_a_server_that_fails_harms_only_the_rows_it_failed(tmp_path: Path, mark: str) -> None:
    cards = _write(tmp_path, main=_faulty(mark, timeout=8))
    calls: list[dict[str, Any]] = [
        {"echo": {"text": "before"}},
        {"die": {}},
        {"echo": {"text": "between"}},
        {"hang": {}},
        {"only_garbage": {"kind": "no result"}},
        {"garbage": {"kind": "text"}},
        {"big": {"size": 5_000_000}},
        {"fail": {}},
        {"nothing_like_it": {}},
        {"echo": {"text": "after"}},
    ]
    write_jsonl(tmp_path / "rows.jsonl", [{"calls": json.dumps(call)} for call in calls])
    with ScriptedServer(call_what_is_asked) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        done = beam_batch(*_arguments(tmp_path, cards, "--parallel", "1"), env=env)
        largest = max(len(json.dumps(body)) for body in server.bodies)
    assert done.returncode == 0, done.stderr
    results = read_jsonl(tmp_path / "out.jsonl")
    said = [row["result"] if row["ok"] else row["error"]["type"] for row in results]
    assert said == [
        "before", "ToolServerDied", "between", "ToolServerFailed", "ToolServerFailed", "sane",
        "x" * 60, "no such luck", "There is no tool 'nothing_like_it'; there are: echo, pid, va",
        "after",
    ]  # fmt: skip
    assert "8 s" in results[3]["error"]["message"]
    assert largest < 60_000  # the 5 MB were cut
    assert read_jsonl(tmp_path / "telemetry.jsonl")[1]["restarts"] == 1


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (
            f"{{command: {sys.executable}, args: [-c, 'import sys; sys.exit(\"no config\")']}}",
            "no config",
        ),
        ("{url: 'http://127.0.0.1:9/mcp'}", "127.0.0.1:9"),
    ],
)
def test_a_server_that_does_not_start_ends_the_run_before_anything_is_sent(
    tmp_path: Path, server: str, said: str
) -> None:
    cards = _write(tmp_path, main=f"servers: {{broken: {server}}}")
    write_jsonl(tmp_path / "rows.jsonl", [{"calls": "{}"}])
    with ScriptedServer(call_what_is_asked) as model:
        env = environment(GENERIC_BASE_URL=model.base_url)
        done = beam_batch(*_arguments(tmp_path, cards), env=env)
        assert model.requests == 0
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "MCP server 'broken'" in done.stderr
    assert said in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_what_servers_say_is_in_the_log_of_the_run_without_secrets(tmp_path: Path) -> None:
    script = f"echo it has $KEY >&2; exec {sys.executable} -I -S {FAULTY}"
    server_of_card = f"{{command: sh, args: [-c, '{script}'], env: {{KEY: '${{BB_CANARY}}'}}}}"
    cards = _write(tmp_path, main=f"servers: {{faulty: {server_of_card}}}")
    write_jsonl(tmp_path / "rows.jsonl", [{"calls": '{"echo": {"text": "hi"}}'}])
    with ScriptedServer(call_what_is_asked) as server:
        env = environment(GENERIC_BASE_URL=server.base_url, BB_CANARY="canary-4711")
        done = beam_batch(*_arguments(tmp_path, cards, "--keep-temp"), env=env)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / ".out.jsonl.batch" / "run.log").read_text()
    assert "[faulty] it has ***\n" in log
    assert "canary" not in log + done.stderr


# ---- resume ------------------------------------------------------------------------------------


def test_a_kill_amid_agent_rows_costs_only_what_was_unfinished(tmp_path: Path) -> None:
    """Finished rows are not asked for again; unfinished ones begin anew, and what was paid for them
    counts.
    """
    cards = _write(tmp_path, main='function_tools: ["tools.py:count_words"]')
    call = json.dumps({"count_words": {"text": "a b"}})
    rows, answered = 40, 41
    write_jsonl(tmp_path / "rows.jsonl", [{"calls": call, "n": n} for n in range(rows)])
    args = _arguments(
        tmp_path, cards, "--parallel", "4", "--no-dedupe", "--price", "input=10,output=10",
        "--summary-output", str(tmp_path / "summary.json"),
    )  # fmt: skip

    def slow_after_20(number: int, body: dict[str, Any]) -> Answer:
        return Answer(fault="hang") if number > answered else call_what_is_asked(number, body)

    with ScriptedServer(slow_after_20) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        process = start(*args, env=env)
        wait_until(lambda: server.requests >= answered + 4, process)
        process.kill()
        process.communicate(timeout=60)
    parts = (tmp_path / ".out.jsonl.batch" / "parts").glob("*.jsonl")
    finished = sum(len(read_jsonl(part)) for part in parts)
    assert 0 < finished < rows
    with ScriptedServer(call_what_is_asked) as server:
        done = beam_batch(*args, "--resume", env=environment(GENERIC_BASE_URL=server.base_url))
        assert server.requests == 2 * (rows - finished)
    assert done.returncode == 0, done.stderr
    assert [row["result"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["2"] * rows
    summary = json.loads((tmp_path / "summary.json").read_text())
    lost = summary["lost_attempts"]
    assert lost["rows"] == answered - 2 * finished > 0  # each had one answered call
    telemetry = read_jsonl(tmp_path / "telemetry.jsonl")
    whole = sum(line["cost_usd"] for line in telemetry) + lost["cost_usd"]
    assert summary["cost_usd"] == pytest.approx(whole, abs=1e-6)
    assert lost["usage"]["total_tokens"] == 5 * lost["rows"]
    assert summary["tool_calls"] == rows


# ---- limits of a row ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "flags", "kind"),
    [
        ("request_params: {max_iterations: 3}", (), "TooManyIterations"),
        ("request_params: {max_repeats: 2}", (), "RepeatedCall"),
        ("", ("--row-deadline", "0.5"), "TimedOut"),
        (
            "",
            ("--row-max-cost", "0.01", "--price", "input=10,output=100", "-m",
             "generic.m?max_tokens=10"),
            "RowCostReached",
        ),
    ],
)  # fmt: skip
def test_a_row_ends_at_its_limits(
    tmp_path: Path, card: str, flags: tuple[str, ...], kind: str
) -> None:
    """The model of row 1 calls a tool for ever; row 2 is answered."""

    def script(number: int, body: dict[str, Any]) -> Answer:
        prompt, _ = _last(body)
        if prompt == "fine":
            return Answer(text="ok")
        if kind == "TimedOut" and number > 3:
            return Answer(fault="hang")
        words = "same" if kind == "RepeatedCall" else f"{number} " * number
        return Answer(text="", calls=(("count_words", {"text": words}),))

    cards = _write(tmp_path, main=f'function_tools: ["tools.py:count_words"]\n{card}')
    write_jsonl(tmp_path / "rows.jsonl", [{"calls": "loop"}, {"calls": "fine"}])
    with ScriptedServer(script) as server:
        env = environment(GENERIC_BASE_URL=server.base_url)
        done = beam_batch(*_arguments(tmp_path, cards, *flags), env=env)
    assert done.returncode == 0, done.stderr
    results = read_jsonl(tmp_path / "out.jsonl")
    assert results[0]["error"]["type"] == kind
    assert results[1]["result"] == "ok"
    first, _ = read_jsonl(tmp_path / "telemetry.jsonl")
    paid = sum(call.get("cost_usd") or 0 for call in first["calls"])
    assert first["cost_usd"] is None or first["cost_usd"] == pytest.approx(paid)
    if kind == "RowCostReached":
        assert 0 < first["cost_usd"] <= 0.01


def test_agents_with_options_of_their_own_share_limits_and_prices(tmp_path: Path) -> None:
    cards = _write(
        tmp_path,
        all="type: parallel\nfan_out: [one, two, three]\ndefault: true",
        **{n: f"request_params: {{max_tokens: {100 + len(n)}}}" for n in ("one", "two", "three")},
    )
    write_jsonl(tmp_path / "rows.jsonl", [{"calls": f"row {n}"} for n in range(8)])
    with ScriptedServer(lambda number, body: Answer(text="ok"), delay=0.05) as server:
        done = beam_batch(
            *_arguments(
                tmp_path, cards, "--agent", "all", "--parallel", "2", "--no-dedupe",
                "--price", "input=1,output=1", "--row-max-cost", "0.1", "-m",
                "generic.m?max_tokens=50",
            ),
            env=environment(GENERIC_BASE_URL=server.base_url),
        )  # fmt: skip
        assert server.requests == 24
        assert server.most_in_flight == 2
    assert done.returncode == 0, done.stderr
    costs = [line["cost_usd"] for line in read_jsonl(tmp_path / "telemetry.jsonl")]
    assert costs == [pytest.approx(3 * 6e-6)] * 8


def test_a_request_without_a_word_counts_in_full_for_its_row(tmp_path: Path) -> None:
    """Six requests are cut; each may have cost some 0.04 USD."""
    cards = _write(tmp_path, main="request_params: {max_tokens: 10}")
    write_jsonl(tmp_path / "rows.jsonl", [{"calls": "x"}])

    def cut(number: int, body: dict[str, Any]) -> Answer:
        return Answer(fault="drop") if number < 6 else Answer(text="ok")

    with ScriptedServer(cut) as server:
        done = beam_batch(
            *_arguments(
                tmp_path, cards, "--price", "input=100,output=1000", "--row-max-cost", "0.16"
            ),
            env=environment(GENERIC_BASE_URL=server.base_url),
        )
        assert server.requests < 6
    assert done.returncode == 1
    (row,) = read_jsonl(tmp_path / "out.jsonl")
    assert row["error"]["type"] == "RowCostReached"


def test_a_trace_holds_what_a_cut_answer_said(tmp_path: Path) -> None:
    cards = _write(tmp_path, main="description: x")
    write_jsonl(tmp_path / "rows.jsonl", [{"calls": "x"}])
    script = lambda number, body: Answer(text="half an ans", finish_reason="length")  # noqa: E731
    with ScriptedServer(script) as server:
        beam_batch(
            *_arguments(tmp_path, cards, "--export-traces", str(tmp_path / "traces")),
            env=environment(GENERIC_BASE_URL=server.base_url),
        )
    (trace,) = (tmp_path / "traces").glob("row-*.jsonl")
    assert "half an ans" in trace.read_text()
    assert "token_count" in trace.read_text()
