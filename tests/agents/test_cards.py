"""Cards: what fields become, and what is said of each mistake."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_batch.agents.cards import loading as cards
from beam_batch.agents.cards.checks import parse_card
from beam_batch.agents.cards.files import CardText
from beam_batch.agents.cards.foreign import IGNORED, REFUSED
from beam_batch.errors import OptionsError
from beam_batch.options import DEFAULT_INSTRUCTION
from beam_batch.options.agents import AgentSpec, FunctionSpec, LoopSpec
from tests.agents.cards import agent, card, load, load_with_notes, write

WORKFLOWS = {
    "chain": ("sequence: [a, b, a]", ("a", "b", "a"), {"cumulative": False}),
    "parallel": (
        "fan_out: [a, b]\nfan_in: c",
        ("a", "b"),
        {"fan_in": "c", "include_request": True},
    ),
    "router": ("agents: [a, b]", ("a", "b"), {}),
    "evaluator_optimizer": (
        "generator: a\nevaluator: b\nmin_rating: excellent",
        ("a", "b"),
        {"min_rating": "EXCELLENT", "max_refinements": 3},
    ),
    "orchestrator": ("agents: [a, b]", ("a", "b"), {"plan_iterations": 5}),
    "iterative_planner": ("agents: [a]", ("a",), {"plan_iterations": -1}),
    "MAKER": (
        "worker: a\nk: 2\nred_flag_max_length: 90",
        ("a",),
        {"k": 2, "max_samples": 50, "match_strategy": "exact", "red_flag_max_length": 90},
    ),
}


def _members(folder: Path) -> None:
    for name in "abc":
        write(folder, f"{name}.yaml", "instruction: Do it.\ntool_only: true")


def test_a_markdown_card_has_fields_and_a_body(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "my card.md",
        "---\r\nmodel: echo\r\nrequest_params: {maxTokens: 90, temperature: 0.5, topP: 1, "
        "max_iterations: 3, parallel_tool_calls: false, tool_timeout: 1.5, max_result: 10, "
        "max_repeats: 1}\r\n---\r\n\r\nBe brief.\r\n---\r\nAlways.\r\n",
    )
    assert agent(path) == AgentSpec(
        name="my_card",
        instruction="Be brief.\n---\nAlways.",
        model="echo",
        params={"max_tokens": 90, "temperature": 0.5, "top_p": 1.0},
        loop=LoopSpec(
            max_iterations=3,
            parallel_tool_calls=False,
            tool_timeout=1.5,
            max_result=10,
            max_repeats=1,
        ),
        source=str(path),
    )


def test_a_yaml_card_has_all_in_fields(tmp_path: Path) -> None:
    found = card(
        tmp_path,
        "name: the one\ntype: Agent\ndescription: ' Sorts. '\ninstruction: Sort.\n"
        "schema_version: 1\nuse_history: false\nhuman_input: false\ndefault: yes\nmodel:\n",
    )
    assert found.name == "the_one"
    assert (found.description, found.instruction, found.default) == ("Sorts.", "Sort.", True)
    assert found.model is None


def test_a_card_without_an_instruction_has_the_one_of_plain_runs(tmp_path: Path) -> None:
    assert card(tmp_path, "model: echo").instruction == DEFAULT_INSTRUCTION


@pytest.mark.parametrize("kind", WORKFLOWS)
def test_workflows_name_members_and_settings(kind: str, tmp_path: Path) -> None:
    _members(tmp_path)
    fields, members, settings = WORKFLOWS[kind]
    write(tmp_path, "flow.yaml", f"type: {kind}\n{fields}\n")
    found = load(tmp_path).agents["flow"]
    assert (found.type, found.agents, found.settings) == (kind.lower(), members, settings)


def test_an_orchestrator_that_plans_step_by_step_is_an_iterative_planner(tmp_path: Path) -> None:
    _members(tmp_path)
    write(tmp_path, "flow.yaml", "type: orchestrator\nagents: [a]\nplan_type: Iterative")
    found = load(tmp_path).agents["flow"]
    assert (found.type, found.settings) == ("iterative_planner", {"plan_iterations": 5})


def _loaded(folder: Path, fields: str, **given: Any) -> tuple[AgentSpec, tuple[str, ...]]:
    crew, notes = load_with_notes(write(folder, "card.yaml", fields), **given)
    return crew.agents[crew.selected], notes


def test_the_old_word_smart_is_an_agent(tmp_path: Path) -> None:
    found, notes = _loaded(tmp_path, "type: smart")
    assert found.type == "agent"
    assert notes == (f"card {tmp_path}/card.yaml: type smart is an old word for agent.",)


def test_fields_without_effect_are_told(tmp_path: Path) -> None:
    _, notes = _loaded(tmp_path, "".join(f"{name}: 1\n" for name in IGNORED))
    where = f"card {tmp_path}/card.yaml"
    assert list(notes) == [
        f"{where}: {name} has no effect: {reason}." for name, reason in IGNORED.items()
    ]


def test_functions_skills_and_roots_are_absolute(tmp_path: Path) -> None:
    write(tmp_path, "tools.py", "try:\n    from os import getcwd as here\nexcept ImportError:\n"
          "    here = None\n\nasync def look(): ...\n")  # fmt: skip
    write(tmp_path, "skills/one/SKILL.md", "---\nname: one\ndescription: x\n---\n")
    write(tmp_path, "two/SKILL.md", "---\nname: two\ndescription: x\n---\n")
    found = card(
        tmp_path,
        "function_tools: ['tools.py:look', 'tools.py:here', 'json.decoder:loads']\n"
        "skills: [skills, two]\nroots: skills\nshell: true",
    )
    file = str(tmp_path / "tools.py")
    assert found.functions == (
        FunctionSpec(function="look", file=file),
        FunctionSpec(function="here", file=file),
        FunctionSpec(function="loads", module="json.decoder"),
    )
    assert found.skills == (str(tmp_path / "skills"), str(tmp_path / "two"))
    assert found.roots == (str(tmp_path / "skills"),)
    assert found.shell


def test_functions_are_not_imported(tmp_path: Path) -> None:
    write(tmp_path, "tools.py", f"open({str(tmp_path / 'ran')!r}, 'w')\ndef f(): ...\n")
    card(tmp_path, "function_tools: tools.py:f")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", REFUSED)
def test_fields_that_cannot_be_kept_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    outer, _, inner = name.rpartition(".")
    fields = f"{outer}: {{{inner}: x}}" if outer else f"{name}: x"
    with pytest.raises(OptionsError) as caught:
        card(tmp_path, fields)
    assert str(caught.value).endswith(f"card.yaml:1: {name} is not taken: {REFUSED[name]}.")


MISTAKES = {
    "modle: echo": "1: unknown field modle; did you mean model?",
    "zzz: 1": "1: unknown field zzz.",
    "request_params: {max_token: 1}": (
        "1: unknown field request_params.max_token; did you mean max_tokens?"
    ),
    "name: x\nsequence: [a]": "2: sequence is a field of type chain; this card is of type agent.",
    "type: chain\nsequence: [a]\nservers: {}": (
        "3: servers is a field of type agent; this card is of type chain."
    ),
    "type: chains": "1: type wants one of agent, chain, parallel, router, evaluator_optimizer, "
    "orchestrator, iterative_planner, maker; got 'chains'.",
    "type: [chain]": "1: type wants one of agent, chain, parallel, router, evaluator_optimizer, "
    "orchestrator, iterative_planner, maker; got ['chain'].",
    "type: a2a": "1: type a2a: agents elsewhere (a2a) cannot be called.",
    "type: chain": " type chain needs sequence.",
    "type: parallel": " type parallel needs fan_out.",
    "type: evaluator_optimizer\ngenerator: a": " type evaluator_optimizer needs evaluator.",
    "type: chain\nsequence: a": "2: sequence wants a list of names; got 'a'.",
    "type: chain\nsequence:\n- a\n- 3": "4: sequence.1 wants a name; got 3.",
    "type: router\nagents: [a, a]": (
        "2: agents wants a list of names, none of them twice; got ['a', 'a']."
    ),
    "type: maker\nworker: a\nk: 9\nmax_samples: 3": (
        "4: max_samples 3 is less than k 9; no vote could be won."
    ),
    "type: evaluator_optimizer\ngenerator: a\nevaluator: b\nmax_refinements: 0": (
        "4: max_refinements wants a whole number of 1 or more; got 0."
    ),
    "type: maker\nworker: a\nk: 0": "3: k wants a whole number of 1 or more; got 0.",
    "type: maker\nworker: [a, b]": "2: worker wants a name; got ['a', 'b'].",
    "type: maker\nworker: a\nmatch_strategy: close": (
        "3: match_strategy wants one of exact, normalized, structured; got 'close'."
    ),
    "type: chain\nsequence: []": "2: sequence wants a list of names; got [].",
    "type: evaluator_optimizer\ngenerator: a\nevaluator: b\nmin_rating: ok": (
        "4: min_rating wants one of EXCELLENT, GOOD, FAIR, POOR; got 'ok'."
    ),
    "type: iterative_planner\nagents: [a]\nplan_iterations: 0": (
        "3: plan_iterations wants a whole number of 1 or more, or -1 for no limit; got 0."
    ),
    "request_params:\n  max_iterations: 0": (
        "2: request_params.max_iterations wants a whole number of 1 or more; got 0."
    ),
    "request_params: {tool_timeout: 0}": (
        "1: request_params.tool_timeout wants a number of seconds above 0; got 0."
    ),
    "request_params: {temperature: 3}": (
        "1: request_params.temperature wants a number from 0 to 2; got 3."
    ),
    "request_params: {temperature: [3]}": (
        "1: request_params.temperature wants text, a number or true or false; got [3]."
    ),
    "request_params: 3": (
        "1: request_params wants a mapping of limits and options of the model; got 3."
    ),
    "default: 1": "1: default wants true or false; got 1.",
    "schema_version: 7": "1: schema_version wants 1; got 7.",
    "model: 5": "1: model wants a name; got 5.",
    f"description: [{'x' * 80}]": f"1: description wants text; got ['{'x' * 55}....",
    "name: a.b": "1: name 'a.b': it may have letters, digits, _ and -, 64 at most.",
    "human_input: true": "1: human_input: true cannot be kept: a batch has nobody to ask.",
    "tool_only: true\ndefault: true": "2: tool_only and default exclude each other.",
    "variables: [{default: x}]": "1: variables.0 needs name.",
    "variables: {a: [1]}": (
        "1: variables.0.default wants text, a number or true or false; got [1]."
    ),
    "function_tools: tools": (
        "1: function tool 'tools': write file.py:function or package.module:function."
    ),
    "function_tools: a-b:f": "1: function tool 'a-b:f': a-b is no name of a module.",
    "function_tools: none.py:f": "1: function tool 'none.py:f': there is no file {here}none.py.",
    "function_tools: bad.py:f": "1: {here}bad.py:2: not Python (invalid syntax).",
    "function_tools:\n- good.py:lok": (
        "2: function tool 'good.py:lok': the file defines no lok; did you mean look?"
    ),
    "skills: none": "1: skills names {here}none, which is no folder.",
    "skills: skl": "1: skills: there is no SKILL.md in {here}skl, nor one folder below.",
    "skills: bare": "1: skill {here}bare/SKILL.md must begin with a head between two lines of ---.",
    "roots: good.py": "1: roots names {here}good.py, which is no folder.",
    "instruction: ${UNSET}": "1: instruction names ${UNSET}, which is not set; set it, or write "
    "a default: ${UNSET:default}.",
    "- a": " its YAML is no mapping of fields.",
    "": " its YAML is no mapping of fields.",
}


@pytest.mark.parametrize("fields", MISTAKES)
def test_mistakes_say_where_and_what_is_wanted(fields: str, tmp_path: Path) -> None:
    write(tmp_path, "good.py", "def look(): ...\n")
    write(tmp_path, "bad.py", "\ndef (:\n")
    write(tmp_path, "bare/SKILL.md", "Do it.")
    write(tmp_path, "skl/README.md", "Nothing.")
    expected = MISTAKES[fields].replace("{here}", f"{tmp_path}{os.sep}")
    with pytest.raises(OptionsError) as caught:
        card(tmp_path, fields)
    assert str(caught.value) == f"card {tmp_path}/card.yaml:{expected}"


BROKEN = {
    "a: [1": "1: expected ',' or ']', but got '<stream end>'.",
    "a: 1\nb: 2\na: 3": "3: a is there twice.",
    "a: 1\n2: b": "2: the key 2 is no text; put it in quotes.",
    "a: 1\n? [b]\n: c": "2: the key of this mapping is no text; put it in quotes.",
    "a: .nan": "1: a number is NaN or infinite.",
    "a: !!python/name:os.system": "1: could not determine a constructor for the tag "
    "'tag:yaml.org,2002:python/name:os.system'.",
    "a: !!binary aGk=": (
        "1: could not determine a constructor for the tag 'tag:yaml.org,2002:binary'."
    ),
    "a: \x01": "1: it holds a character that YAML does not (special characters are not allowed).",
    "a: b\n--- \nc: d": "2: but found another document.",
    f"a: {'[' * 50}{']' * 50}": "1: it is nested deeper than 40 levels.",
    f"a: {'[' * 5000}": "1: it is nested deeper than 40 levels.",
    "a: &x [*x]": "1: it is nested deeper than 40 levels.",
    "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{n}: &{n} [{','.join([f'*{chr(ord(n) - 1)}'] * 9)}]\n" for n in "bcdefghi"): (
        "1: it holds more than 20,000 values."
    ),
}


@pytest.mark.parametrize("text", BROKEN)
def test_yaml_that_is_none_is_told_with_its_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as caught:
        card(tmp_path, text)
    assert str(caught.value).startswith(f"card {tmp_path}/card.yaml:{BROKEN[text]}")


def test_lines_of_front_matter_count_from_the_top_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "card.md", "---\nmodel: echo\nmodle: echo\n---\nx")
    with pytest.raises(OptionsError, match=r"card\.md:3: unknown field modle"):
        load(path)
    with pytest.raises(OptionsError, match=r"card\.md:3: expected"):
        load(write(tmp_path, "card.md", "---\nmodel: echo\na: [\n---\nx"))


def test_a_card_has_one_instruction(tmp_path: Path) -> None:
    path = write(tmp_path, "card.md", "---\ninstruction: a\n---\nb")
    with pytest.raises(OptionsError) as caught:
        load(path)
    assert str(caught.value) == (
        f"card {path}:2: it has an instruction and a body; the body is the instruction, so leave "
        "one out."
    )


def test_dates_and_numbers_that_look_like_text_stay_text(tmp_path: Path) -> None:
    assert card(tmp_path, "instruction: 2024-01-02").instruction == "2024-01-02"


def test_the_environment_is_written_into_cards_of_this_machine(tmp_path: Path) -> None:
    env = {"TEAM": "mobile"}
    assert card(tmp_path, "instruction: For ${TEAM} ${X:and} $${TEAM}", env=env).instruction == (
        "For mobile and ${TEAM}"
    )
    path = write(tmp_path, "card.md", "---\nmodel: ${M:echo}\n---\nFor ${TEAM}")
    found = agent(path, env=env)
    assert (found.model, found.instruction) == ("echo", "For mobile")


VARIABLES = "variables: {tone: kind, n: 3, on: true}\ninstruction: '{{tone}} {{ n }} {{on}} {{x}}'"


def test_defaults_of_a_card_s_variables_are_used(tmp_path: Path) -> None:
    fields = VARIABLES.replace("on: true", "'on': true")
    found, (note,) = _loaded(tmp_path, fields)
    assert found.instruction == "kind 3 true {{x}}"
    assert note.endswith(": {{x}} in its instruction is no variable, and stays as it is.")
    given = {"tone": "{{n}}", "x": "4", "unused": "5"}
    found, notes = _loaded(tmp_path, fields, variables=given)
    assert found.instruction == "{{n}} 3 true 4"
    assert notes == ("variable unused is used by no card.",)


def test_a_variable_without_a_value_is_named(tmp_path: Path) -> None:
    fields = "variables: [{name: policy, description: what holds}]\ninstruction: '{{policy}}'"
    with pytest.raises(OptionsError) as caught:
        card(tmp_path, fields)
    assert str(caught.value) == (
        f"card {tmp_path}/card.yaml: variable policy has no value; give one with "
        "--var policy=VALUE, or a default in the card."
    )
    assert card(tmp_path, fields, variables={"policy": "be fair"}).instruction == "be fair"


def test_variables_reach_the_refinement_instruction(tmp_path: Path) -> None:
    _members(tmp_path)
    write(tmp_path, "flow.yaml", "type: evaluator_optimizer\ngenerator: a\nevaluator: b\n"
          "refinement_instruction: At most {{n}}.\nvariables: {n: 3}")  # fmt: skip
    assert load(tmp_path).agents["flow"].settings["refinement_instruction"] == "At most 3."


_WORDS = st.sampled_from(["", "a", "agent", "chain", "a.py:f", "${A}", "name", "target", "url"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=8,
)
_UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
_FIELDS = [
    "type", "name", "instruction", "description", "default", "model", "servers", "tools",
    "mcp_connect", "skills", "agents", "function_tools", "variables", "request_params", "sequence",
    "roots", "k", "human_input", "plan_iterations",
]  # fmt: skip


def _refusal(call: Callable[[], object]) -> str:
    """Return what is said where a card is refused, the card's name where it is not."""
    try:
        call()
    except OptionsError as error:
        return str(error)
    return "card card."


@_UNHURRIED
@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=5))
def test_whatever_fields_hold_a_card_is_loaded_or_refused(fields: dict[str, Any]) -> None:
    text = CardText("card.yaml", json.dumps(fields), False, Path("/nowhere"))
    said = _refusal(lambda: cards._load(parse_card(text, trust=False), {}, None, {}))
    assert said.startswith("card card.")


@_UNHURRIED
@given(st.text(), st.sampled_from(["card.yaml", "card.md"]))
def test_whatever_a_card_s_text_is_it_is_read_or_refused(text: str, name: str) -> None:
    said = _refusal(lambda: parse_card(CardText(name, text, False, Path()), trust=False))
    assert said.startswith("card card.")
