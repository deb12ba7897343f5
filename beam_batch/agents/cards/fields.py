"""The fields of cards: which each type takes, what they want, and what they are for."""

from __future__ import annotations

from typing import Any, NamedTuple

from beam_batch.options.agents import (
    AGENT,
    MOST_ROUNDS,
    RATINGS,
    SESSIONS,
    STRATEGIES,
    LoopSpec,
    ServerSpec,
)
from beam_batch.providers import PROVIDERS

Schema = dict[str, Any]


def wants(words: str, **schema: Any) -> Schema:
    """Return a JSON Schema with the words that a message says of it."""
    return {"description": words, **schema}


def whole(least: int) -> Schema:
    """Return the schema of a whole number."""
    return wants(f"a whole number of {least} or more", type="integer", minimum=least)


def mapping(words: str, **values: Schema) -> Schema:
    """Return the schema of a mapping with these keys and no others."""
    return wants(words, type="object", properties=values, additionalProperties=False)


TEXT = wants("text", type="string")
NAME = wants("a name", type="string", minLength=1)
FLAG = wants("true or false", type="boolean")
SECONDS = wants("a number of seconds above 0", type="number", exclusiveMinimum=0)
SCALAR = wants("text, a number or true or false", type=["string", "number", "boolean"])
NAMES = wants("a list of names", type="array", items=NAME, minItems=1)
DISTINCT = NAMES | wants("a list of names, none of them twice", uniqueItems=True)
TEXTS = wants("a list of texts", type="array", items=NAME)
TEXT_BY_NAME = wants("a mapping of names to texts", type="object", additionalProperties=TEXT)


def choice(*values: str) -> Schema:
    """Return the schema of one word out of some."""
    return wants(f"one of {', '.join(values)}", enum=list(values))


def means(schema: Schema, words: str, **more: Any) -> Schema:
    """Return a field: what it wants, what it is for in words, and its `default`."""
    return schema | {"title": words, **more}


_LIMITS = {
    "max_iterations": means(whole(1), "model calls for one message"),
    "parallel_tool_calls": means(FLAG, "whether tool calls of one reply run at the same time"),
    "tool_timeout": means(
        SECONDS, "for one call of a function or a command, or to read files and skills"
    ),
    "max_result": means(whole(1), "characters of a tool's result that the model gets to see"),
    "max_repeats": means(whole(1), "times that the same call may be made and say the same"),
}
LOOP = {name: schema | {"default": getattr(LoopSpec(), name)} for name, schema in _LIMITS.items()}
"""Limits of one agent on one message."""
MODEL_OPTIONS = sorted({name for info in PROVIDERS.values() for name in info.options})

PARAMS = mapping(
    "a mapping of limits and options of the model",
    **LOOP,
    **dict.fromkeys(MODEL_OPTIONS, SCALAR),
    use_history=FLAG,
    structured_tool_policy=choice("auto"),
    tool_result_mode=choice("postprocess"),
)

_SERVER = ServerSpec(name="")
SESSION = {
    "headers": means(TEXT_BY_NAME, "of every request to a URL"),
    "env": means(TEXT_BY_NAME, "what a command sees beside PATH and HOME"),
    "cwd": means(NAME, "the folder in which a command runs"),
    "transport": means(
        choice("stdio", "sse", "http"), "how they speak: stdio is for commands, the others for URLs"
    ),
    "session": means(
        choice(*SESSIONS),
        "one for all rows of a worker, or one for each row",
        default=_SERVER.session,
    ),
    "timeout": means(SECONDS, "for one tool call", default=_SERVER.timeout),
    "start_timeout": means(SECONDS, "for its start", default=_SERVER.start_timeout),
}
PLACE = {
    "command": means(NAME, "a program of this machine"),
    "args": means(wants("a list of texts", type="array", items=TEXT), "its arguments"),
    "url": means(NAME, "an address, instead of a command"),
}
SERVER = mapping("a mapping with a command or a url", **PLACE, **SESSION)
SERVERS = wants("a mapping of servers by name", type="object", additionalProperties=SERVER)
CONNECT = wants(
    "a list of mappings with a target each",
    type="array",
    items=mapping("a mapping with a target", target=NAME, name=NAME, **SESSION)
    | {"required": ["target"]},
)
VARIABLE = mapping(
    "a mapping with a name", name=NAME, default=SCALAR | {"type": [*SCALAR["type"], "null"]},
    description=TEXT,
) | {"required": ["name"]}  # fmt: skip

COMMON = {
    "type": means(NAME, "agent, or one of the workflows below", default=AGENT),
    "name": means(NAME, "what others call it; without one, the name of the file"),
    "description": means(TEXT, "what it is for; agents that may choose or ask it read that"),
    "instruction": means(TEXT, "what it is to do; in Markdown, what stands below the fields"),
    "model": means(NAME, "a model string; without one, that of `--model`"),
    "request_params": means(PARAMS, "see below"),
    "variables": means(
        wants("a list of variables", type="array", items=VARIABLE),
        "what `{{name}}` stands for: a mapping of names to defaults, or a list of mappings with "
        "`name`, `default`, `description`",
    ),
    "default": means(FLAG, "whether it answers rows, where several cards could", default=False),
    "tool_only": means(FLAG, "whether it is for other agents to use only", default=False),
    "schema_version": means(wants("1", enum=[1, "1"]), "of this form of cards"),
    "use_history": means(FLAG, "has no effect: rows never share a history"),
    "human_input": means(FLAG, "false: a batch has nobody to ask"),
}
"""What all cards may say."""
LISTS = {
    "servers": TEXTS | wants("a list of names of --mcp-config, or a mapping of servers"),
}
"""What fields want that may be lists as well."""


