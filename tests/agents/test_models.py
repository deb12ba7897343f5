"""Which model each agent asks, and with which options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beam_batch.agents.cards.models import at_local_server, model_of, models_of, resolve
from beam_batch.checks import check
from beam_batch.errors import OptionsError
from beam_batch.launch import run
from beam_batch.manifest import fingerprint
from beam_batch.options import (
    BudgetSpec,
    ModelSpec,
    OutputSpec,
    PriceSpec,
    RunSpec,
    SchemaSpec,
    SourceSpec,
)
from beam_batch.options.agents import AgentSpec, CrewSpec
from beam_batch.providers import chosen_model, resolve_model
from tests.support import read_jsonl, write_jsonl

NEEDED = (
    "--model is needed: provider.model, such as responses.gpt-5.4-mini; or set BEAM_BATCH_MODEL."
)


def _crew(**agents: AgentSpec | str) -> CrewSpec:
    """Make a crew, whose first agent answers rows; a text is the model of a plain agent."""
    made = {
        name: AgentSpec(name=name, model=agent or None) if isinstance(agent, str) else agent
        for name, agent in agents.items()
    }
    return CrewSpec(agents=made, selected=next(iter(made)))


def _flow(kind: str, *agents: str, **settings: str) -> AgentSpec:
    return AgentSpec(name="flow", type=kind, agents=agents, settings=settings)


def _models(crew: CrewSpec, *given: Any, **more: Any) -> list[str]:
    """Return the run's own model, and those of the agents."""
    main, resolved = resolve(crew, *given, {}, **more)
    return [main.text, *(model_of(agent).text for agent in resolved.agents.values())]


OWN = _crew(a=AgentSpec(name="a", model="openai.a", agents=("b", "c")), b="", c="openai.c")
CHAIN = {"flow": _flow("chain", "b", "c"), "b": "openai.b"}


@pytest.mark.parametrize(
    ("crew", "given", "otherwise", "found"),
    [
        (OWN, None, "openai.env", "aaac"),
        (OWN, "openai.x", "openai.env", "xxxc"),
        (_crew(a=""), None, "openai.e", "ee"),
        (_crew(**CHAIN, c="openai.c"), None, None, "bbbc"),
        (_crew(**CHAIN, c=""), None, "openai.e", "eebe"),
        (_crew(**CHAIN, c=""), "openai.x", "openai.e", "xxbx"),
    ],
)
def test_a_model_is_the_flag_s_the_card_s_or_the_environment_s(
    crew: CrewSpec, given: str | None, otherwise: str | None, found: str
) -> None:
    expected = [f"openai.{letter}" for letter in found]
    assert _models(crew, given, otherwise) == expected
    spec = resolve_model(given, {}) if given else None
    assert _models(crew, spec, otherwise) == expected


@pytest.mark.parametrize(
    ("crew", "names"),
    [(_crew(**CHAIN, c=""), "c"), (_crew(a=AgentSpec(name="a", agents=("b",)), b=""), "a and b")],
)
def test_a_model_that_is_missing_is_asked_for(crew: CrewSpec, names: str) -> None:
    with pytest.raises(OptionsError) as caught:
        resolve(crew, None, None, {})
    assert str(caught.value) == f"{NEEDED} No model is in the card of {names}."
    with pytest.raises(OptionsError) as caught:
        chosen_model(None, {})
    assert str(caught.value) == NEEDED


def test_parallel_needs_a_model_only_to_bring_answers_to_a_schema() -> None:
    alone = _crew(flow=_flow("parallel", "b"), b="openai.b")
    joined = _crew(flow=_flow("parallel", "b", fan_in="b"), b="openai.b")
    assert _models(alone, None, None) == ["openai.b"] * 3
    assert _models(joined, None, None, has_schema=True) == ["openai.b"] * 3
    with pytest.raises(OptionsError, match="No model is in the card of flow"):
        resolve(alone, None, None, {}, has_schema=True)
    assert _models(alone, None, "openai.e", has_schema=True) == ["openai.e", "openai.e", "openai.b"]


def _with(model: str | None, **params: Any) -> CrewSpec:
    return CrewSpec(agents={"a": AgentSpec(name="a", model=model, params=params)}, selected="a")


@pytest.mark.parametrize("as_spec", [False, True])
@pytest.mark.parametrize(
    ("given", "params", "text", "options"),
    [
        ("openai.m", {"temperature": 0.5}, "openai.m?temperature=0.5", {"temperature": 0.5}),
        ("openai.m?temp=1", {"temperature": 0.5, "seed": 2}, "openai.m?temp=1&seed=2",
         {"temperature": 1.0, "seed": 2}),
        ("responses.m", {"web_search": True}, "responses.m?web_search=true", {"web_search": True}),
        ("local", {"max_tokens": 9}, "local?max_tokens=9",
         {"temperature": 0.0, "max_tokens": 9, "slots": 4, "ctx": 2048}),
        ("echo?delay_ms=1", {"max_tokens": 9, "spin_ms": 2}, "echo?delay_ms=1&spin_ms=2",
         {"delay_ms": 1, "spin_ms": 2}),
        ("echo", {"max_tokens": 9}, "echo", {}),
    ],
)  # fmt: skip
def test_options_of_a_card_come_after_those_of_the_model_string(
    given: str, params: dict[str, Any], text: str, options: dict[str, Any], as_spec: bool
) -> None:
    model = resolve_model(given, {}) if as_spec else given
    main, crew = resolve(_with(None, **params), model, None, {})
    assert (main.text, main.options) == (text, options)
    assert resolve(crew, None, None, {}) == (main, crew)


