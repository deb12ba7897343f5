"""What agents need of a machine is looked for before anything is sent."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest

from beam_batch.agents.cards.models import resolve
from beam_batch.checks import check
from beam_batch.errors import OptionsError
from beam_batch.options import AgentSpec, CrewSpec, OutputSpec, RunnerSpec, RunSpec, SourceSpec
from tests.agents.cards import load, write
from tests.fakes import ScriptedServer
from tests.support import beam_batch, environment, write_jsonl

MISSING = {
    "function_tools: bad.py:f": "card: function {here}/bad.py:f cannot be imported (RuntimeError: "
    "no key).",
    "function_tools: good.py:many": "card: function many: *names cannot be given by name; a model "
    "gives all arguments by name, so *, ** and / are not possible.",
    "function_tools: json:lods": "card: function json:lods does not exist.",
    "servers: {s: {command: sh, env: {A: '${BB_MISSING}'}}}": "MCP server 's' needs the "
    "environment variable BB_MISSING, which is not set.",
    "servers: {s: {url: 'https://${BB_MISSING}/mcp'}}": "MCP server 's' needs the environment "
    "variable BB_MISSING, which is not set.",
    "servers: {s: {command: bb-no-such}}": "MCP server 's': there is no command bb-no-such; "
    "install it, or give its path.",
    "servers: {s: {command: ./good.py}}": "MCP server 's': there is no command ./good.py; install "
    "it, or give its path.",
    "servers: {s: {command: sh, env: {PATH: /none}}}": "MCP server 's': there is no command sh; "
    "install it, or give its path.",
    "servers: {s: {command: sh, cwd: none}}": "MCP server 's': there is no folder {here}/none.",
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write(tmp_path, "bad.py", "raise RuntimeError('no key')\ndef f(): ...")
    write(tmp_path, "good.py", "def f(): ...\ndef many(*names): ...")
    write(tmp_path, "place/serve", "#!/bin/sh").chmod(0o755)
    write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}])
    return tmp_path


def _spec(crew: CrewSpec, folder: Path, runner: str = "direct") -> RunSpec:
    model, crew = resolve(crew, "echo", None, {})
    return RunSpec(
        source=SourceSpec(input=str(folder / "rows.jsonl")),
        output=OutputSpec(output=str(folder / "out.jsonl")),
        model=model,
        crew=crew,
        runner=RunnerSpec(name=runner),
    )


@pytest.mark.parametrize("fields", MISSING)
def test_what_is_missing_here_is_named_before_the_run(fields: str, here: Path) -> None:
    crew = load(write(here, "a.yaml", fields))
    with pytest.raises(OptionsError) as caught:
        check(_spec(crew, here), {"PATH": os.environ["PATH"]})
    assert str(caught.value) == MISSING[fields].replace("{here}", str(here))
    check(_spec(crew, here, "portable"), {})  # whose workers may be elsewhere


def test_what_is_there_is_let_through(here: Path) -> None:
    fields = (
        "function_tools: [good.py:f, textwrap:dedent]\n"
        f"servers: {{a: {{command: {sys.executable}}}, b: {{command: sh}}, "
        "c: {command: ./serve, cwd: place}, d: {url: 'http://127.0.0.1:9/mcp'},"
        "e: {command: '${BB_SHELL:sh}'}}"
    )
    check(_spec(load(write(here, "a.yaml", fields)), here), {"PATH": os.environ["PATH"]})


def test_a_run_ends_with_2_and_has_sent_nothing(here: Path) -> None:
    write(here, "a.yaml", "function_tools: bad.py:f")
    with ScriptedServer() as server:
        args = ("-i", "rows.jsonl", "-o", "out.jsonl", "--agent-card", "a.yaml", "-m", "generic.m")
        done = beam_batch("run", *args, cwd=here, env=environment(GENERIC_BASE_URL=server.base_url))
        assert server.requests == 0
    assert (done.returncode, done.stderr) == (
        2, f"Error: card: function {here}/bad.py:f cannot be imported (RuntimeError: no key).\n"
    )  # fmt: skip
    assert not list(here.glob("*out.jsonl*"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("function_tools: good.py:f", "agent a: its function_tools need pydantic: "),
        ("servers: {s: {command: sh}}", "agent a: its servers need mcp: "),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    fields: str, message: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = load(write(here, "a.yaml", fields))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionsError) as caught:
        check(_spec(crew, here), {})
    assert str(caught.value) == f"{message}pip install 'beam-batch[agents]'."


@pytest.mark.parametrize(("card", "flag"), [(True, False), (False, True)])
def test_commands_want_both_card_and_run(card: bool, flag: bool, tmp_path: Path) -> None:
    crew = CrewSpec(agents={"a": AgentSpec(name="a", shell=card)}, selected="a", shell=flag)
    with pytest.raises(OptionsError, match="--shell"):
        check(_spec(crew, tmp_path, "prism"), {})
    agreed = dataclasses.replace(crew, agents={"a": AgentSpec(name="a", shell=flag)})
    check(_spec(agreed, tmp_path), {})
