"""Several cards: names, members, and who answers rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_batch.agents.cards.members import check_members, reachable, select
from beam_batch.errors import OptionsError
from beam_batch.options.agents import AgentSpec
from tests.agents.cards import load, write


def _agents(**agents: str) -> dict[str, AgentSpec]:
    """Make agents of names of their members; `!` is tool_only, `*` is default."""
    return {
        name: AgentSpec(
            name=name,
            agents=tuple(word for word in words.split() if word.isalpha()),
            tool_only="!" in words,
            default="*" in words,
            source=f"{name}.md",
        )
        for name, words in agents.items()
    }


@pytest.mark.parametrize(
    ("agents", "asked", "chosen"),
    [
        ({"a": ""}, None, "a"),
        ({"a": "", "b": "a"}, None, "b"),
        ({"a": "!", "b": ""}, None, "b"),
        ({"a": "", "b": "a"}, "a", "a"),
        ({"a": "*", "b": ""}, None, "a"),
        ({"a": "* !", "b": "*", "c": ""}, None, "b"),
        ({"a": "* b", "b": "c", "c": "", "d": ""}, None, "a"),
    ],
)
def test_one_agent_answers_rows(agents: dict[str, str], asked: str | None, chosen: str) -> None:
    assert select(_agents(**agents), asked) == chosen


@pytest.mark.parametrize(
    ("agents", "asked", "message"),
    [
        ({"agent_a": ""}, "agent_b", "--agent agent_b: no card has that name; did you mean "
         "agent_a?"),
        ({"a": "!"}, "a", "--agent a: it is tool_only, for other agents to use."),
        ({"a": "!"}, None, "--agent-card: all agents are tool_only; none may answer rows."),
        ({"a": "", "b": "", "c": "b"}, None, "--agent-card: several agents may answer rows: a, c; "
         "choose with --agent, or with default: true in one card."),
        ({"a": "*", "b": "*"}, None, "--agent-card: several agents may answer rows: a, b; choose "
         "with --agent, or with default: true in one card."),
    ],
)  # fmt: skip
def test_an_unclear_choice_is_refused(
    agents: dict[str, str], asked: str | None, message: str
) -> None:
    with pytest.raises(OptionsError) as caught:
        select(_agents(**agents), asked)
    assert str(caught.value) == message


def test_members_must_exist() -> None:
    with pytest.raises(OptionsError) as caught:
        check_members(_agents(writer="", b="writr"))
    assert str(caught.value) == (
        "card b.md: b uses writr, which no card is named; did you mean writer?"
    )


@pytest.mark.parametrize(
    ("agents", "cycle"),
    [({"a": "a"}, "a → a"), ({"a": "b", "b": "c", "c": "b"}, "b → c → b")],
)
def test_agents_that_use_each_other_in_a_circle_are_refused(
    agents: dict[str, str], cycle: str
) -> None:
    with pytest.raises(OptionsError) as caught:
        check_members(_agents(**agents))
    assert str(caught.value).endswith(f"agents use each other in a circle: {cycle}.")


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_a_circle_is_found_wherever_there_is_one(uses: list[tuple[int, int]]) -> None:
    names = "abcdefgh"
    members = {name: " ".join(names[b] for a, b in uses if names[a] == name) for name in names}
    below = {name: set(words.split()) for name, words in members.items()}
    for _ in names:
        below = {
            name: set().union(found, *(below[m] for m in found)) for name, found in below.items()
        }
    agents = _agents(**members)
    if any(name in found for name, found in below.items()):
        with pytest.raises(OptionsError):
            check_members(agents)
    else:
        check_members(agents)
        assert set(reachable(agents, "a")) == {"a"} | below["a"]


def test_a_crew_holds_only_who_may_have_to_work(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "type: parallel\nfan_out: [b]\nfan_in: c\ndefault: true")
    for name in "bcd":
        write(tmp_path, f"{name}.yaml", "model: echo")
    crew = load(tmp_path)
    assert (crew.selected, list(crew.agents), crew.cards) == (
        "a",
        ["a", "b", "c"],
        (str(tmp_path),),
    )


def test_two_cards_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "name: x")
    write(tmp_path, "b.yaml", "name: x")
    with pytest.raises(OptionsError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"card {tmp_path}/b.yaml: there is an agent x already, in {tmp_path}/a.yaml; give one of "
        "them another name."
    )
