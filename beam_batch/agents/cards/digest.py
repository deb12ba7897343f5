"""What of a crew decides its answers, as one digest: a resumed run must have the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beam_batch import jsonio
from beam_batch.options import ModelSpec
from beam_batch.options.agents import AgentSpec, CrewSpec, FunctionSpec, ServerSpec
from beam_batch.providers import deciding_options


def digest_of(crew: CrewSpec) -> str:
    """Return the digest of all agents, with the files that their functions and skills are in.

    Timeouts, environments and the places of files play no part.
    """
    digest = hashlib.blake2b(crew.selected.encode(), digest_size=12)
    for name in sorted(crew.agents):
        digest.update(jsonio.dumps(_of_agent(crew.agents[name])))
        for file in _files(crew.agents[name]):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _of_agent(agent: AgentSpec) -> dict[str, Any]:
    return {
        "name": agent.name,
        "type": agent.type,
        "description": agent.description,
        "instruction": agent.instruction,
        "model": _of_model(agent.model) if isinstance(agent.model, ModelSpec) else None,
        "max_iterations": agent.loop.max_iterations,
        "max_result": agent.loop.max_result,
        "servers": [_of_server(server) for server in agent.servers],
        "functions": [_of_function(function) for function in agent.functions],
        "agents": list(agent.agents),
        "settings": dict(agent.settings),
        "roots": list(agent.roots),
        "shell": agent.shell,
    }


def _of_model(model: ModelSpec) -> list[Any]:
    return [model.provider, model.model, list(deciding_options(model).items())]


def _of_server(server: ServerSpec) -> list[Any]:
    return [server.name, server.command, list(server.args), server.url, list(server.allowed)]


def _of_function(function: FunctionSpec) -> list[str]:
    return [function.module, function.function]


def _files(agent: AgentSpec) -> Iterator[Path]:
    """List what functions and skills are read from, in an order of its own."""
    for function in agent.functions:
        if function.file:
            yield Path(function.file)
    for skill in agent.skills:
        yield from sorted(path for path in Path(skill).rglob("*") if path.is_file())