class CardType(NamedTuple):
    """What a type of card takes beside the fields of all.

    Attributes:
        says: what it does, in words.
        members: fields that name its members, in the order of `AgentSpec.agents`; all are required,
            but those of an agent, to which they are children that it may ask.
        settings: fields that become `AgentSpec.settings`.
        others: all else.
        thinks: whether it asks a model itself; workflows that do not only have members answer.
    """

    says: str
    members: dict[str, Schema]
    settings: dict[str, Schema] = {}  # noqa: RUF012
    others: dict[str, Schema] = {}  # noqa: RUF012
    thinks: bool = False

    @property
    def fields(self) -> dict[str, Schema]:
        """All fields, those of all cards included."""
        return COMMON | self.members | self.settings | self.others


TYPES: dict[str, CardType] = {
    AGENT: CardType(
        "a model with tools",
        {"agents": means(DISTINCT | {"minItems": 0}, "agents that it may ask, as tools")},
        others={
            "servers": means(SERVERS, "MCP servers, see below; or a list of names of --mcp-config"),
            "mcp_connect": means(CONNECT, "the same, with `target`: a command line or a URL"),
            "tools": means(
                wants(
                    "a mapping of servers to lists of tools",
                    type="object",
                    additionalProperties=NAMES,
                ),
                "which tools of a server may be used, such as `{time: [get_*]}`; without it, all",
            ),
            "function_tools": means(
                TEXTS, "`file.py:function`, beside the card, or `package.module:function`"
            ),
            "skills": means(TEXTS, "folders with a `SKILL.md`, or with such folders"),
            "roots": means(TEXTS, "folders whose files it may read"),
            "shell": means(
                FLAG, "whether it may run commands, where `--shell` allows it", default=False
            ),
        },
        thinks=True,
    ),
    "chain": CardType(
        "one member after another; the last one's answer is the result",
        {"sequence": means(NAMES, "who is asked, in this order")},
        {"cumulative": means(FLAG, "whether each is told all answers so far", default=False)},
    ),
    "parallel": CardType(
        "all members at once",
        {"fan_out": means(NAMES, "who is asked")},
        {
            "fan_in": means(
                NAME, "who makes one answer of theirs; without one, they stand side by side"
            ),
            "include_request": means(FLAG, "whether fan_in is told the request", default=True),
        },
    ),
    "router": CardType(
        "one member, as the own model chooses",
        {"agents": means(DISTINCT, "who may be chosen")},
        thinks=True,
    ),
    "evaluator_optimizer": CardType(
        "one answers, one judges, until the answer is good enough",
        {
            "generator": means(NAME, "who answers"),
            "evaluator": means(NAME, "who judges"),
        },
        {
            "min_rating": means(choice(*reversed(RATINGS)), "what is good enough", default="GOOD"),
            "max_refinements": means(whole(1), "times an answer is made better", default=3),
            "refinement_instruction": means(TEXT, "how an answer is to be made better"),
        },
    ),
    "orchestrator": CardType(
        "the own model makes a whole plan, members carry it out",
        {"agents": means(DISTINCT, "who may be given tasks")},
        {"plan_iterations": means(whole(1), "times a plan is made or made longer", default=5)},
        {
            "plan_type": means(
                choice("full", "iterative"),
                "iterative makes it an iterative_planner",
                default="full",
            )
        },
        thinks=True,
    ),
    "iterative_planner": CardType(
        "the own model plans one step at a time, members carry it out",
        {"agents": means(DISTINCT, "who may be given tasks")},
        {
            "plan_iterations": means(
                wants(
                    "a whole number of 1 or more, or -1 for no limit",
                    type="integer", minimum=-1, **{"not": {"const": 0}},
                ),
                f"steps that are planned; without a limit, {MOST_ROUNDS} at most",
                default=-1,
            )
        },
        {"plan_type": means(choice("iterative"), "what it is in any case")},
        thinks=True,
    ),
    "maker": CardType(
        "samples of one member, until one answer is `k` votes ahead",
        {"worker": means(NAME, "who is asked")},
        {
            "k": means(whole(1), "votes that the result has more than any other", default=3),
            "max_samples": means(whole(1), "answers at most", default=50),
            "match_strategy": means(
                choice(*STRATEGIES), "when two answers say the same", default="exact"
            ),
            "red_flag_max_length": means(whole(1), "characters; what is longer does not count"),
        },
    ),
}  # fmt: skip
"""The types of cards."""


def settings_of(kind: str) -> dict[str, Any]:
    """Return what a workflow is set to where nobody says otherwise.

    >>> settings_of("chain")
    {'cumulative': False}
    """
    settings = TYPES[kind].settings
    return {name: field["default"] for name, field in settings.items() if "default" in field}


def types_with(field: str) -> list[str]:
    """Name the types of card that take a field."""
    return [kind for kind, found in TYPES.items() if field in found.fields]
