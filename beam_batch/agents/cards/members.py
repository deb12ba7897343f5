"""Agents among each other: who is whose member, who answers rows, who needs a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from beam_batch.agents.cards.checks import nearest
from beam_batch.agents.cards.fields import TYPES
from beam_batch.errors import OptionsError
from beam_batch.options.agents import AgentSpec

Agents = Mapping[str, AgentSpec]


def members(agent: AgentSpec) -> tuple[str, ...]:
    """Name all agents that one uses, in order."""
    fan_in = agent.settings.get("fan_in")
    return (*agent.agents, fan_in) if fan_in else agent.agents


def by_name(agents: Iterable[AgentSpec]) -> dict[str, AgentSpec]:
    """Key agents by their names.

    Raises:
        OptionsError: two have the same.
    """
    found: dict[str, AgentSpec] = {}
    for agent in agents:
        if agent.name in found:
            raise OptionsError(
                f"card {agent.source}: there is an agent {agent.name} already, in "
                f"{found[agent.name].source}; give one of them another name."
            )
        found[agent.name] = agent
    return found


def check_members(agents: Agents) -> None:
    """Check that members exist, and that none uses itself, over whatever others.

    Raises:
        OptionsError: one does not, or does.
    """
    for agent in agents.values():
        for name in members(agent):
            if name not in agents:
                raise OptionsError(
                    f"card {agent.source}: {agent.name} uses {name}, which no card is "
                    f"named{nearest(name, agents)}"
                )
    done: set[str] = set()
    for name in agents:
        _refuse_cycles(name, agents, (), done)


def _refuse_cycles(name: str, agents: Agents, above: tuple[str, ...], done: set[str]) -> None:
    if name in above:
        cycle = " → ".join((*above[above.index(name) :], name))
        raise OptionsError(
            f"card {agents[name].source}: agents use each other in a circle: {cycle}."
        )
    if name in done:
        return
    for member in members(agents[name]):
        _refuse_cycles(member, agents, (*above, name), done)
    done.add(name)


def select(agents: Agents, asked: str | None) -> str:
    """Choose the agent that answers rows.

    Raises:
        OptionsError: the one asked for cannot, or it is unclear which one is meant.
    """
    runnable = [name for name, agent in agents.items() if not agent.tool_only]
    if asked is not None:
        if asked not in agents:
            raise OptionsError(f"--agent {asked}: no card has that name{nearest(asked, agents)}")
        if asked not in runnable:
            raise OptionsError(f"--agent {asked}: it is tool_only, for other agents to use.")
        return asked
    used = {member for agent in agents.values() for member in members(agent)}
    free = [name for name in runnable if name not in used]
    if len(free) == 1:
        return free[0]
    default = [name for name in runnable if agents[name].default]
    if len(default) == 1:
        return default[0]
    if not runnable:
        raise OptionsError("--agent-card: all agents are tool_only; none may answer rows.")
    raise OptionsError(
        f"--agent-card: several agents may answer rows: {', '.join(free or runnable)}; choose "
        "with --agent, or with default: true in one card."
    )


def reachable(agents: Agents, selected: str) -> dict[str, AgentSpec]:
    """Return the agents that one uses, itself first."""
    found: dict[str, AgentSpec] = {}
    waiting = [selected]
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = agents[name]
            waiting.extend(members(agents[name]))
    return found


def needs_model(agent: AgentSpec, has_schema: bool) -> bool:
    """Whether an agent asks a model itself, where results may have to satisfy a schema."""
    if agent.type == "parallel":
        return has_schema and "fan_in" not in agent.settings
    return TYPES[agent.type].thinks
