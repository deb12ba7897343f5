"""What makes a crew another one, so that a run with it cannot be gone on with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from beam_batch.agents.cards.digest import digest_of
from beam_batch.options.agents import AgentSpec, CrewSpec, FunctionSpec, LoopSpec, ServerSpec
from beam_batch.providers import resolve_model


def _crew(agent: AgentSpec) -> CrewSpec:
    return CrewSpec(agents={"a": agent}, selected="a")


def _agent(folder: Path, **changed: Any) -> AgentSpec:
    (folder / "skill" / "deep").mkdir(parents=True, exist_ok=True)
    for name in ("tools.py", "skill/SKILL.md", "skill/deep/table.txt"):
        (folder / name).touch()
    agent = AgentSpec(
        name="a",
        instruction="Do it.",
        model=resolve_model("responses.m?temperature=0", {}),
        functions=(FunctionSpec(function="f", file=str(folder / "tools.py")),),
        skills=(str(folder / "skill"),),
        servers=(ServerSpec(name="s", command="serve"),),
    )
    return dataclasses.replace(agent, **changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"instruction": "Do it well."},
        {"model": resolve_model("responses.m?temperature=1", {})},
        {"servers": (ServerSpec(name="s", command="serve", args=("--fast",)),)},
        {"loop": LoopSpec(max_iterations=3)},
        {"agents": ("b",)},
    ],
)
def test_what_changes_answers_changes_the_digest(tmp_path: Path, changed: dict[str, Any]) -> None:
    agent = _agent(tmp_path)
    other = dataclasses.replace(agent, **changed)
    assert digest_of(_crew(agent)) != digest_of(_crew(other))


@pytest.mark.parametrize(
    "changed",
    [
        {"model": resolve_model("responses.m?temperature=0&transport=http", {})},
        {"servers": (ServerSpec(name="s", command="serve", timeout=5, env={"A": "b"}),)},
        {"loop": LoopSpec(tool_timeout=5)},
        {"source": "elsewhere.md"},
    ],
)
def test_what_does_not_change_answers_may_be_another(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    agent = _agent(tmp_path)
    other = dataclasses.replace(agent, **changed)
    assert digest_of(_crew(agent)) == digest_of(_crew(other))


@pytest.mark.parametrize("name", ["tools.py", "skill/SKILL.md", "skill/deep/table.txt"])
def test_the_files_of_functions_and_skills_count(tmp_path: Path, name: str) -> None:
    agent = _agent(tmp_path)
    before = digest_of(_crew(agent))
    (tmp_path / name).write_text("something else")
    assert digest_of(_crew(agent)) != before
