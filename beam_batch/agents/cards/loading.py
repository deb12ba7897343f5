"""AgentCards: from what a user names to the agents of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from beam_batch.agents.cards.checks import Card, check, parse_card
from beam_batch.agents.cards.fields import LOOP, MODEL_OPTIONS, TYPES, settings_of
from beam_batch.agents.cards.files import read_cards, shown
from beam_batch.agents.cards.members import by_name, check_members, reachable, select
from beam_batch.agents.cards.servers import McpConfig, servers_of
from beam_batch.agents.cards.tools import check_shell, functions_of, roots_of, skills_of
from beam_batch.agents.cards.variables import fill, placeholders
from beam_batch.agents.tools.names import NAME_RULE, is_usable, without_spaces
from beam_batch.errors import OptionsError
from beam_batch.options import DEFAULT_INSTRUCTION
from beam_batch.options.agents import AGENT, AgentSpec, CrewSpec, LoopSpec
from beam_batch.providers import PROVIDERS


class LoadedCard(NamedTuple):
    """One card as it was understood.

    Attributes:
        variables: those that it declares, with their values; None where there is none.
        asks: variables that its instruction wants.
        notes: what a user should know though nothing is wrong.
    """

    agent: AgentSpec
    variables: Mapping[str, str | None]
    asks: tuple[str, ...]
    notes: tuple[str, ...]


class LoadedCrew(NamedTuple):
    """The agents of a run, and what a user should know though nothing is wrong."""

    crew: CrewSpec
    notes: tuple[str, ...]


def load_crew(
    cards: str | Sequence[str],
    *,
    selected: str | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
    trust: bool = False,
    mcp_config: str | None = None,
    env: Mapping[str, str] = os.environ,
) -> LoadedCrew:
    """Read cards, and choose the agent that answers rows.

    Args:
        cards: files, folders, `hf://` names or URLs of AgentCards, or one of them.
        selected: name of the agent that answers rows, where cards leave a choice.
        variables: values of ``{{name}}`` in instructions.
        trust: whether cards from elsewhere may run code on this machine.
        mcp_config: file with MCP servers that cards name.
        env: where ``${NAME}`` is looked up.

    Raises:
        OptionsError: a card is wrong, a variable has no value, or the choice is unclear.
    """
    cards = [cards] if isinstance(cards, str) else cards
    loaded = load_cards(cards, variables=variables, trust=trust, mcp_config=mcp_config, env=env)
    agents = {card.agent.name: card.agent for card in loaded}
    chosen = select(agents, selected)
    crew = CrewSpec(
        agents=reachable(agents, chosen),
        selected=chosen,
        cards=tuple(shown(value) for value in cards),
    )
    used = [card for card in loaded if card.agent.name in crew.agents]
    for card in used:
        _check_values(card)
    wanted = {name for card in used for name in (*card.asks, *card.variables)}
    notes = [note for card in used for note in card.notes]
    notes += [f"variable {name} is used by no card." for name in variables if name not in wanted]
    return LoadedCrew(crew, tuple(notes))


def _check_values(card: LoadedCard) -> None:
    for name, value in card.variables.items():
        if value is None:
            raise OptionsError(
                f"card {card.agent.source}: variable {name} has no value; give one with "
                f"--var {name}=VALUE, or a default in the card."
            )


def load_cards(
    cards: Sequence[str],
    *,
    variables: Mapping[str, str],
    trust: bool,
    mcp_config: str | None,
    env: Mapping[str, str],
) -> list[LoadedCard]:
    """Read cards, each by itself and then among each other; nothing is chosen.

    Raises:
        OptionsError: a card is wrong, or two do not go together.
    """
    texts = read_cards(cards)
    parsed = [parse_card(text, trust) for text in texts]
    config = McpConfig(mcp_config, env) if mcp_config else None
    loaded = [_load(card, variables, config, env) for card in parsed]
    check_members(by_name(card.agent for card in loaded))
    return loaded


def _load(
    card: Card, variables: Mapping[str, str], config: McpConfig | None, env: Mapping[str, str]
) -> LoadedCard:
    check(card, env)
    if card.fields.get("human_input"):
        raise card.error(
            "human_input: true cannot be kept: a batch has nobody to ask.", "human_input"
        )
    if not card.trusted and str(card.fields.get("model", "")).partition(".")[0] == "local":
        raise card.error(
            "model: a card from elsewhere may run a model on this machine only with --trust-card.",
            "model",
        )
    values = _declared(card) | dict(variables)
    known = {name: value for name, value in values.items() if value is not None}
    agent = AgentSpec(
        name=_name(card),
        type=_kind(card),
        description=card.fields.get("description", "").strip(),
        instruction=fill(_instruction(card), known),
        model=card.fields.get("model"),
        **_limits(card),
        servers=servers_of(card, config),
        functions=functions_of(card),
        skills=skills_of(card),
        roots=roots_of(card),
        shell=check_shell(card),
        agents=_members(card),
        settings=_settings(card, known),
        tool_only=card.fields.get("tool_only", False),
        default=card.fields.get("default", False),
        source=card.source,
    )
    if agent.tool_only and agent.default:
        raise card.error("tool_only and default exclude each other.", "default")
    asks = placeholders(_instruction(card) + card.fields.get("refinement_instruction", ""))
    left = ", ".join("{{" + name + "}}" for name in asks if name not in values)
    if left:
        card.note(f"{left} in its instruction is no variable, and stays as it is.")
    declared = {name: values[name] for name in _declared(card)}
    return LoadedCard(agent, declared, asks, tuple(card.notes))


def _kind(card: Card) -> str:
    """Return the type; an orchestrator that plans step by step is an iterative_planner."""
    return "iterative_planner" if card.fields.get("plan_type") == "iterative" else card.type


def _name(card: Card) -> str:
    name = without_spaces(str(card.fields.get("name", card.stem)))
    if not is_usable(name):
        raise card.error(f"name {name!r}: it {NAME_RULE}.", "name")
    return name


def _instruction(card: Card) -> str:
    given = card.fields.get("instruction")
    if given is not None and card.body:
        raise card.error(
            "it has an instruction and a body; the body is the instruction, so leave one out.",
            "instruction",
        )
    text = (given or card.body).strip()
    return text or (DEFAULT_INSTRUCTION if card.type == AGENT else "")


def _declared(card: Card) -> dict[str, str | None]:
    """Return the variables that a card declares, with their defaults."""
    found: dict[str, str | None] = {}
    for variable in card.fields.get("variables", ()):
        default = variable.get("default")
        if isinstance(default, bool):
            default = str(default).lower()
        found[variable["name"]] = None if default is None else str(default)
    return found


def _limits(card: Card) -> dict[str, Any]:
    """Sort request_params into limits of the loop and options of the model."""
    given = card.fields.get("request_params", {})
    loop = {name: given[name] for name in LOOP if name in given}
    params = {name: _param(card, name, given[name]) for name in given if name in MODEL_OPTIONS}
    return {"loop": LoopSpec(**loop), "params": params}


def _param(card: Card, name: str, value: Any) -> Any:
    """Read an option as a model string would; which provider it is for is not known yet."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    options = [info.options[name] for info in PROVIDERS.values() if name in info.options]
    for option in options:
        try:
            return option.parse(text)
        except ValueError:
            continue
    raise card.error(
        f"request_params.{name} wants {options[0].takes}; got {value!r}.", "request_params", name
    )


def _members(card: Card) -> tuple[str, ...]:
    found: list[str] = []
    for field in TYPES[card.type].members:
        value = card.fields.get(field, [])
        found += [value] if isinstance(value, str) else value
    return tuple(map(without_spaces, found))


def _settings(card: Card, variables: Mapping[str, str]) -> dict[str, Any]:
    """Collect what a workflow is set to, defaults included."""
    known = TYPES[card.type].settings
    given = {name: card.fields[name] for name in known if name in card.fields}
    if "fan_in" in given:
        given["fan_in"] = without_spaces(given["fan_in"])
    if "refinement_instruction" in given:
        given["refinement_instruction"] = fill(given["refinement_instruction"], variables)
    settings = settings_of(card.type) | given
    if settings.get("max_samples", 0) < settings.get("k", 0):
        raise card.error(
            f"max_samples {settings['max_samples']} is less than k {settings['k']}; no vote could "
            "be won.",
            "max_samples" if "max_samples" in card.fields else "k",
        )
    return settings
