"""Cards on the command line: card check, and the flags of a run."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from beam_batch import run
from beam_batch.checks import describe
from beam_batch.cli.flags import PANELS
from beam_batch.cli.settings import run_spec
from beam_batch.errors import OptionsError
from beam_batch.launch import run as launch
from beam_batch.options import ModelSpec
from tests.agents.cards import load, write
from tests.support import ROOT, beam_batch, environment, write_jsonl

TEMPLATES = ROOT / "templates" / "agents"


def test_check_says_in_plain_words_what_cards_hold(tmp_path: Path) -> None:
    write(tmp_path, "tools.py", "def look(): ...")
    write(tmp_path, "one/SKILL.md", "---\nname: one\ndescription: x\n---\n")
    write(tmp_path, "flow.yaml", "type: chain\nsequence: [helper]")
    write(
        tmp_path,
        "helper.md",
        "---\nmodel: responses.gpt-5.4-mini?reasoning=low\ntool_only: true\n"
        "request_params: {max_tokens: 9, max_iterations: 3}\nvariables: {tone: kind, policy: }\n"
        "servers: {t: {command: serve, args: [-x]}, u: {url: 'http://h'}}\ntools: {t: [a, b]}\n"
        "function_tools: [tools.py:look, json:loads]\nskills: one\nroots: one\nshell: true\n---\n"
        "Be {{tone}}: {{policy}} {{x}}",
    )
    done = beam_batch("card", "check", "flow.yaml", "helper.md", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "flow.yaml: ok",
        "  name: flow",
        "  type: chain",
        "  members: helper",
        "  settings: cumulative=False",
        "helper.md: ok",
        "  name: helper (tool_only)",
        "  type: agent",
        "  model: responses.gpt-5.4-mini?reasoning=low",
        "  options: max_tokens=9",
        "  instruction: 25 characters",
        "  variables: tone (has a value), policy (needs a value)",
        "  functions: look (tools.py), loads (json)",
        "  servers: t (stdio: serve -x; shared session, tools a b); u (http: http://h; shared "
        "session)",
        "  skills: one",
        f"  may read: {tmp_path}/one",
        "  shell: yes, with --shell",
        "  limits: 3 model calls a message, 60 s a tool call (servers have their own timeout), "
        "50,000 characters of a tool's result, 3 calls that are the same and say the same",
        "flow answers rows.",
    ]
    assert done.stderr == (
        "batch: card helper.md: {{x}} in its instruction is no variable, and stays as it is.\n"
    )


@pytest.mark.parametrize(
    "cards", [["review-triage.md"], ["delivery-times.md"], ["summary"], [".", "summary"]]
)
def test_the_cards_of_templates_pass(cards: list[str]) -> None:
    done = beam_batch("card", "check", *(TEMPLATES / name for name in cards))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_function_of_the_template_says_what_it_says() -> None:
    code = "from triage_tools import owner_of; print(owner_of('Phone'), owner_of('x'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TEMPLATES, capture_output=True, text=True, check=True
    )
    assert done.stdout == "mobile support\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: x", "Error: card a.yaml:1: unknown field modle; did you mean model?"),
        ("model: nope.x", "Error: card a.yaml: model nope.x: write provider.model"),
        (
            "model: google.m?seed=1\nrequest_params: {verbosity: low}",
            "Error: card a.yaml: model google.m?seed=1&verbosity=low: google has no option",
        ),
    ],
)
def test_check_ends_with_2_where_a_card_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", text)
    done = beam_batch("card", "check", "a.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(message)


def test_without_pyyaml_the_extra_is_named(tmp_path: Path) -> None:
    write(tmp_path, "yaml.py", "raise ImportError('no yaml here')")
    write(tmp_path, "a.yaml", "model: echo")
    env = environment(PYTHONPATH=f"{tmp_path}:{ROOT}")
    done = beam_batch("card", "check", "a.yaml", cwd=tmp_path, env=env, fresh=True)
    assert (done.returncode, done.stderr) == (
        2, "Error: --agent-card a.yaml needs PyYAML: pip install 'beam-batch[agents]'.\n",
    )  # fmt: skip


def _flags(tmp_path: Path, *args: str) -> dict[str, object]:
    """Read the flags of a run as the command line does."""
    import rich_click as click

    from beam_batch.cli.flags import options

    @click.command()
    @options(**PANELS)
    def command(**flags: object) -> dict[str, object]:
        return flags

    rows = str(tmp_path / "rows.jsonl")
    flags = command.main(["-i", rows, "-o", "out.jsonl", *args], standalone_mode=False)
    return flags | {"beam_args": ()}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BEAM_BATCH_MODEL", raising=False)
    write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}])
    write(tmp_path, "a.md", "---\nmodel: echo\n---\nBe {{tone}}.")
    write(tmp_path, "free.yaml", "instruction: x")
    write(tmp_path, "sh.yaml", "model: echo\nshell: true")
    write(tmp_path, "i.md", "Be {{tone}} and {{x}}.")
    return tmp_path


def test_the_flags_of_a_run_make_a_crew(here: Path) -> None:
    args = "--agent-card a.md --agent-card free.yaml --agent a --var tone=kind"
    spec = run_spec(_flags(here, *args.split()))
    alone = load("a.md", variables={"tone": "kind"})
    assert spec.crew == dataclasses.replace(alone, cards=("a.md", "free.yaml"))
    assert spec.model is None
    assert spec.prompt.variables == ("tone",)
    model = ModelSpec(text="echo", provider="echo", model="echo")
    said = describe(dataclasses.replace(spec, model=model))
    shown = {name: said[name] for name in ("agent_card", "agent", "variables", "instruction")}
    assert shown == {
        "agent_card": ["a.md", "free.yaml"],
        "agent": "a",
        "variables": ["tone"],
        "instruction": None,
    }


def test_a_run_tells_the_notes_of_its_cards_and_reads_files_of_variables_once(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(here / "tone")
    writer = threading.Thread(target=(here / "tone").write_text, args=("kind",), daemon=True)
    writer.start()
    args = "--agent-card a.md --var-file tone=tone --var y=1"
    spec = run_spec(_flags(here, *args.split()))
    writer.join()
    assert spec.crew is not None
    assert spec.crew.agents["a"].instruction == "Be kind."
    assert spec.prompt.variables == ("tone", "y")
    assert capsys.readouterr().err == "batch: variable y is used by no card.\n"


def test_variables_are_put_into_an_instruction_without_a_card(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = "-m echo --instruction i.md --var tone=kind --var y=1"
    spec = run_spec(_flags(here, *args.split()))
    assert spec.prompt.instruction == "Be kind and {{x}}."
    assert spec.prompt.variables == ("tone", "y")
    assert capsys.readouterr().err == "batch: variable y is not in --instruction.\n"


NEEDED = (
    "--model is needed: provider.model, such as responses.gpt-5.4-mini; or set BEAM_BATCH_MODEL."
)


@pytest.mark.parametrize(
    ("args", "message"),
    [("", NEEDED), ("--agent-card free.yaml", f"{NEEDED} No model is in the card of free.")],
)
def test_a_model_is_asked_for_in_the_same_words(args: str, message: str, here: Path) -> None:
    with pytest.raises(OptionsError) as caught:
        launch(run_spec(_flags(here, *args.split())))
    assert str(caught.value) == message


def test_the_model_of_the_environment_is_for_runs_and_cards_without_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAM_BATCH_MODEL", "echo?delay_ms=1")
    for args in ((), ("--agent-card", "free.yaml")):
        spec = run_spec(_flags(here, *args, "--overwrite"))
        assert launch(spec).data["model"] == "echo?delay_ms=1"
    spec = run_spec(_flags(here, "--agent-card", "a.md", "--overwrite"))
    assert launch(spec).data["model"] == "echo"


MISTAKES = {
    "--agent-card a.md --instruction i.md": (
        "--instruction and --agent-card exclude each other; a card has its own instruction."
    ),
    "-m echo --agent a": "--agent needs --agent-card.",
    "-m echo --mcp-config a": "--mcp-config needs --agent-card.",
    "-m echo --shell": "--shell needs --agent-card.",
    "-m echo --var a=b": (
        "--var a: variables are for --instruction and --agent-card; give one of them."
    ),
}


@pytest.mark.parametrize("args", MISTAKES)
def test_flags_that_do_not_go_together_are_refused(args: str, here: Path) -> None:
    with pytest.raises(OptionsError) as caught:
        run_spec(_flags(here, *args.split()))
    assert str(caught.value) == MISTAKES[args]


SHELL = {
    "a.md --var tone=x": None,
    "sh.yaml --shell": None,
    "a.md --var tone=x --shell": "--shell: no card has shell: true.",
    "sh.yaml": "agent sh may run commands (shell: true): add --shell.",
}


@pytest.mark.parametrize("args", SHELL)
def test_a_shell_is_allowed_by_card_and_flag(args: str, here: Path) -> None:
    spec = run_spec(_flags(here, "--agent-card", *args.split()))
    assert spec.crew
    assert spec.crew.shell is ("--shell" in args)
    if SHELL[args] is None:
        run(spec)
        return
    with pytest.raises(OptionsError) as caught:
        run(spec)
    assert str(caught.value) == SHELL[args]
    assert sorted(path.name for path in here.iterdir() if "out" in path.name) == []


def test_a_run_ends_with_2_where_an_output_is_a_card(here: Path) -> None:
    done = beam_batch("run", "-i", "rows.jsonl", "-o", "a.md", "--agent-card", "a.md", cwd=here)
    assert done.returncode == 2
    assert "--output a.md is the same file as --agent-card" in done.stderr


def test_an_estimate_says_that_it_cannot_know_agents(here: Path) -> None:
    done = beam_batch(
        "run",
        "-i",
        "rows.jsonl",
        "-o",
        "o.jsonl",
        "--agent-card",
        "sh.yaml",
        "--shell",
        "--dry-run",
        cwd=here,
    )
    assert (done.returncode, done.stderr) == (
        2, "Error: --dry-run cannot know how often an agent calls its model; answer a few rows "
        "with --limit instead.\n",
    )  # fmt: skip


def test_preview_shows_the_instruction_with_its_variables(here: Path) -> None:
    args = ["-i", "rows.jsonl", "--instruction", "i.md", "--var", "tone=kind", "-m", "echo"]
    done = beam_batch("preview", *args, cwd=here)
    assert "Be kind and {{x}}." in done.stdout, done.stderr
