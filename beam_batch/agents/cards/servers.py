"""MCP servers as cards name them: inline, as targets to connect to, or by --mcp-config."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from beam_batch import jsonio
from beam_batch.agents.cards.addresses import is_public
from beam_batch.agents.cards.checks import Card, check_value, nearest
from beam_batch.agents.cards.fields import SERVER
from beam_batch.agents.cards.variables import UnsetVariable, expand
from beam_batch.agents.tools.names import NAME_RULE, is_usable
from beam_batch.errors import InvalidJSON, OptionsError
from beam_batch.options.agents import ServerSpec
from beam_batch.redaction import names_secret

_OTHER_TRANSPORTS = {"streamable-http": "http", "streamable_http": "http", "streamablehttp": "http"}
_OF_EDITORS = ("description", "disabled", "autoApprove", "alwaysAllow", "gallery")
"""What editors keep in their lists of servers, and nobody needs here."""
_SHELL_DEFAULT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*):-")
_FOREIGN = re.compile(r"\$\{(env|input):([^}]*)\}")


class McpConfig:
    """The servers of ``--mcp-config``: ``{"mcpServers": {name: {...}}}``, JSON or YAML.

    Raises:
        OptionsError: the file cannot be read, or lists no servers.
    """

    def __init__(self, path: str, env: Mapping[str, str]) -> None:
        self.path = Path(path)
        found = _read(self.path)
        nested = found.get("mcp", {})
        servers = found.get("mcpServers", found.get("servers"))
        if servers is None and isinstance(nested, dict):
            servers = nested.get("servers")
        if not isinstance(servers, dict):
            raise self.error("it has no mapping mcpServers.")
        self._servers, self._env = servers, env

    def error(self, message: str, *path: str | int) -> OptionsError:
        """Return an error that says where it is; the message names the field."""
        return OptionsError(f"--mcp-config {self.path}: {message}")

    def fields(self, name: str) -> dict[str, Any]:
        """Return the fields of one server as a card would write them.

        Raises:
            OptionsError: it is not there, or switched off.
        """
        if name not in self._servers:
            raise self.error(f"it lists no server {name}{nearest(name, self._servers)}")
        found = self._servers[name]
        if not isinstance(found, dict):
            raise self.error(f"{name} wants a mapping; got {found!r}.")
        if found.get("disabled") is True:
            raise self.error(f"{name} is disabled.")
        fields = {key: value for key, value in found.items() if key not in _OF_EDITORS}
        transport = str(fields.pop("type", fields.pop("transport", ""))).lower()
        if transport:
            fields["transport"] = _OTHER_TRANSPORTS.get(transport, transport)
        return {key: self._expanded(name, key, value) for key, value in fields.items()}

    def _expanded(self, server: str, key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._expanded(server, key, item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._expanded(server, key, item) for item in value]
        if not isinstance(value, str):
            return value
        foreign = _FOREIGN.search(value)
        if foreign:
            raise self.error(f"{server}.{key}: write ${{{foreign[2]}}} for {foreign[0]}.")
        value = _SHELL_DEFAULT.sub(r"${\1:", value)
        if key != "cwd":
            return value
        try:
            return expand(value, self._env)
        except UnsetVariable as unset:
            raise self.error(f"{server}.{key} names ${{{unset}}}, which is not set.") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise OptionsError(f"--mcp-config {path}: cannot be read ({reason}).") from None
    try:
        found = jsonio.loads(text) if path.suffix == ".json" else _from_yaml(path, text)
    except InvalidJSON as error:
        raise OptionsError(f"--mcp-config {path}: not JSON ({error}).") from None
    return found if isinstance(found, dict) else {}


def _from_yaml(path: Path, text: str) -> Any:
    from beam_batch.agents.documents import BadYaml, read_yaml

    try:
        return read_yaml(text).value
    except BadYaml as error:
        raise OptionsError(f"--mcp-config {path}:{error.line}: {error}.") from None


def servers_of(card: Card, config: McpConfig | None) -> tuple[ServerSpec, ...]:
    """Make the servers of a checked card.

    Raises:
        OptionsError: one is not whole, or may not be used by a card from elsewhere.
    """
    found: dict[str, ServerSpec] = {}
    for name, fields, folder, at in _named(card, config):
        if name in found:
            raise card.error(f"there are two servers named {name}.", *at)
        found[name] = _server(card, name, fields, folder, at)
    for name, patterns in card.fields.get("tools", {}).items():
        if name not in found:
            raise card.error(
                f"tools names {name}, which is no server of this card{nearest(name, found)}",
                "tools", name,
            )  # fmt: skip
        found[name] = dataclasses.replace(found[name], allowed=tuple(patterns))
    return tuple(found.values())


_Named = tuple[str, dict[str, Any], Path, tuple[str | int, ...]]


def _named(card: Card, config: McpConfig | None) -> list[_Named]:
    """List what a card says of servers: name, fields, where paths begin, place in the card."""
    servers = card.fields.get("servers", {})
    found: list[_Named] = []
    if isinstance(servers, list):
        for place, name in enumerate(servers):
            if config is None:
                raise card.error(
                    f"server {name} is named only; say what it is here, or in a file for "
                    "--mcp-config.",
                    "servers", place,
                )  # fmt: skip
            fields = config.fields(name)
            check_value(config, fields, SERVER, (name,))
            found.append((name, fields, config.path.absolute().parent, ("servers", place)))
    else:
        for name, fields in servers.items():
            _check_place(card, name, fields, "servers", name)
            found.append((name, fields, card.folder, ("servers", name)))
    for place, fields in enumerate(card.fields.get("mcp_connect", ())):
        at = ("mcp_connect", place)
        name, whole = _name_of(fields), _target_fields(card, fields, at)
        _check_place(card, name, whole, *at)
        found.append((name, whole, card.folder, at))
    return found


def _check_place(card: Card, name: str, fields: dict[str, Any], *at: str | int) -> None:
    """Refuse what is near this machine where somebody else wrote the card."""
    url = fields.get("url")
    if url and not card.trusted and not is_public(url):
        raise card.error(
            f"server {name}: {url!r} is no public address; a card from elsewhere may name one of "
            "this machine or its network only with --trust-card.",
            *at,
        )


def _target_fields(card: Card, fields: dict[str, Any], at: tuple[str | int, ...]) -> dict[str, Any]:
    """Write a target as the url, or the command and its arguments, that it stands for."""
    target = fields["target"]
    rest = {key: value for key, value in fields.items() if key not in ("target", "name")}
    if target.startswith(("http://", "https://")):
        return rest | {"url": target}
    try:
        words = shlex.split(target)
    except ValueError as error:
        raise card.error(f"target {target!r} is no command line ({error}).", *at) from None
    if not words:
        raise card.error("target wants a command line or a URL; got white space.", *at)
    return rest | {"command": words[0], "args": words[1:]}


def _name_of(fields: dict[str, Any]) -> str:
    """Return the name of a server to connect to: its own, its host's or its command's."""
    target: str = fields["target"]
    plain = urlsplit(target).hostname if "://" in target else Path((target.split() or [""])[0]).name
    return fields.get("name") or re.sub(r"[^A-Za-z0-9]+", "_", plain or "").strip("_") or "server"


def _server(
    card: Card, name: str, fields: dict[str, Any], folder: Path, at: tuple[str | int, ...]
) -> ServerSpec:
    if not is_usable(name):
        raise card.error(f"server {name!r}: its name {NAME_RULE}.", *at)
    command, url = fields.get("command", ""), fields.get("url", "")
    if bool(command) == bool(url):
        raise card.error(f"server {name} needs either a command or a url.", *at)
    transport = fields.get("transport", "stdio" if command else "http")
    if (transport == "stdio") != bool(command):
        what = "a command" if command else "a url"
        raise card.error(f"server {name} has {what}, and transport {transport} has none.", *at)
    if command and not card.trusted:
        raise card.error(
            f"server {name} is a command; a card from elsewhere may run one only with "
            "--trust-card.",
            *at,
        )
    _check_address(card, name, fields, at)
    specs = {key: value for key, value in fields.items() if key not in ("args", "cwd")}
    cwd = fields.get("cwd")
    return ServerSpec(
        **(specs | {"name": name, "transport": transport}),
        args=tuple(fields.get("args", ())),
        cwd=str((folder / cwd).resolve()) if cwd else None,
    )


def _check_address(
    card: Card, name: str, fields: dict[str, Any], at: tuple[str | int, ...]
) -> None:
    """Refuse what does not go together, and secrets that are written out."""
    url = fields.get("url", "")
    for key in ("args", "env", "cwd"):
        if url and key in fields:
            raise card.error(f"server {name} has a url; {key} is for commands.", *at)
    if not url and "headers" in fields:
        raise card.error(f"server {name} is a command; headers are for URLs.", *at)
    if url and not url.startswith(("http://", "https://", "${")):
        raise card.error(f"server {name}: {url!r} is no http or https URL.", *at)
    if "@" in url.split("://")[-1].split("/")[0]:
        raise card.error(f"server {name}: its url must not hold a user name or password.", *at)
    for kind in ("headers", "env"):
        for key, value in fields.get(kind, {}).items():
            if names_secret(key) and value and "${" not in value:
                raise card.error(
                    f"server {name}: {kind} {key} is a secret; write ${{NAME}}, which is taken "
                    "from the worker's environment.",
                    *at,
                )
