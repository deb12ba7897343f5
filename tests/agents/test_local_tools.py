"""Skills, files and commands: what a model may reach, and what not."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from beam_batch.agents.mcp.servers import Servers
from beam_batch.agents.tools.base import MOST_COMMANDS, Room, Tool, ToolReply
from beam_batch.agents.tools.functions import tool_of
from beam_batch.agents.tools.local import MOST_OUTPUT, command_tool, file_tools
from beam_batch.agents.tools.skills import load_skills, read_skill, skills_prompt
from beam_batch.agents.tools.toolbox import tools_of, unique
from beam_batch.errors import OptionsError
from beam_batch.options.agents import AgentSpec, FunctionSpec
from beam_batch.providers.base import ToolSpec
from tests.agents.support import by_name, faulty, is_running, new_run, started

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in pairwise("abcdefgh")
)
"""Seven lines that stand for a hundred million values."""


def _call(tool: Tool, **arguments: Any) -> ToolReply:
    async def call() -> ToolReply:
        run = new_run()
        async with run.open:
            return await tool.call(arguments, run)

    return asyncio.run(call())


def _skill(folder: Path, name: str, description: str = "Does it.", body: str = "Do.") -> Path:
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text(f"---\nname: {name}\ndescription: {description}\n---\n{body}")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    (root / "a.txt").write_text("inside é")
    (root / "below" / "b.txt").write_text("deep")
    (root / "image.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "up").symlink_to(tmp_path)
    (root / "good.txt").symlink_to(root / "a.txt")
    os.mkfifo(root / "pipe")
    return root


def test_files_below_the_roots_are_listed_and_read(root: Path) -> None:
    tools = by_name(file_tools([str(root)], 20.0))
    listed = _call(tools["list_files"]).text.split("\n")
    assert listed == ["a.txt", "below/", "good.txt", "image.bin", "pipe"]
    assert _call(tools["list_files"], pattern="**/*.txt").text == "a.txt\nbelow/b.txt\ngood.txt"
    assert _call(tools["read_file"], path="a.txt").text == "inside é"
    assert _call(tools["read_file"], path=str(root / "below/b.txt"), offset=2).text == "ep"
    assert _call(tools["read_file"], path="good.txt").text == "inside é"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../secret.txt", "outside of the folders"),
        ("link.txt", "outside of the folders"),
        ("up/secret.txt", "outside of the folders"),
        ("/etc/passwd", "outside of the folders"),
        ("/no/such/file", "outside of the folders"),
        ("below/../../secret.txt", "outside of the folders"),
        ("none.txt", "There is no 'none.txt'"),
        ("a\0b", "There is no"),
        ("\ud800", "There is no"),
        ("x" * 5000, "There is no"),
        ("image.bin", "is no text"),
        ("below", "is no file"),
        ("pipe", "is no file"),
        (7, "must be text"),
    ],
)
def test_what_may_not_be_read_is_refused(root: Path, path: Any, said: str) -> None:
    reply = _call(by_name(file_tools([str(root)], 20.0))["read_file"], path=path)
    assert reply.is_error
    assert said in reply.text


@pytest.mark.parametrize("offset", [9, 2**31, 2**63 - 1, 2**63, 10**30])
def test_an_offset_behind_the_end_is_explained(root: Path, offset: int) -> None:
    reply = _call(by_name(file_tools([str(root)], 20.0))["read_file"], path="a.txt", offset=offset)
    said = f"'a.txt' has 9 bytes; offset {offset} is behind its end."
    assert reply == (ToolReply(said, is_error=True) if offset > 9 else ToolReply(""))


def _fail(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("what", "tool", "arguments"),
    [
        ("os.pread", "read_file", {"path": "a.txt"}),
        ("os.fstat", "read_file", {"path": "a.txt"}),
        ("Path.is_dir", "list_files", {}),
    ],
)
def test_a_disk_that_fails_is_told_to_the_model(
    root: Path, monkeypatch: pytest.MonkeyPatch, what: str, tool: str, arguments: dict[str, str]
) -> None:
    tools = by_name(file_tools([str(root)], 20.0))
    with monkeypatch.context() as patch:
        patch.setattr(f"beam_batch.agents.tools.folders.{what}", _fail)
        reply = _call(tools[tool], **arguments)
    assert reply.is_error
    assert "Input/output error" in reply.text


def test_a_machine_without_threads_is_told_to_the_model(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("def one(): return 1")
    tools = file_tools([str(root)], 20.0)
    skills = load_skills([str(_skill(tmp_path / "s", "alpha"))])
    tools.append(read_skill(skills, 20.0))
    tools.append(tool_of(FunctionSpec(file=str(tmp_path / "mine.py"), function="one"), 20.0))

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def call() -> list[ToolReply]:
        arguments = ({}, {"path": "a.txt"}, {"name": "alpha"}, {})
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            return [
                await tool.call(given, new_run())
                for tool, given in zip(tools, arguments, strict=True)
            ]

    said = "There is no thread for it: can't start new thread."
    assert set(asyncio.run(call())) == {ToolReply(said, is_error=True)}


def test_a_listing_stays_in_the_roots(root: Path) -> None:
    listing = by_name(file_tools([str(root)], 20.0))["list_files"]
    assert "secret" not in _call(listing, pattern="up/*").text
    assert _call(listing, pattern="../*").is_error
    assert _call(listing, pattern="/*").is_error
    assert _call(listing, path="up").is_error


@pytest.mark.parametrize("tool", ["list_files", "read_file", "read_skill"])
def test_what_a_disk_does_not_give_in_time_is_not_waited_for(
    tool: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    for place in ("local.read_text", "local.list_folder", "skills.read_text"):
        monkeypatch.setattr(f"beam_batch.agents.tools.{place}", lambda *_: never.wait())
    skills = load_skills([str(_skill(tmp_path / "s", "alpha"))])
    tools = by_name([*file_tools([str(root)], 0.05), read_skill(skills, 0.05)])
    reply = _call(tools[tool], name="alpha", path=".")
    never.set()
    assert reply.is_error


def test_a_long_file_is_read_in_pieces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_batch.agents.tools.folders.MOST_BYTES", 8)
    reading = by_name(file_tools([str(root)], 20.0))["read_file"]
    assert _call(reading, path="a.txt").text == "inside \n[9 bytes; go on with offset 8]"
    monkeypatch.setattr("beam_batch.agents.tools.folders.MOST_BYTES", 7)
    assert _call(reading, path="a.txt", offset=7).text == "é"


def test_skills_are_named_in_the_prompt_and_read_on_demand(tmp_path: Path) -> None:
    _skill(tmp_path / "skills" / "b", "beta", "Counts <things>.")
    _skill(tmp_path / "skills" / "a", "alpha", body="Use notes.txt.")
    (tmp_path / "skills" / "a" / "notes.txt").write_text("the notes")
    (tmp_path / "skills" / "a" / "out").symlink_to(tmp_path)
    skills = load_skills([str(tmp_path / "skills")])
    prompt = skills_prompt(skills)
    assert prompt.index("<name>alpha</name>") < prompt.index("<name>beta</name>")
    assert "<description>Counts &lt;things&gt;.</description>" in prompt
    assert "Use notes.txt" not in prompt
    tool = read_skill(skills, 20.0)
    assert tool.spec.parameters["properties"]["name"]["enum"] == ["alpha", "beta"]
    assert _call(tool, name="alpha").text.endswith("Use notes.txt.")
    assert _call(tool, name="alpha", path="notes.txt").text == "the notes"
    for path in ("../b/SKILL.md", "out/skills/b/SKILL.md", "/etc/passwd"):
        assert "outside" in _call(tool, name="alpha", path=path).text
    assert _call(tool, name="gamma").text == "There is no skill 'gamma'; there are alpha, beta."
    assert skills_prompt([]) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no head", "must begin with a head"),
        ("---\nname: a", "must begin with a head"),
        ("---\nname: a\n---\n", "its head needs a description"),
        ("---\n- a\n---\n", "its head needs a name"),
        ("---\nname: [\n---\n", "SKILL.md:2: expected the node content"),
        ("---\nname: a\nname: b\n---\n", "SKILL.md:3: name is there twice"),
        (f"---\n{BOMB}\n---\n", "it holds more than 20,000 values"),
        (f"---\nname: {'[' * 500}\n---\n", "SKILL.md:2:"),
    ],
)
def test_a_skill_with_a_bad_head_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "SKILL.md").write_text(text)
    with pytest.raises(OptionsError, match=said):
        load_skills([str(tmp_path)])


def test_skills_must_be_there_and_have_names_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"there is no SKILL.md in"):
        load_skills([str(tmp_path)])
    one, two = _skill(tmp_path / "1", "same"), _skill(tmp_path / "2", "same")
    assert len(load_skills([str(one), str(one)])) == 1
    with pytest.raises(OptionsError, match="share the name 'same'"):
        load_skills([str(one), str(two)])


def test_a_command_runs_in_the_first_root_with_a_clean_environment(root: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": "/", "OPENAI_API_KEY": "secret"}
    tool = command_tool([str(root)], env, 20.0)
    assert _call(tool, command="pwd; cat a.txt").text == f"{root}\ninside é"
    assert "secret" not in _call(tool, command="env").text
    assert _call(tool, command="cat").text == ""
    failed = _call(tool, command="echo out; echo err >&2; exit 3")
    assert failed == ToolReply("out\nerr\n\n[exit code 3]", is_error=True)
    assert _call(tool, command="").is_error


def test_a_command_of_a_row_without_roots_has_a_folder_that_goes_with_the_row() -> None:
    async def use() -> None:
        run, tool = new_run(), command_tool([], os.environ, 20.0)
        place = (await tool.call({"command": "pwd; echo kept > file"}, run)).text.strip()
        assert (run.folder, run.sessions) == (place, {})
        assert (await tool.call({"command": "cat file"}, run)).text == "kept\n"
        other = new_run()
        assert (await tool.call({"command": "pwd"}, other)).text.strip() != place
        await other.open.aclose()
        await run.open.aclose()
        assert not Path(place).exists()

    asyncio.run(use())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_command_that_takes_too_long_is_killed_with_its_children() -> None:
    tool = command_tool([], os.environ, 0.3)
    script = "trap '' TERM; sleep 1000 & echo $!; setsid sleep 1000 & echo $!; wait"
    reply = _call(tool, command=script)
    assert reply.is_error
    *pids, last = reply.text.split("\n", 2)
    assert last.endswith("[killed after 0.3 s]")
    assert not any(is_running(int(pid)) for pid in pids)


def test_few_commands_run_at_a_time_and_all_have_their_time(tmp_path: Path) -> None:
    tool = command_tool([str(tmp_path)], os.environ, 20.0)
    run = replace(new_run(), room=Room(commands=asyncio.Semaphore(2)))
    command = "mkdir $$; ls | wc -l; sleep 0.2; rmdir $$"

    async def call() -> list[ToolReply]:
        return await asyncio.gather(*(tool.call({"command": command}, run) for _ in range(6)))

    assert max(int(reply.text) for reply in asyncio.run(call())) <= 2
    assert MOST_COMMANDS == 8


def test_the_output_of_a_command_is_cut() -> None:
    reply = _call(
        command_tool([], os.environ, 20.0), command="head -c 3000000 /dev/zero | tr '\\0' x"
    )
    assert reply.text == "x" * MOST_OUTPUT + f"\n[{3_000_000 - MOST_OUTPUT} more bytes]"


async def _tools(agent: AgentSpec, shell: bool) -> list[Tool]:
    async with started(*agent.servers) as servers:
        return tools_of(agent, shell=shell, servers=servers, env=os.environ)


def _named(tools: list[Tool]) -> list[str]:
    return [tool.spec.name for tool in tools]


def test_an_agent_has_what_its_card_grants_in_the_same_order(tmp_path: Path, root: Path) -> None:
    (tmp_path / "mine.py").write_text("def echo(): return 'mine'\ndef other(): return 1")
    agent = AgentSpec(
        name="a",
        functions=(
            FunctionSpec(file=str(tmp_path / "mine.py"), function="echo"),
            FunctionSpec(file=str(tmp_path / "mine.py"), function="other"),
        ),
        servers=(faulty(allowed=("pid", "echo")), faulty(name="two", allowed=("echo",))),
        skills=(str(_skill(tmp_path / "s", "alpha")),),
        roots=(str(root),),
        shell=True,
    )
    names = [
        "mine__echo", "other", "faulty__echo", "pid", "two__echo",
        "read_skill", "list_files", "read_file",
    ]  # fmt: skip
    assert _named(asyncio.run(_tools(agent, shell=False))) == names
    assert _named(asyncio.run(_tools(agent, shell=True))) == [*names, "run_command"]
    bare = AgentSpec(name="b")
    servers = Servers([], {})
    assert tools_of(bare, shell=True, servers=servers, env={}) == []


class Named:
    def __init__(self, name: str, origin: str = "") -> None:
        self.spec = ToolSpec(name, "", {})
        self.origin = origin

    call: Callable[..., Awaitable[ToolReply]]


def test_names_are_unique_and_fit() -> None:
    long, longer = "x" * 60, "y" * 50
    tools: list[Tool] = [
        Named("read_file"), Named("read_file", "fs"), Named("fs__read_file"),
        Named("agent"), Named("agent"), Named(long, longer + "1"), Named(long, longer + "2"),
        Named("a", "odd name"), Named("a", "odd.name"),
    ]  # fmt: skip
    names = _named(unique(tools))
    assert names[:5] == ["read_file", "fs__read_file_2", "fs__read_file", "agent", "agent_2"]
    assert names[7:] == ["odd_name__a", "odd_name__a_2"]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 64 for name in names)
