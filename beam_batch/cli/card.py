"""The command line of cards: what is in them, before a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import rich_click as click

from beam_batch.cli.agent_flags import MCP_CONFIG, TRUST_CARD, VARIABLES
from beam_batch.errors import OptionsError

if TYPE_CHECKING:
    from beam_batch.agents.cards.loading import LoadedCard
    from beam_batch.options import AgentSpec


@click.group()
def card() -> None:
    """Look into agent cards (--agent-card)."""


def _shared(command: Any) -> Any:
    for option in reversed((*VARIABLES, MCP_CONFIG, TRUST_CARD)):
        command = option(command)
    return command


@card.command("check")
@click.argument("cards", metavar="FILE...", nargs=-1, required=True)
@_shared
def check(cards: tuple[str, ...], **flags: Any) -> None:
    """Check cards, and say in plain words what is in them; nothing is started or sent."""
    from beam_batch.agents.cards.loading import load_cards
    from beam_batch.agents.cards.members import select
    from beam_batch.cli.settings import variables

    loaded = load_cards(
        cards,
        variables=variables(flags),
        trust=flags["trust_card"],
        mcp_config=flags["mcp_config"],
        env=os.environ,
    )
    for found in loaded:
        _check_model(found.agent)
        click.echo("\n".join(_lines(found)))
        for note in found.notes:
            click.echo(f"batch: {note}", err=True)
    try:
        chosen = select({found.agent.name: found.agent for found in loaded}, None)
        click.echo(f"{chosen} answers rows.")
    except OptionsError as error:
        click.echo(str(error).removeprefix("--agent-card: "))


def _check_model(agent: AgentSpec) -> None:
    """Check that a card's model takes the options that the card gives it."""
    from beam_batch.providers import resolve_model

    if isinstance(agent.model, str):
        resolve_model(agent.model, os.environ, f"card {agent.source}: model", agent.params)


def _lines(found: LoadedCard) -> Iterator[str]:
    """Describe a card, a line a thing that it has."""
    from beam_batch.agents.cards.members import needs_model

    agent = found.agent
    yield f"{agent.source}: ok"
    shown = {
        "name": agent.name + (" (tool_only)" if agent.tool_only else ""),
        "type": agent.type,
        "model": agent.model or ("that of --model" if needs_model(agent, True) else ""),
        "options": _pairs(agent.params),
        "instruction": f"{len(agent.instruction):,} characters" if agent.instruction else "",
        "variables": ", ".join(
            f"{name} ({'needs a value' if value is None else 'has a value'})"
            for name, value in found.variables.items()
        ),
        "members": ", ".join(agent.agents),
        "settings": _pairs(agent.settings),
        "functions": ", ".join(
            f"{f.function} ({os.path.basename(f.file) or f.module})" for f in agent.functions
        ),
        "servers": "; ".join(map(_server, agent.servers)),
        "skills": ", ".join(map(os.path.basename, agent.skills)),
        "may read": ", ".join(agent.roots),
        "shell": "yes, with --shell" if agent.shell else "",
        "limits": _limits(agent),
    }
    yield from (f"  {name}: {value}" for name, value in shown.items() if value)


def _pairs(values: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _server(server: Any) -> str:
    where = " ".join((server.command, *server.args)) if server.command else server.url
    tools = f", tools {' '.join(server.allowed)}" if server.allowed else ""
    return f"{server.name} ({server.transport}: {where}; {server.session} session{tools})"


def _limits(agent: AgentSpec) -> str:
    loop = agent.loop
    if agent.type != "agent":
        return ""
    return (
        f"{loop.max_iterations} model calls a message, {loop.tool_timeout:g} s a tool call "
        f"(servers have their own timeout), {loop.max_result:,} characters of a tool's result, "
        f"{loop.max_repeats} calls that are the same and say the same"
    )
