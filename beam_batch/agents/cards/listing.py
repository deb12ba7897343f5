"""The fields of cards as a page of the docs: `python -m beam_batch.agents.cards.listing`."""

from __future__ import annotations

from collections.abc import Container, Mapping

from beam_batch.agents.cards.fields import COMMON, LOOP, PLACE, SESSION, TYPES, CardType, Schema
from beam_batch.agents.cards.foreign import IGNORED, OTHER_NAMES, REFUSED
from beam_batch.options.agents import AGENT

_INTRO = """\
# Agent cards

Written by `make docs` from the code. A card is a Markdown file with YAML between `---` and `---`,
whose body is the instruction, or a `.yaml` file. `beam-batch card check FILE...` says in plain
words what cards hold, or what is wrong and in which line. [README.md](../README.md#agents) says how
a run uses cards."""
_PARAMS = """\
How far an agent may go on one row, and any option that its model takes
([providers.md](providers.md)), such as `max_tokens`. Options in a model string come before these;
`echo`, which stands in for any model, passes over those that it does not take."""
_SERVERS = """\
`servers: {name: {command: ..., args: [...]}}` or `{name: {url: ...}}`; `servers: [name]` names
servers of `--mcp-config`, a file with `{"mcpServers": {...}}`, JSON or YAML. A target of
`mcp_connect` may have the same fields, but for the first three."""
_ENVIRONMENT = """\
## The environment

`${NAME}` and `${NAME:default}` stand for variables of the environment, `$${` for `${`. In `env`,
`headers`, `args`, `url` and `target` of servers the worker puts them in, so that no secret is in a
plan; a secret that is written out under `Authorization`, `..._TOKEN` and the like is refused.
Elsewhere they are put in at the start."""


def markdown() -> str:
    """Write what each type of card takes, and what is not taken of other tools' cards."""
    workflows = [kind for kind in TYPES if kind != AGENT]
    parts = [
        _INTRO,
        f"## All cards\n\n{_table(COMMON)}",
        f"### request_params\n\n{_PARAMS}\n\n{_table(LOOP)}",
        f"## Agents\n\n{_of_type(TYPES[AGENT])}",
        f"### MCP servers\n\n{_SERVERS}\n\n{_table(PLACE | SESSION)}",
        "## Workflows\n\nThe own model is that of the workflow's card, else that of `--model`.",
        *(f"### {kind}\n\n{_of_type(TYPES[kind])}" for kind in workflows),
        _ENVIRONMENT,
        "## Cards of other tools",
        "Refused, since they would change answers:",
        _reasons(REFUSED),
        "Passed over, with a note:",
        _reasons(IGNORED),
        "Other names: "
        + ", ".join(f"`{other}` is `{name}`" for other, name in OTHER_NAMES.items())
        + "; type `smart` is `agent`.",
    ]
    return "\n\n".join(parts) + "\n"


def _of_type(kind: CardType) -> str:
    own = kind.members | kind.settings | kind.others
    says = kind.says[0].upper() + kind.says[1:]
    required = kind.members if kind is not TYPES[AGENT] else ()
    return f"{says}.\n\n{_table(own, required)}"


def _table(fields: Mapping[str, Schema], required: Container[str] = ()) -> str:
    lines = ["| field | takes | default | what it is for |", "|---|---|---|---|"]
    for name, field in fields.items():
        default = _shown(field["default"]) if "default" in field else ""
        default = "(required)" if name in required else default
        lines.append(f"| `{name}` | {field['description']} | {default} | {field['title']} |")
    return "\n".join(lines)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)


def _reasons(fields: Mapping[str, str]) -> str:
    return "\n".join(f"- `{name}`: {reason}" for name, reason in fields.items())


if __name__ == "__main__":
    print(markdown(), end="")
