"""Fields of other tools' cards: other names, those refused, those passed over."""

from __future__ import annotations

OTHER_NAMES = {
    "maxTokens": "max_tokens",
    "temp": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "maxIterations": "max_iterations",
    "parallelToolCalls": "parallel_tool_calls",
}

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
