"""MCP servers: what they offer, and what becomes of rows when they fail."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from beam_batch.agents.mcp.servers import Servers
from beam_batch.agents.mcp.target import resolve
from beam_batch.agents.tools.base import ToolReply
from beam_batch.errors import FatalReply, ToolServerDied, ToolServerFailed
from beam_batch.options.agents import ServerSpec
from tests.agents.support import (
    FAULTY,
    NO_NODE,
    NODE,
    REMOTE,
    Caller,
    children_of,
    faulty,
    is_running,
    new_run,
    parent_of,
    started,
    until,
)
from tests.conftest import free_port, running


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@in_loop
async def test_tools_are_listed_called_and_their_errors_are_for_the_model() -> None:
    spec = faulty(allowed=("e*", "fail", "odd*"))
    async with started(spec, replace(spec, allowed=("pid",))) as servers:
        caller = Caller(servers, spec)
        assert list(caller.tools) == ["echo", "fail", "endless", "odd_name_with_spaces"]
        parameters = caller.tools["echo"].spec.parameters
        assert parameters == {"type": "object", "additionalProperties": True, "properties": {}}
        assert await caller.text("echo", text="é") == "é"
        assert await caller.text("odd_name_with_spaces") == "odd"
        failed = await caller.reply("fail")
        assert failed.is_error
        assert "no such luck" in failed.text
        wrong = await caller.reply("echo", txet="hi")
        assert wrong.is_error
        assert "txet" in wrong.text


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("varibles", "did you mean variables or variable"),
        ("get_*", "it has echo, pid, variables, variable, die, ..."),
    ],
)
@in_loop
async def test_a_pattern_of_tools_that_fits_none_ends_the_run(pattern: str, said: str) -> None:
    async with started(faulty()) as servers:
        with pytest.raises(FatalReply) as caught:
            servers.tools_of(faulty(allowed=("echo", pattern)))
    assert str(caught.value).startswith(
        f"card: tools names {pattern!r} of MCP server 'faulty', which has no such tool; {said}"
    )


@in_loop
async def test_two_cards_that_name_a_server_share_its_process() -> None:
    spec, other = faulty(), faulty(allowed=("pid",))
    async with started(spec, other) as servers:
        pids = [await Caller(servers, each).text("pid") for each in (spec, other)]
        assert pids[0] == pids[1]


@in_loop
async def test_a_server_sees_of_the_environment_what_its_card_names() -> None:
    spec = faulty(env={"TOKEN": "${BB_TOKEN}", "PLACE": "${BB_PLACE:here}", "PLAIN": "x"})
    env = {**os.environ, "BB_TOKEN": "of-the-worker", "BB_OTHER": "hidden"}
    async with started(spec, env=env) as servers:
        caller = Caller(servers, spec)
        assert await caller.text("variable", name="TOKEN") == "of-the-worker"
        assert await caller.text("variable", name="PLACE") == "here"
        names = set((await caller.text("variables")).split())
        allowed = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LC_CTYPE"}
        assert names <= allowed | {"TOKEN", "PLACE", "PLAIN"}


@in_loop
async def test_a_variable_that_is_not_set_ends_the_run_before_it_begins() -> None:
    with pytest.raises(FatalReply, match="BB_MISSING, which is not set"):
        await Servers([faulty(env={"A": "${BB_MISSING}"})], {}).start()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ServerSpec(name="s", command="bb-no-such"), "cannot run bb-no-such: No such file"),
        (
            ServerSpec(name="s", command="sh", args=("-c", "echo it is $B >&2; exit 4")),
            "exit code 4",
        ),
        (ServerSpec(name="s", command="sh", cwd="/no/such/folder"), "there is no /no/such/folder"),
        (
            ServerSpec(name="s", command="sleep", args=("9",), start_timeout=0.3),
            "did not answer within 0.3 s",
        ),
        (ServerSpec(name="s", transport="http", url="http://127.0.0.1:9/mcp"), "ConnectError"),
        (ServerSpec(name="s", transport="sse", url="http://127.0.0.1:9/sse"), "ConnectError"),
    ],
    ids=["no such command", "ends", "no such folder", "silent", "no http", "no sse"],
)
@in_loop
async def test_a_server_that_does_not_start_ends_the_run_and_says_why(
    spec: ServerSpec, said: str
) -> None:
    good = faulty()
    servers = Servers([good, spec], os.environ)
    with pytest.raises(FatalReply) as caught:
        await servers.start()
    assert said in str(caught.value)
    assert "MCP server 's'" in str(caught.value)


@in_loop
async def test_secrets_are_in_no_message_and_no_log() -> None:
    script = 'echo "bad token $TOKEN" >&2; exit 1'
    spec = ServerSpec(name="s", command="sh", args=("-c", script), env={"TOKEN": "${BB_TOKEN}"})
    log = io.StringIO()
    with pytest.raises(FatalReply, match=r"bad token \*\*\*") as caught:
        await Servers([spec], {**os.environ, "BB_TOKEN": "hunter2hunter2"}, log).start()
    assert "[s] bad token ***" in log.getvalue()
    assert "hunter2" not in str(caught.value) + log.getvalue()


@in_loop
async def test_a_secret_in_two_pieces_or_of_two_lines_is_in_no_log() -> None:
    script = (
        'printf hunter2 >&2; sleep 0.2; echo hunter2 >&2; echo "$KEY" >&2; '
        'printf "%0198dhunter2hunter2\\n" 0; printf "no end"  >&2; exit 1'
    )
    own = {"A": "${BB_TOKEN}", "KEY": "${BB_KEY}"}
    spec = ServerSpec(name="s", command="sh", args=("-c", script), env=own)
    env = {**os.environ, "BB_TOKEN": "hunter2hunter2", "BB_KEY": "first line\nsecond line"}
    log = io.StringIO()
    with pytest.raises(FatalReply, match=r"It said: \*\*\*\n\*\*\*\n\*\*\*\nno end"):
        await Servers([spec], env, log).start()
    lines = log.getvalue().splitlines()
    assert sorted(lines) == [*["[s] ***"] * 3, "[s] " + "0" * 198 + "**", "[s] no end"]


@in_loop
async def test_only_what_came_from_the_environment_is_a_secret() -> None:
    env = {**os.environ, "BB_TOKEN": "hunter2hunter2", "BB_UNUSED": "never used"}
    headers = {"Accept": "application/json", "Authorization": "Bearer ${BB_TOKEN}"}
    spec = faulty(headers=headers, env={"PLACE": "${BB_PLACE:somewhere}"})
    async with started(spec, env=env) as servers:
        assert servers.secrets == ("hunter2hunter2",)
    clean = resolve(spec, env).redact
    assert clean('as application/json, "hunter2hunter2"') == 'as application/json, "***"'
    assert clean("authorization: Basic dXNlcjpwYXNz") == "authorization: Basic ***"


async def _die(caller: Caller) -> None:
    await caller.text("die")


async def _be_killed(caller: Caller) -> None:
    pid = int(await caller.text("pid"))
    napping = asyncio.create_task(caller.text("nap"))
    await caller.text("echo", text="the nap has begun")
    os.kill(pid, signal.SIGKILL)
    await napping


async def _break(caller: Caller) -> None:
    await caller.text("garbage", kind="broken")


async def _write_bytes(caller: Caller) -> None:
    await caller.text("garbage", kind="binary")


async def _flood(caller: Caller) -> None:
    await caller.text("only_garbage", kind="flood")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_die, r"ended \(exit code 3\) during a call of 'die'"),
        (_be_killed, r"was killed \(SIGKILL\) during a call of 'nap'"),
        (_break, "wrote what is no JSON-RPC message"),
        (_write_bytes, "wrote bytes that are not UTF-8"),
        (_flood, "wrote 1000 lines that are no messages"),
    ],
)
@in_loop
async def test_a_server_that_dies_fails_the_rows_it_worked_for_and_is_started_again(
    fault: Callable[[Caller], Coroutine[Any, Any, None]], said: str
) -> None:
    spec, bystander = faulty(), faulty(name="other")
    async with started(spec, bystander) as servers:
        caller, other = Caller(servers, spec), Caller(servers, bystander)
        beside = asyncio.create_task(other.text("big", size=100))
        pid = int(await caller.text("pid"))
        with pytest.raises(ToolServerDied, match=said):
            await fault(caller)
        assert await beside == "x" * 100
        replies = await asyncio.gather(*(caller.text("pid") for _ in range(5)))
        assert len(set(replies)) == 1
        assert int(replies[0]) != pid
        await until(lambda: not is_running(pid))


@in_loop
async def test_a_row_that_ends_its_server_twice_takes_no_other_row_with_it() -> None:
    spec = faulty()

    async def row(servers: Servers, tool: str) -> str:
        run = new_run()
        async with run.open:
            try:
                return await Caller(servers, spec, run).text(tool)
            except ToolServerDied:
                again = replace(new_run(), alone=True)
        async with again.open:
            return await Caller(servers, spec, again).text(tool if tool == "die" else "pid")

    async with started(spec) as servers:
        outcomes = await asyncio.gather(
            *(row(servers, "nap") for _ in range(4)), row(servers, "die"), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [str] * 4 + [ToolServerDied]


@in_loop
async def test_a_line_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_batch.agents.mcp.stdio.LARGEST", 2**23)
    async with started(faulty()) as servers:
        caller = Caller(servers, faulty())
        with pytest.raises(ToolServerDied, match="a line of more than 8 MiB"):
            await caller.text("endless")
        assert await caller.text("echo", text="again") == "again"


@pytest.mark.parametrize("kind", ["text", "log"])
@in_loop
async def test_what_a_server_prints_beside_its_messages_harms_nobody(kind: str) -> None:
    log = io.StringIO()
    async with started(faulty(), log=log) as servers:
        caller = Caller(servers, faulty())
        assert await caller.text("garbage", kind=kind) == "sane"
    assert "[faulty] faulty is here" in log.getvalue()


@in_loop
async def test_garbage_in_the_place_of_an_answer_is_named_when_its_time_is_up() -> None:
    spec = faulty(timeout=0.5)
    async with started(spec) as servers:
        with pytest.raises(ToolServerFailed, match=r"it wrote 1 lines that are no messages"):
            await Caller(servers, spec).text("only_garbage", kind="text")


@in_loop
async def test_an_answer_that_is_no_result_of_a_tool_fails_its_row_alone() -> None:
    async with started(faulty()) as servers:
        caller = Caller(servers, faulty())
        pid = await caller.text("pid")
        with pytest.raises(ToolServerFailed, match="with what is no result of a tool"):
            await caller.text("only_garbage", kind="no result")
        assert await caller.text("pid") == pid


@in_loop
async def test_a_call_that_hangs_fails_its_row_and_no_other() -> None:
    spec = faulty(timeout=0.5)
    async with started(spec) as servers:
        caller = Caller(servers, spec)
        pid = await caller.text("pid")
        with pytest.raises(ToolServerFailed, match=r"did not answer a call of 'nap' within 0.5 s"):
            await caller.text("nap")
        assert await caller.text("pid") == pid


@in_loop
async def test_a_server_that_hangs_is_started_again_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("beam_batch.agents.mcp.servers.PROBE_TIMEOUT", 0.2)
    spec = faulty(timeout=0.5)
    async with started(spec) as servers:
        caller = Caller(servers, spec)
        pid = int(await caller.text("pid"))
        outcomes = await asyncio.gather(
            caller.text("hang"), caller.text("echo", text="behind it"), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [ToolServerDied, ToolServerDied]
        await until(lambda: not is_running(pid))
        assert int(await caller.text("pid")) != pid


@in_loop
async def test_five_megabytes_arrive_while_others_are_served() -> None:
    async with started(faulty()) as servers:
        caller = Caller(servers, faulty())
        size = 5 * 2**20
        big, *small = await asyncio.gather(
            caller.text("big", size=size), *(caller.text("echo", text=str(n)) for n in range(20))
        )
        assert len(big) == size
        assert small == [str(n) for n in range(20)]


@in_loop
async def test_a_server_that_cannot_be_started_again_fails_rows_by_name(tmp_path: Path) -> None:
    script = tmp_path / "once.py"
    script.write_text(FAULTY.read_text())
    spec = ServerSpec(name="once", command=sys.executable, args=("-I", "-S", str(script)))
    async with started(spec) as servers:
        caller = Caller(servers, spec)
        script.unlink()
        with pytest.raises(ToolServerDied):
            await caller.text("die")
        outcomes = await asyncio.gather(
            *(caller.text("pid") for _ in range(10)), return_exceptions=True
        )
        assert {str(outcome) for outcome in outcomes} == {
            "MCP server 'once' cannot be started again: ended (exit code 2)."
        }
        script.write_text(FAULTY.read_text())
        assert int(await caller.text("pid"))


@in_loop
async def test_a_session_of_a_row_is_its_own_and_ends_with_it() -> None:
    spec = faulty(session="row")
    async with started(spec) as servers:
        first, second = Caller(servers, spec), Caller(servers, spec)
        pids = await asyncio.gather(first.text("pid"), first.text("pid"), second.text("pid"))
        assert pids[0] == pids[1] != pids[2]
        await first.run.open.aclose()
        await until(lambda: not is_running(int(pids[0])))
        assert await second.text("echo", text="still there") == "still there"
        with pytest.raises(ToolServerDied):
            await second.text("die")
        assert await second.text("pid") != pids[2]
        await second.run.open.aclose()


async def _start_and_be_cancelled(servers: Servers, spec: ServerSpec, seconds: float) -> None:
    run = new_run()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), run.open:
            await Caller(servers, spec, run).text("nap")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@in_loop
async def test_rows_that_end_while_their_sessions_wait_to_start_leave_no_server() -> None:
    spec = faulty(session="row")
    async with started(spec) as servers:
        before = children_of(os.getpid())
        await asyncio.gather(*(_start_and_be_cancelled(servers, spec, 0.02 * n) for n in range(12)))
        await asyncio.sleep(0.5)  # what still starts would be up by now
        assert children_of(os.getpid()) == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@in_loop
async def test_sessions_that_rows_have_left_open_are_closed_with_their_server() -> None:
    spec, before = faulty(session="row"), children_of(os.getpid())
    async with started(spec) as servers:
        callers = [Caller(servers, spec) for _ in range(6)]
        waiting = [asyncio.create_task(caller.text("pid")) for caller in callers]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert children_of(os.getpid()) == before
    with pytest.raises(ToolServerFailed, match="cannot be started for this row: it was closed"):
        await Caller(servers, spec).text("pid")


@in_loop
async def test_nothing_of_a_server_is_left_when_it_is_closed() -> None:
    async with started(faulty()) as servers:
        caller = Caller(servers, faulty())
        pids = [int(await caller.text("spawn")), int(await caller.text("spawn", away=True))]
        pids += [int(await caller.text("stay")), int(await caller.text("pid"))]
        pids.append(parent_of(pids[-1]))
        napping = asyncio.create_task(caller.text("nap"))
        await caller.text("echo", text="the nap has begun")
        assert all(map(is_running, pids))
        start = time.monotonic()
    assert time.monotonic() - start < 6
    assert not any(map(is_running, pids))
    with pytest.raises(ToolServerDied):
        await napping


@in_loop
async def test_a_row_that_is_cancelled_leaves_the_server_to_the_others() -> None:
    async with started(faulty()) as servers:
        caller = Caller(servers, faulty())
        napping = asyncio.create_task(caller.text("nap"))
        await caller.text("echo", text="the nap has begun")
        napping.cancel()
        with suppress(asyncio.CancelledError):
            await napping
        assert await caller.text("echo", text="awake") == "awake"


def _listens(port: int) -> Callable[[], bool]:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return listens


def test_a_server_at_a_url_is_called_and_reached_again_when_it_has_died() -> None:
    port = free_port()
    command = [sys.executable, str(REMOTE), str(port)]
    specs = [
        ServerSpec(
            name=transport,
            transport=transport,
            url=f"http://127.0.0.1:{port}/{path}",
            headers={"Authorization": "Bearer ${BB_TOKEN:none}"},
        )
        for transport, path in (("http", "mcp"), ("sse", "sse"))
    ]

    async def use() -> None:
        servers = Servers(specs, os.environ)
        with running(command, _listens(port)):
            await servers.start()
            http, sse = (Caller(servers, spec) for spec in specs)
            for caller in (http, sse):
                assert await caller.text("echo", text="far") == "far"
                failed = await caller.reply("fail")
                assert failed == ToolReply("Error executing tool fail: no such luck", is_error=True)
            assert len(await http.text("big", size=5 * 2**20)) == 5 * 2**20
            with pytest.raises(ToolServerDied, match="SSEError"):  # more than the client takes
                await sse.text("big", size=5 * 2**20)
            assert await sse.text("echo", text="again") == "again"
            napping = [asyncio.create_task(caller.text("nap")) for caller in (http, sse)]
            await asyncio.gather(*(caller.text("echo", text="") for caller in (http, sse)))
            with pytest.raises(ToolServerDied):
                await sse.text("die")
            outcomes = await asyncio.gather(*napping, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [ToolServerDied] * 2
            lost = await asyncio.gather(
                *(caller.text("echo", text="") for caller in (http, sse)), return_exceptions=True
            )
            assert all("cannot be started again" in str(outcome) for outcome in lost)
        with running(command, _listens(port)):
            assert await http.text("echo", text="back") == "back"
            assert await sse.text("echo", text="back") == "back"
            await servers.close()

    asyncio.run(use())


@pytest.mark.skipif(not NODE, reason=NO_NODE)
@in_loop
async def test_server_everything_over_stdio() -> None:
    command = str(Path(NODE) / "mcp-server-everything")
    spec = ServerSpec(name="everything", command=command, args=("stdio",))
    async with started(spec) as servers:
        caller = Caller(servers, spec)
        assert await caller.text("echo", message="hello") == "Echo: hello"
        assert "[image/png, 4033 bytes]" in await caller.text("get-tiny-image")
        weather = await caller.text("get-structured-content", location="Chicago")
        assert '"temperature"' in weather
        assert "demo://resource" in await caller.text("get-resource-links", count=1)
        reference = await caller.text("get-resource-reference", resourceType="Text", resourceId=1)
        assert "Resource 1" in reference
        wrong = await caller.reply("echo", messge="hello")
        assert wrong.is_error
        assert "message" in wrong.text


@pytest.mark.skipif(not NODE, reason=NO_NODE)
def test_server_everything_over_http_is_reached_again_when_it_was_restarted() -> None:
    port = free_port()
    command = [str(Path(NODE) / "mcp-server-everything"), "streamableHttp"]
    spec = ServerSpec(name="everything", transport="http", url=f"http://127.0.0.1:{port}/mcp")
    env = {**os.environ, "PORT": str(port)}

    async def use() -> None:
        servers = Servers([spec], os.environ)
        with running(command, _listens(port), env):
            await servers.start()
            caller = Caller(servers, spec)
            assert await caller.text("echo", message="hello") == "Echo: hello"
        with running(command, _listens(port), env):
            with suppress(ToolServerDied):
                await caller.text("echo", message="lost")
            assert await caller.text("echo", message="found") == "Echo: found"
            await servers.close()

    asyncio.run(use())


@pytest.mark.skipif(not NODE, reason=NO_NODE)
@in_loop
async def test_server_filesystem_stays_in_its_root(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("inside")
    command = str(Path(NODE) / "mcp-server-filesystem")
    spec = ServerSpec(name="files", command=command, args=("${BB_ROOT}",))
    async with started(spec, env={**os.environ, "BB_ROOT": str(tmp_path)}) as servers:
        caller = Caller(servers, spec)
        assert await caller.text("read_text_file", path=str(tmp_path / "a.txt")) == "inside"
        outside = await caller.reply("read_text_file", path="/etc/passwd")
        assert outside.is_error
        assert "outside allowed" in outside.text


@in_loop
async def test_mcp_server_time() -> None:
    pytest.importorskip("mcp_server_time")
    spec = ServerSpec(
        name="time",
        command=sys.executable,
        args=("-m", "mcp_server_time", "--local-timezone", "UTC"),
        env={"PYTHONPATH": "${PYTHONPATH:}"},
    )
    async with started(spec) as servers:
        caller = Caller(servers, spec, new_run())
        assert "UTC" in await caller.text("get_current_time", timezone="UTC")
        assert (await caller.reply("get_current_time", timezone="Mars/Olympus")).is_error
