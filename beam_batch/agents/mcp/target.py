"""A server as a card names it, with what it leaves to the environment of the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from beam_batch.agents.cards.variables import UnsetVariable, expand
from beam_batch.agents.tools.processes import base_environment
from beam_batch.errors import OptionsError
from beam_batch.options.agents import ServerSpec
from beam_batch.redaction import names_secret, redactor


@dataclass(frozen=True)
class Target:
    """A server as it is started: with values that may be secrets, so it is never shown.

    Attributes:
        secrets: what came from the environment, or stands under the name of a secret; of longer
            texts also each line.
        redact: takes them out of a text.
    """

    spec: ServerSpec
    command: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    secrets: frozenset[str] = field(repr=False)
    redact: Callable[[str], str] = field(repr=False)


def resolve(spec: ServerSpec, env: Mapping[str, str]) -> Target:
    """Write the worker's environment into what is sent to a server.

    Raises:
        OptionsError: a variable is not set, and has no default.
    """
    found: set[str] = set()

    def filled(text: str, name: str = "") -> str:
        own: set[str] = set()
        try:
            value = expand(text, env, own.add)
        except UnsetVariable as unset:
            raise OptionsError(
                f"MCP server {spec.name!r} needs the environment variable {unset}, which is not "
                "set."
            ) from None
        if names_secret(name) and not own:  # written out, or the default of a variable
            own.add(value)
        found.update(own)
        return value

    own = {name: filled(value, name) for name, value in spec.env.items()}
    command = (filled(spec.command), *map(filled, spec.args)) if spec.command else ()
    url = filled(spec.url)
    headers = {name: filled(value, name) for name, value in spec.headers.items()}
    secrets = frozenset(line for value in found for line in (value, *value.splitlines()))
    return Target(
        spec=spec,
        command=command,
        env=base_environment(env) | own,
        url=url,
        headers=headers,
        secrets=secrets,
        redact=redactor(secrets),
    )
