"""Which model each agent asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

from beam_batch.agents.cards.members import members
from beam_batch.errors import OptionsError
from beam_batch.options import ModelSpec
from beam_batch.options.agents import AgentSpec, CrewSpec
from beam_batch.providers import resolve_model

_SERVED = ("slots", "ctx", "threads")
"""Options of a local model that its server is started with."""


def resolve_crew(
    crew: CrewSpec, model: str | None, env: Mapping[str, str]
) -> tuple[ModelSpec, CrewSpec]:
    """Give every agent its model; return that of the run as well.

    ``--model`` is for the agent that answers rows, whatever its card says, and for all that name
    none. An agent that asks the run's own model has None.

    Raises:
        OptionsError: there is no model, or a model string is wrong.
    """
    selected = crew.agents[crew.selected]
    named = (agent.model for agent in _from(crew, crew.selected) if isinstance(agent.model, str))
    run = model or next(named, None)
    if run is None:
        raise OptionsError(
            f"--model is needed: neither agent {crew.selected} nor its members name one."
        )
    main = _resolve(selected, model or _text(selected) or run, env, "--model" if model else None)
    agents = {}
    for name, agent in crew.agents.items():
        given = model if agent is selected and model else _text(agent) or run
        found = _resolve(agent, given, env, None)
        agents[name] = dataclasses.replace(agent, model=None if found.text == main.text else found)
        _refuse_second_local(agent, found, main)
    return main, dataclasses.replace(crew, agents=agents)


def at_local_server(crew: CrewSpec, url: str) -> CrewSpec:
    """Let agents with options of their own ask the run's local model server."""
    agents = {
        name: dataclasses.replace(agent, model=dataclasses.replace(agent.model, base_url=url))
        if isinstance(agent.model, ModelSpec) and agent.model.provider == "local"
        else agent
        for name, agent in crew.agents.items()
    }
    return dataclasses.replace(crew, agents=agents)


def models_of(crew: CrewSpec | None) -> list[tuple[str, ModelSpec]]:
    """List the models beside the run's own, each with the name of an agent that asks it."""
    found = {
        agent.model.text: (agent.name, agent.model)
        for agent in (crew.agents.values() if crew is not None else ())
        if isinstance(agent.model, ModelSpec)
    }
    return list(found.values())


def _text(agent: AgentSpec) -> str | None:
    return agent.model if isinstance(agent.model, str) else None


def _from(crew: CrewSpec, name: str) -> Iterator[AgentSpec]:
    """List an agent and its members, depth first."""
    agent = crew.agents[name]
    yield agent
    for member in members(agent):
        yield from _from(crew, member)


def _resolve(agent: AgentSpec, text: str, env: Mapping[str, str], flag: str | None) -> ModelSpec:
    """Read a model string; options in it come before those of the card."""
    name, _, query = text.partition("?")
    params = urlencode(dict(agent.params))
    options = "&".join(filter(None, (params, query)))
    try:
        return resolve_model(f"{name}?{options}" if options else name, env)
    except OptionsError as error:
        said = str(error)
        where = flag or f"agent {agent.name}, model"
        raise OptionsError(said.replace("--model", where, 1)) from None


def _refuse_second_local(agent: AgentSpec, found: ModelSpec, main: ModelSpec) -> None:
    if found.provider != "local":
        return
    served = [(model.model, *map(model.options.get, _SERVED)) for model in (found, main)]
    if main.provider != "local" or served[0] != served[1]:
        raise OptionsError(
            f"agent {agent.name}: {found.text} would be a second model on this machine; a run has "
            "one local model, that of --model."
        )
