"""The fields of cards: which each type takes, what they want, and which have no sense here."""

from __future__ import annotations

from typing import Any

from beam_batch.options.agents import SESSIONS
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


COMMON = {
    "type": NAME,
    "name": NAME,
    "description": TEXT,
    "instruction": TEXT,
    "default": FLAG,
    "tool_only": FLAG,
    "schema_version": wants("1", enum=[1, "1"]),
    "model": NAME,
    "use_history": FLAG,
    "human_input": FLAG,
}

LOOP = {
    "max_iterations": whole(1),
    "parallel_tool_calls": FLAG,
    "tool_timeout": SECONDS,
    "max_result": whole(1),
    "max_repeats": whole(1),
}
"""Limits of one agent on one message; `options.LoopSpec` says what each does."""

OTHER_NAMES = {
    "maxTokens": "max_tokens",
    "temp": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "maxIterations": "max_iterations",
    "parallelToolCalls": "parallel_tool_calls",
}
MODEL_OPTIONS = sorted({name for info in PROVIDERS.values() for name in info.options})

PARAMS = mapping(
    "a mapping of limits and options of the model",
    **LOOP,
    **dict.fromkeys(MODEL_OPTIONS, SCALAR),
    use_history=FLAG,
    structured_tool_policy=choice("auto"),
    tool_result_mode=choice("postprocess"),
)

_SESSION = {
    "headers": TEXT_BY_NAME,
    "env": TEXT_BY_NAME,
    "cwd": NAME,
    "transport": choice("stdio", "sse", "http"),
    "session": choice(*SESSIONS),
    "timeout": SECONDS,
    "start_timeout": SECONDS,
}
SERVER = mapping(
    "a mapping with a command or a url",
    command=NAME,
    args=wants("a list of texts", type="array", items=TEXT),
    url=NAME,
    **_SESSION,
)
SERVERS = wants("a mapping of servers by name", type="object", additionalProperties=SERVER)
CONNECT = wants(
    "a list of mappings with a target each",
    type="array",
    items=mapping("a mapping with a target", target=NAME, name=NAME, **_SESSION)
    | {"required": ["target"]},
)
VARIABLE = mapping(
    "a mapping with a name", name=NAME, default=SCALAR | {"type": [*SCALAR["type"], "null"]},
    description=TEXT,
) | {"required": ["name"]}  # fmt: skip

AGENT_FIELDS = {
    "request_params": PARAMS,
    "servers": SERVERS,
    "tools": wants(
        "a mapping of servers to lists of tools", type="object", additionalProperties=NAMES
    ),
    "mcp_connect": CONNECT,
    "skills": TEXTS,
    "agents": DISTINCT | {"minItems": 0},
    "function_tools": TEXTS,
    "variables": wants("a list of variables", type="array", items=VARIABLE),
    "shell": FLAG,
    "roots": TEXTS,
}
LISTS = {
    "servers": TEXTS | wants("a list of names of --mcp-config, or a mapping of servers"),
}

WORKFLOW_FIELDS: dict[str, dict[str, Schema]] = {
    "chain": {"sequence": NAMES, "cumulative": FLAG},
    "parallel": {"fan_out": NAMES, "fan_in": NAME, "include_request": FLAG},
    "router": {"agents": DISTINCT},
    "evaluator_optimizer": {
        "generator": NAME,
        "evaluator": NAME,
        "min_rating": choice("EXCELLENT", "GOOD", "FAIR", "POOR"),
        "max_refinements": whole(1),
        "refinement_instruction": TEXT,
    },
    "orchestrator": {
        "agents": DISTINCT,
        "plan_type": choice("full", "iterative"),
        "plan_iterations": whole(1),
    },
    "iterative_planner": {
        "agents": DISTINCT,
        "plan_type": choice("iterative"),
        "plan_iterations": wants(
            "a whole number of 1 or more, or -1 for no limit",
            type="integer", minimum=-1, **{"not": {"const": 0}},
        ),
    },
    "maker": {
        "worker": NAME,
        "k": whole(1),
        "max_samples": whole(1),
        "match_strategy": choice("exact", "normalized", "structured"),
        "red_flag_max_length": whole(1),
    },
}  # fmt: skip
REQUIRED: dict[str, tuple[str, ...]] = {
    "agent": (),
    "chain": ("sequence",),
    "parallel": ("fan_out",),
    "router": ("agents",),
    "evaluator_optimizer": ("generator", "evaluator"),
    "orchestrator": ("agents",),
    "iterative_planner": ("agents",),
    "maker": ("worker",),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "chain": {"cumulative": False},
    "parallel": {"include_request": True},
    "evaluator_optimizer": {"min_rating": "GOOD", "max_refinements": 3},
    "orchestrator": {"plan_iterations": 5},
    "iterative_planner": {"plan_iterations": -1},
    "maker": {"k": 3, "max_samples": 50, "match_strategy": "exact"},
}
"""What workflows are set to where their card says nothing."""

SHARED_FIELDS = ("request_params", "variables")
"""Fields of agents that workflows have as well."""


def schema_of(kind: str) -> dict[str, Schema]:
    """Return the fields that a type of card takes."""
    if kind == "agent":
        return COMMON | AGENT_FIELDS
    shared = {name: AGENT_FIELDS[name] for name in SHARED_FIELDS}
    return COMMON | shared | WORKFLOW_FIELDS[kind]


def types_with(field: str) -> list[str]:
    """Name the types of card that take a field."""
    return [kind for kind in REQUIRED if field in schema_of(kind)]


_HISTORY = "rows never share a history"
_MADE_UP = "no agent is made up while a row is answered; name children under agents"
_HOOKS = "hooks are not run; a function tool can hold that code"
REFUSED = {
    "api_key": "a card holds no key; keys are read from the worker's environment",
    "cwd": "commands run in the first folder of roots, or in one that is made for the row",
    "messages": "a row begins without earlier messages; put examples into the instruction",
    "history_source": _HISTORY,
    "history_merge_target": _HISTORY,
    "tool_hooks": _HOOKS,
    "lifecycle_hooks": _HOOKS,
    "commands": "commands are for somebody at a prompt, and a batch has nobody there",
    "subagents": _MADE_UP,
    "subagent_model": _MADE_UP,
    "harness_tools": _MADE_UP,
    "child_timeout_sec": "--row-deadline limits how long all agents of a row may take",
    "tool_input_schema": "a child is called with one text",
    "url": "agents elsewhere (a2a) cannot be called",
    "request_params.model": "the model is a field of the card itself",
    "request_params.systemPrompt": "the instruction is a field of the card itself",
    "request_params.response_format": "--schema says what shape a result has",
    "request_params.streaming_timeout": "--stall-timeout is for the whole run",
    "request_params.stopSequences": "stop sequences are not sent",
}
"""Fields of other tools' cards that would change answers, and cannot be kept here."""

IGNORED = {
    "resources": "of servers, only tools are offered",
    "prompts": "of servers, only tools are offered",
    "max_parallel": "request_params.parallel_tool_calls says whether calls run side by side",
    "max_display_instances": "nothing is displayed",
    "trim_tool_history": "a row keeps no history",
    "save_trajectory": "--export-traces writes conversations",
}
"""Fields of other tools' cards that are passed over, with a note."""