@pytest.mark.parametrize("as_spec", [False, True])
def test_an_option_that_the_model_does_not_take_is_refused(as_spec: bool) -> None:
    model = resolve_model("google.m", {}) if as_spec else "google.m"
    with pytest.raises(OptionsError, match=r"^--model google\.m\?verbosity=low: google has no"):
        resolve(_with(None, verbosity="low"), model, None, {})
    with pytest.raises(OptionsError, match=r"^agent a, model nope: write provider\.model"):
        resolve(_with("nope"), None, None, {})


def test_a_value_in_a_model_string_is_quoted_and_not_read_as_another_option() -> None:
    with pytest.raises(OptionsError, match=r"reasoning=low%26seed%3D3: reasoning=low&seed=3 is no"):
        resolve(_with("openai.m", reasoning="low&seed=3"), None, None, {})


def test_models_beside_the_run_s_own_are_listed_once() -> None:
    crew = _crew(a="openai.a", b="openai.b", c="openai.b", d="openai.a")
    main, resolved = resolve(crew, None, None, {})
    assert [(name, model.text) for name, model in models_of(resolved)] == [("c", "openai.b")]
    assert model_of(resolved.agents["a"]) is model_of(resolved.agents["d"]) is main
    assert models_of(None) == []


def test_all_local_models_ask_the_run_s_server() -> None:
    crew = _crew(a="local", b="local?temperature=1", c="openai.c")
    _, resolved = resolve(crew, None, None, {})
    served = at_local_server(resolved, "http://here")
    assert [model_of(agent).base_url for agent in served.agents.values()][:2] == ["http://here"] * 2
    with pytest.raises(OptionsError, match="b: local\\?slots=2 would be a second model"):
        resolve(_crew(a="local", b="local?slots=2"), None, None, {})


def _spec(tmp_path: Path, crew: CrewSpec, model: str | ModelSpec | None, **more: Any) -> RunSpec:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}])
    output = OutputSpec(output=str(tmp_path / "out.jsonl"), overwrite=True)
    source = SourceSpec(input=str(rows))
    return RunSpec(source=source, output=output, model=model, crew=crew, **more)


@pytest.mark.parametrize(
    "model", ["echo", ModelSpec(text="mine", provider="echo", model="echo"), None]
)
def test_python_may_give_what_the_command_line_takes(
    tmp_path: Path, model: str | ModelSpec | None
) -> None:
    crew = _with("echo" if model is None else None, max_tokens=9)
    data = run(_spec(tmp_path, crew, model)).data
    assert data["model"] == ("mine" if isinstance(model, ModelSpec) else "echo")
    assert [row["result"] for row in read_jsonl(tmp_path / "out.jsonl")] == ['{\n  "a": 1\n}']


def test_how_answers_come_may_change_on_resume_for_agents_too(tmp_path: Path) -> None:
    def mark(crew: CrewSpec, model: str | None = None) -> str:
        main, resolved = resolve(crew, model, None, {})
        found: str = fingerprint(_spec(tmp_path, resolved, main), "", "out.jsonl")["--agent-card"]
        return found

    crew = _crew(a=AgentSpec(name="a", agents=("b",)), b="openai.b")
    other = _crew(a=AgentSpec(name="a", agents=("b",)), b="openai.b?transport=sse")
    assert mark(crew, "openai.a") == mark(other, "openai.a?service_tier=flex")
    assert mark(crew, "openai.a") != mark(_crew(a=crew.agents["a"], b="openai.c"), "openai.a")
    assert mark(_with("openai.b", seed=1)) != mark(_with("openai.b", seed=2))


def test_a_price_of_the_run_s_model_is_that_of_its_agent(tmp_path: Path) -> None:
    price = PriceSpec(input=1, output=1)
    crew = _crew(a=AgentSpec(name="a", agents=("b",)), b="")
    main, resolved = resolve(crew, "generic.m?max_tokens=9", None, {})
    check(_spec(tmp_path, resolved, main, budget=BudgetSpec(max_cost=1, price=price)), {})


def test_a_schema_reaches_the_decision_who_needs_a_model(tmp_path: Path) -> None:
    crew = _crew(flow=_flow("parallel", "b"), b="echo")
    with pytest.raises(OptionsError, match="No model is in the card of flow"):
        run(_spec(tmp_path, crew, None, schema=SchemaSpec(json='{"type": "object"}')))
