"""What agents need of this machine, looked for before anything is sent."""

from __future__ import annotations

from beam_batch.errors import OptionsError
from beam_batch.options.agents import CrewSpec


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
