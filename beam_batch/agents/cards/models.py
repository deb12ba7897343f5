"""Which model each agent asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from beam_batch.agents.cards.members import members, needs_model
from beam_batch.errors import OptionsError
from beam_batch.options import ModelSpec
from beam_batch.options.agents import AgentSpec, CrewSpec
from beam_batch.providers import add_params, chosen_model, resolve_model

_SERVED = ("slots", "ctx", "threads")
"""Options of a local model that its server is started with."""


def resolve(
    crew: CrewSpec,
    given: str | ModelSpec | None,
    otherwise: str | None,
    env: Mapping[str, str],
    *,
    has_schema: bool = False,
) -> tuple[ModelSpec, CrewSpec]:
    """Give every agent its model; return that of the agent that answers rows, the run's own, too.

    Args:
        given: ``--model``: for the agent that answers rows, whatever its card says, and for all
            that name none.
        otherwise: for those that name none, where nothing is given and the agent that answers rows
            names none either.

    Raises:
        OptionsError: there is no model, or a model string is wrong.
    """
    selected = crew.agents[crew.selected]
    run = given or selected.model or _for_those_without(crew, otherwise, has_schema)
    main = _resolved(selected, run, env, "--model" if given else None)
    agents = {}
    for name, agent in crew.agents.items():
        found = main if agent is selected else _resolved(agent, agent.model or run, env)
        _refuse_second_local(agent, found, main)
        agents[name] = dataclasses.replace(agent, model=main if found.text == main.text else found)
    return main, dataclasses.replace(crew, agents=agents)


def _for_those_without(crew: CrewSpec, otherwise: str | None, has_schema: bool) -> str | ModelSpec:
    """Return the model of agents whose cards name none; the first one named, where none asks."""
    agents = crew.agents.values()
    without = [agent.name for agent in agents if not agent.model and needs_model(agent, has_schema)]
    named = next((agent.model for agent in _from(crew, crew.selected) if agent.model), None)
    if named and not without:
        return named
    return chosen_model(otherwise, {}, f" No model is in the card of {' and '.join(without)}.")


def model_of(agent: AgentSpec) -> ModelSpec:
    """Return the model of an agent of a crew whose models are resolved."""
    assert isinstance(agent.model, ModelSpec), "models are resolved at the start"
    return agent.model


def at_local_server(crew: CrewSpec, url: str) -> CrewSpec:
    """Let all agents with a local model ask the run's one model server."""
    agents = {
        name: dataclasses.replace(agent, model=dataclasses.replace(model_of(agent), base_url=url))
        if model_of(agent).provider == "local"
        else agent
        for name, agent in crew.agents.items()
    }
    return dataclasses.replace(crew, agents=agents)


def models_of(crew: CrewSpec | None) -> list[tuple[str, ModelSpec]]:
    """List the models beside the run's own, each with the name of an agent that asks it."""
    if crew is None:
        return []
    found = {model_of(agent).text: (agent.name, model_of(agent)) for agent in crew.agents.values()}
    del found[model_of(crew.agents[crew.selected]).text]
    return list(found.values())


def _from(crew: CrewSpec, name: str) -> Iterator[AgentSpec]:
    """List an agent and its members, depth first."""
    agent = crew.agents[name]
    yield agent
    for member in members(agent):
        yield from _from(crew, member)


def _resolved(
    agent: AgentSpec, model: str | ModelSpec, env: Mapping[str, str], where: str | None = None
) -> ModelSpec:
    where = where or f"agent {agent.name}, model"
    if isinstance(model, ModelSpec):
        return add_params(model, agent.params, where)
    return resolve_model(model, env, where, agent.params)


def _refuse_second_local(agent: AgentSpec, found: ModelSpec, main: ModelSpec) -> None:
    if found.provider != "local":
        return
    served = [(model.model, *map(model.options.get, _SERVED)) for model in (found, main)]
    if main.provider != "local" or served[0] != served[1]:
        raise OptionsError(
            f"agent {agent.name}: {found.text} would be a second model on this machine; a run has "
            "one local model, that of --model."
        )
