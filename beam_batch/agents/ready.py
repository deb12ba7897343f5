"""What agents need of this machine, looked for before anything is sent."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping

from beam_batch.agents.mcp.target import Target, resolve
from beam_batch.errors import OptionsError
from beam_batch.options.agents import AgentSpec, CrewSpec


def check_flag(crew: CrewSpec) -> None:
    """Check that cards and ``--shell`` agree: both must say that commands may be run.

    Raises:
        OptionsError: only one of them does.
    """
    asking = [agent.name for agent in crew.agents.values() if agent.shell]
    if asking and not crew.shell:
        raise OptionsError(f"agent {asking[0]} may run commands (shell: true): add --shell.")
    if crew.shell and not asking:
        raise OptionsError("--shell: no card has shell: true.")


def check_here(crew: CrewSpec, env: Mapping[str, str]) -> None:
    """Check functions and servers where they will be used: on this machine.

    Functions are imported; servers are not started.

    Raises:
        OptionsError: a function cannot be a tool, a variable is not set, a command is not there,
            or a package is missing.
    """
    for agent in crew.agents.values():
        _check_functions(agent)
        if agent.servers:
            _need("mcp", f"agent {agent.name}: its servers")
        for server in agent.servers:
            target = resolve(server, env)
            if target.command:
                _check_command(target)


def _need(package: str, what: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise OptionsError(f"{what} need {package}: pip install 'beam-batch[agents]'.")


def _check_functions(agent: AgentSpec) -> None:
    if not agent.functions:
        return
    _need("pydantic", f"agent {agent.name}: its function_tools")
    from beam_batch.agents.tools.functions import check_function

    for function in agent.functions:
        check_function(function)


def _check_command(target: Target) -> None:
    """Look for a server's command as it will be looked for when it starts."""
    spec, program = target.spec, target.command[0]
    if spec.cwd and not os.path.isdir(spec.cwd):
        raise OptionsError(f"MCP server {spec.name!r}: there is no folder {spec.cwd}.")
    if os.path.dirname(program):
        program = os.path.join(spec.cwd or "", program)
    if shutil.which(program, path=target.env.get("PATH")) is None:
        raise OptionsError(
            f"MCP server {spec.name!r}: there is no command {spec.command}; install it, or give "
            "its path."
        )
