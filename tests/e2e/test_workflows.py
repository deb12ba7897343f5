"""Workflows over real requests: the server's journal says who was asked what, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from tests.fakes import Answer, ScriptedServer, prompt_of
from tests.support import beam_batch, environment, read_jsonl, write_jsonl

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
QUESTION = "how many?"
RESULTS = [pytest.param("seven", id="text"), pytest.param({"n": 7}, id="schema")]


class Asked(NamedTuple):
    agent: str
    prompt: str
    schema: str | None

    @classmethod
    def of(cls, body: dict[str, Any]) -> Asked:
        form = body.get("response_format", {}).get("json_schema", {})
        return cls(body["messages"][0]["content"], prompt_of(body), form.get("name"))


class AgentServer(ScriptedServer):
    """Answers each agent from a list of its own; an agent's instruction is its name.

    The first requests of the agents in `meet` are answered only once all of them are there; a
    run's very first request does not count, since it goes alone.
    """

    def __init__(self, answers: Mapping[str, list[Any]], meet: tuple[str, ...] = ()) -> None:
        super().__init__(self._next)
        self._answers = {agent: iter(given) for agent, given in answers.items()}
        self._meet = list(meet)
        self._barrier = asyncio.Barrier(max(1, len(meet)))

    def _next(self, number: int, body: dict[str, Any]) -> Answer:
        given = next(self._answers[Asked.of(body).agent])
        if isinstance(given, Answer):
            return given
        return Answer(text=given if isinstance(given, str) else json.dumps(given))

    async def _answer(
        self, request: web.Request, body: dict[str, Any], answer: Answer
    ) -> web.StreamResponse:
        agent = Asked.of(body).agent
        if body is not self.bodies[0] and agent in self._meet:
            self._meet.remove(agent)
            async with asyncio.timeout(60):
                await self._barrier.wait()
        return await super()._answer(request, body, answer)

    @property
    def journal(self) -> list[Asked]:
        return [Asked.of(body) for body in self.bodies]


class Ran(NamedTuple):
    row: dict[str, Any]
    telemetry: dict[str, Any]
    journal: list[Asked]

    @property
    def order(self) -> list[str]:
        return [asked.agent for asked in self.journal]

    @property
    def schemas(self) -> list[str | None]:
        return [asked.schema for asked in self.journal]


def write_cards(folder: Path, fields: str, agents: tuple[str, ...], more: dict[str, str]) -> Path:
    """Write the card of a workflow `flow`, of plain agents, and more."""
    cards = {"flow": f"---\n{fields}\n---\nflow\n"} | more
    for name in agents:
        cards[name] = f"---\ntype: agent\ndescription: The one that is {name}.\n---\n{name}\n"
    folder.mkdir()
    for name, card in cards.items():
        (folder / f"{name}.md").write_text(card)
    return folder


def run(
    folder: Path, fields: str, server: AgentServer, result: Any, *agents: str, **more: str
) -> Ran:
    """Have a workflow `flow` of a card with these fields answer one row."""
    cards = write_cards(folder / "cards", fields, agents, more)
    write_jsonl(folder / "rows.jsonl", [{"q": QUESTION}])
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    schema = () if isinstance(result, str) else ("--schema", folder / "schema.json")
    with server:
        done = beam_batch(
            "run", "-i", folder / "rows.jsonl", "-o", folder / "out.jsonl", "-m", "openai.m",
            "-p", "{{q}}", "--agent-card", cards, "--agent", "flow", "--no-final-summary",
            "--telemetry-output", folder / "t.jsonl", "--max-attempts", 1, *schema,
            env=environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="key-of-a-test"),
        )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    (row,), (telemetry,) = read_jsonl(folder / "out.jsonl"), read_jsonl(folder / "t.jsonl")
    assert done.returncode == (0 if row["ok"] else 1), done.stderr
    ran = Ran(row, telemetry, server.journal)
    assert sorted(call["agent"] for call in telemetry["calls"]) == sorted(ran.order)
    return ran


def asks_for(result: Any) -> str | None:
    return None if isinstance(result, str) else "structured_output"


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("cumulative", [False, True])
def test_chain(tmp_path: Path, cumulative: bool, result: Any) -> None:
    server = AgentServer({"a": ["one"], "b": ["two"], "c": [result]})
    fields = f"type: chain\nsequence: [a, b, c]\ncumulative: {json.dumps(cumulative)}"
    ran = run(tmp_path, fields, server, result, "a", "b", "c")
    assert ran.row["result"] == result
    assert ran.order == ["a", "b", "c"]
    assert ran.schemas == [None, None, asks_for(result)]
    prompts = [asked.prompt for asked in ran.journal]
    if not cumulative:
        assert prompts == [QUESTION, "one", "two"]
    else:
        assert prompts[0] == QUESTION
        assert prompts[2] == (
            f"<request>\n{QUESTION}\n</request>\n\n"
            '<answer agent="a">\none\n</answer>\n\n<answer agent="b">\ntwo\n</answer>'
        )


@pytest.mark.parametrize("result", RESULTS)
def test_parallel_with_fan_in(tmp_path: Path, result: Any) -> None:
    server = AgentServer(
        {"a": ["one"], "b": ["two"], "c": ["three"], "d": [result]}, meet=("b", "c")
    )
    fields = "type: parallel\nfan_out: [a, b, c]\nfan_in: d"
    ran = run(tmp_path, fields, server, result, "a", "b", "c", "d")
    assert ran.row["result"] == result
    assert sorted(ran.order[:3]) == ["a", "b", "c"]
    assert ran.order[3:] == ["d"]
    assert ran.schemas == [None, None, None, asks_for(result)]
    assert f"<request>\n{QUESTION}\n</request>" in ran.journal[3].prompt
    assert '<answer agent="b">\ntwo\n</answer>' in ran.journal[3].prompt


def test_parallel_without_fan_in(tmp_path: Path) -> None:
    server = AgentServer({"a": ["one"], "b": ["two"]})
    ran = run(tmp_path, "type: parallel\nfan_out: [a, b]", server, "", "a", "b")
    assert ran.row["result"] == (
        '<answer agent="a">\none\n</answer>\n\n<answer agent="b">\ntwo\n</answer>'
    )
    assert len(ran.order) == 2


def test_parallel_without_fan_in_to_a_schema(tmp_path: Path) -> None:
    server = AgentServer({"a": ["one"], "b": ["two"], "flow": [{"n": 3}]})
    ran = run(tmp_path, "type: parallel\nfan_out: [a, b]", server, {}, "a", "b")
    assert ran.row["result"] == {"n": 3}
    assert ran.order[2:] == ["flow"]
    assert ran.schemas == [None, None, "structured_output"]


def test_a_failure_in_a_workflow_is_the_row_s(tmp_path: Path) -> None:
    refused = Answer(status=400, body=b'{"error": {"message": "not that"}}')
    server = AgentServer({"a": ["one"], "b": [refused], "c": []})
    ran = run(tmp_path, "type: parallel\nfan_out: [a, b]\nfan_in: c", server, "", "a", "b", "c")
    assert ran.row["error"]["type"] == "RequestRejected"
    assert "c" not in ran.order


@pytest.mark.parametrize("result", RESULTS)
def test_router(tmp_path: Path, result: Any) -> None:
    server = AgentServer({"flow": [{"reason": "", "agent": "b"}], "b": [result]})
    ran = run(tmp_path, "type: router\nagents: [a, b]", server, result, "a", "b")
    assert ran.row["result"] == result
    assert ran.order == ["flow", "b"]
    assert ran.schemas == ["choice", asks_for(result)]
    assert "- b: The one that is b." in ran.journal[0].prompt
    assert ran.journal[1].prompt == QUESTION
    assert ran.telemetry["routed_to"] == "b"


@pytest.mark.parametrize("result", RESULTS)
def test_evaluator_optimizer(tmp_path: Path, result: Any) -> None:
    first = "six" if isinstance(result, str) else {"n": 6}
    server = AgentServer(
        {
            "writer": [first, result],
            "judge": [
                {"feedback": "one too few", "rating": "FAIR"},
                {"feedback": "", "rating": "EXCELLENT"},
            ],
        }
    )
    fields = "type: evaluator_optimizer\ngenerator: writer\nevaluator: judge"
    ran = run(tmp_path, fields, server, result, "writer", "judge")
    assert ran.row["result"] == result
    assert ran.order == ["writer", "judge", "writer", "judge"]
    assert ran.schemas == [asks_for(result), "verdict"] * 2
    shown = first if isinstance(first, str) else '{"n":6}'
    assert f"<answer>\n{shown}\n</answer>" in ran.journal[1].prompt
    assert "one too few" in ran.journal[2].prompt
    assert ran.telemetry["ratings"] == ["FAIR", "EXCELLENT"]


def _step(*tasks: tuple[str, str]) -> dict[str, Any]:
    return {"description": "", "tasks": [{"agent": agent, "task": task} for agent, task in tasks]}


@pytest.mark.parametrize("result", RESULTS)
def test_orchestrator(tmp_path: Path, result: Any) -> None:
    plan = {"steps": [_step(("a", "count left"), ("b", "count right"))]}
    more = {"is_complete": False, "steps": [_step(("b", "add"))]}
    server = AgentServer(
        {
            "flow": [plan, more, {"is_complete": True, "steps": []}, result],
            "a": ["three"],
            "b": ["four", "3 + 4 = 7"],
        },
        meet=("a", "b"),
    )
    ran = run(tmp_path, "type: orchestrator\nagents: [a, b]", server, result, "a", "b")
    assert ran.row["result"] == result
    assert sorted(ran.order[1:3]) == ["a", "b"]
    assert [ran.order[0], *ran.order[3:]] == ["flow", "flow", "b", "flow", "flow"]
    assert ran.schemas == ["plan", None, None, "review", None, "review", asks_for(result)]
    assert '<found step="1" agent="a">\nthree\n</found>' in ran.journal[4].prompt
    assert ran.journal[4].prompt.endswith("<task>\nadd\n</task>")
    assert "3 + 4 = 7" in ran.journal[6].prompt
    assert ran.telemetry["plan"] == {"rounds": 3, "steps": 2, "tasks": 3, "complete": True}
    assert ran.telemetry["attempts"] == 7


@pytest.mark.parametrize("result", RESULTS)
def test_iterative_planner(tmp_path: Path, result: Any) -> None:
    end = {"is_complete": True, "description": "", "tasks": []}
    steps = [{"is_complete": False, **_step((name, "count"))} for name in ("a", "b")]
    server = AgentServer({"flow": [*steps, end, result], "a": ["three"], "b": ["four"]})
    ran = run(tmp_path, "type: iterative_planner\nagents: [a, b]", server, result, "a", "b")
    assert ran.row["result"] == result
    assert ran.order == ["flow", "a", "flow", "b", "flow", "flow"]
    assert ran.schemas == ["next_step", None] * 2 + ["next_step", asks_for(result)]
    assert "three" in ran.journal[3].prompt


@pytest.mark.parametrize("result", RESULTS)
def test_maker(tmp_path: Path, result: Any) -> None:
    other = "nine" if isinstance(result, str) else {"n": 9}
    samples = [result, other, "x" * 100, result, result, result]
    server = AgentServer({"a": samples}, meet=("a", "a"))
    fields = "type: MAKER\nworker: a\nk: 3\nmax_samples: 9\nred_flag_max_length: 20"
    ran = run(tmp_path, fields, server, result, "a")
    assert ran.row["result"] == result
    assert {asked.prompt for asked in ran.journal} == {QUESTION}
    assert ran.order == ["a"] * 6
    assert ran.telemetry["maker"] == {
        "samples": 6, "discarded": 1, "votes": [4, 1], "agreed": True,
    }  # fmt: skip


def test_maker_without_a_leader(tmp_path: Path) -> None:
    server = AgentServer({"a": ["x", "y", "z"]})
    ran = run(tmp_path, "type: MAKER\nworker: a\nmax_samples: 3", server, "", "a")
    assert ran.row["error"]["type"] == "WorkflowFailed"
    assert "1, 1, 1 votes" in ran.row["error"]["message"]


def test_workflows_are_members_of_workflows(tmp_path: Path) -> None:
    server = AgentServer({"a": ["one"], "b": ["two"], "c": ["7"]})
    both = "---\ntype: parallel\nfan_out: [a, b]\n---\n"
    fields = "type: chain\nsequence: [both, c]"
    ran = run(tmp_path, fields, server, "7", "a", "b", "c", both=both)
    assert ran.row["result"] == "7"
    assert ran.order[2:] == ["c"]
    assert '<answer agent="a">\none\n</answer>' in ran.journal[2].prompt
