"""What a card leaves to the environment of the worker: `${NAME}` and `${NAME:default}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from beam_batch.agents.tools.processes import base_environment
from beam_batch.errors import OptionsError
from beam_batch.options.agents import ServerSpec
from beam_batch.redaction import redact, secret_of

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}")


@dataclass(frozen=True)
class Target:
    """A server as it is started: with values that may be secrets, so it is never shown."""

    spec: ServerSpec
    command: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    def redact(self, text: str) -> str:
        """Take out what came from the environment."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return redact(text, None)


def resolve(spec: ServerSpec, env: Mapping[str, str]) -> Target:
    """Write the worker's environment into what is sent to a server.

    Raises:
        OptionsError: a variable is not set, and has no default.
    """
    secrets: list[str] = []

    def filled(text: str) -> str:
        return _VARIABLE.sub(value_of, text)

    def value_of(match: re.Match[str]) -> str:
        name, default = match.groups()
        value = env.get(name, default)
        if value is None:
            raise OptionsError(
                f"MCP server {spec.name!r} needs the environment variable {name}, which is not set."
            )
        if name in env and secret_of(value):
            secrets.append(value)
        return value

    own = {name: filled(value) for name, value in spec.env.items()}
    command = (filled(spec.command), *map(filled, spec.args)) if spec.command else ()
    url = filled(spec.url)
    headers = {name: filled(value) for name, value in spec.headers.items()}
    return Target(
        spec=spec,
        command=command,
        env=base_environment(env) | own,
        url=url,
        headers=headers,
        secrets=tuple(sorted(set(secrets), key=len, reverse=True)),
    )
