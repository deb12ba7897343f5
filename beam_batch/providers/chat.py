"""Chat Completions, as OpenAI defines it and as compatible servers speak it.

https://platform.openai.com/docs/api-reference/chat; extra sampling options as in llama.cpp's and
vLLM's server documentation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from beam_batch.errors import (
    ConnectionLost,
    ContentFiltered,
    EmptyReply,
    InvalidResponse,
    Refused,
    RowError,
    ServerError,
    Truncated,
)
from beam_batch.options import ModelSpec, SchemaSpec
from beam_batch.providers.base import (
    NO_TOOLS,
    Reply,
    Request,
    ToolCall,
    Tools,
    Turn,
    Usage,
    annotated,
    details,
    images_in,
    int_or_none,
    unique_citations,
)
from beam_batch.records import Content

PATH = "/chat/completions"
_SAME_NAME = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed",
    "verbosity",
)  # fmt: skip


class ChatProvider:
    """Requests and replies of Chat Completions."""

    def __init__(
        self, model: ModelSpec, schema: SchemaSpec | None, tools: Tools = NO_TOOLS
    ) -> None:
        self.wraps = model.provider == "openai"
        self.defers_schema = model.provider != "openai"
        self._stream = model.options.get("transport") == "sse"
        self._tools = bool(tools.specs)
        self._fixed = _fixed(model, schema)
        if self._tools:
            _add_tools(self._fixed, tools)

    def to_request(
        self, instruction: str, prompt: Content, history: Sequence[Turn] = ()
    ) -> Request:
        """Build the request of one row; the stable instruction stands first."""
        messages: list[dict[str, Any]] = [{"role": "user", "content": _content(prompt)}]
        if instruction:
            messages.insert(0, {"role": "system", "content": instruction})
        for turn in history:
            messages += _messages(turn)
        body = {**self._fixed, "messages": messages}
        return Request(PATH, body, self._stream, images_in(prompt))

    def to_reply(self, body: Any) -> Reply:
        """Read a completion object."""
        if isinstance(body, dict) and body.get("error"):
            raise ServerError(f"the body reports an error: {body['error']!s:.200}")
        choice = _first_choice(body)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise InvalidResponse("the first choice has no message")
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            raise InvalidResponse(f"the content is not text but {type(content).__name__}")
        text, reason = content or "", str(choice.get("finish_reason") or "")
        usage = _usage(body.get("usage"))
        calls = _calls(message.get("tool_calls")) if self._tools else ()
        error = _problem(text, reason, message.get("refusal"), calls)
        if error is not None:
            notes = {"usage": usage, "model": body.get("model"), "request_id": body.get("id")}
            raise annotated(error, finish_reason=reason, **notes)
        tier = body.get("service_tier")
        raw = _to_repeat(message, calls) if calls else None
        cited = unique_citations(_cited(message))
        return Reply(
            text, reason, body.get("model"), body.get("id"), usage, tier, calls, raw, cited
        )

    def new_stream(self) -> _Stream:
        """Return a reader for one stream."""
        return _Stream()


def _content(prompt: Content) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": part.as_url}}
        for part in prompt
    ]


def _fixed(model: ModelSpec, schema: SchemaSpec | None) -> dict[str, Any]:
    options, is_openai = model.options, model.provider == "openai"
    body: dict[str, Any] = {"model": model.model}
    if options.get("transport") == "sse":
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if "max_tokens" in options:
        body["max_completion_tokens" if is_openai else "max_tokens"] = options["max_tokens"]
    if "reasoning" in options:
        body["reasoning_effort"] = options["reasoning"]
    if "service_tier" in options:
        tier = options["service_tier"]
        body["service_tier"] = "priority" if tier == "fast" else tier
    if "repetition_penalty" in options:
        name = "repeat_penalty" if model.provider == "local" else "repetition_penalty"
        body[name] = options["repetition_penalty"]
    body |= {name: options[name] for name in _SAME_NAME if name in options}
    if schema is not None:
        body["response_format"] = _response_format(schema, is_openai)
    return body


def _add_tools(body: dict[str, Any], tools: Tools) -> None:
    body["tools"] = [{"type": "function", "function": spec._asdict()} for spec in tools.specs]
    if not tools.parallel:
        body["parallel_tool_calls"] = False


def _messages(turn: Turn) -> list[dict[str, Any]]:
    """Write a turn as messages."""
    said = turn.reply.raw or {"role": "assistant", "content": turn.reply.text}
    told = [
        {"role": "tool", "tool_call_id": result.call.id, "content": result.text}
        for result in turn.results
    ]
    return [said, *told, *([{"role": "user", "content": turn.message}] if turn.message else ())]


def _calls(found: Any) -> tuple[ToolCall, ...]:
    """Read the tool calls of a message; some servers give them no id."""
    calls = []
    for place, item in enumerate(found if isinstance(found, list) else ()):
        function = item.get("function") if isinstance(item, dict) else None
        if not isinstance(function, dict):
            raise InvalidResponse(f"a tool call has no function: {item!s:.120}")
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments)
        name = str(function.get("name"))
        calls.append(ToolCall(str(item.get("id") or f"call_{place}"), name, arguments))
    return tuple(calls)


_REASONING = ("reasoning_content", "reasoning", "reasoning_details")
"""What DeepSeek and OpenRouter want to see again where their tools have been called."""


def _to_repeat(message: dict[str, Any], calls: tuple[ToolCall, ...]) -> dict[str, Any]:
    wanted = [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in calls
    ]
    hidden = {name: message[name] for name in _REASONING if message.get(name)}
    content = message.get("content") or None
    return {"role": "assistant", "content": content, "tool_calls": wanted, **hidden}


def _cited(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the URLs that a search model or OpenRouter cites."""
    notes = message.get("annotations")
    found = [note for note in notes if isinstance(note, dict)] if isinstance(notes, list) else []
    return [note["url_citation"] for note in found if isinstance(note.get("url_citation"), dict)]


def _response_format(schema: SchemaSpec, is_openai: bool) -> dict[str, Any]:
    if is_openai:
        from beam_batch.prompts.schema import openai_schema

        wire, strict = openai_schema(schema)
    else:
        wire, strict = json.loads(schema.json), True
    return {
        "type": "json_schema",
        "json_schema": {"name": schema.name, "schema": wire, "strict": strict},
    }


def _first_choice(body: Any) -> dict[str, Any]:
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise InvalidResponse(f"the body has no choices: {body!s:.120}")
    choice: dict[str, Any] = choices[0]
    return choice


def _problem(text: str, reason: str, refusal: Any, calls: tuple[ToolCall, ...]) -> RowError | None:
    """Return what makes a completion less than a complete answer, or None."""
    if refusal:
        return Refused(f"the model refused: {refusal!s:.500}", reply=str(refusal))
    if reason == "length":
        return Truncated("the answer was cut by the token limit", reply=text or None)
    if reason == "content_filter":
        return ContentFiltered("the provider's content filter cut the answer", reply=text or None)
    if not text.strip() and not calls:
        return EmptyReply("the answer has no text")
    if reason not in ("stop", "eos", "end_turn") and not calls:
        return InvalidResponse(f"the answer ended with finish_reason {reason!r}")
    return None


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    before = details(usage, "prompt_tokens_details")
    after = details(usage, "completion_tokens_details")
    return Usage(
        int_or_none(usage.get("prompt_tokens")),
        int_or_none(usage.get("completion_tokens")),
        int_or_none(usage.get("total_tokens")),
        int_or_none(before.get("cached_tokens")),
        int_or_none(after.get("reasoning_tokens")),
        int_or_none(before.get("cache_write_tokens")),
    )


class _Stream:
    """Adds deltas up to the completion they stand for."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._begun = False
        self._refusal: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._rest: dict[str, Any] = {}
        self._reason: str | None = None
        self._body: dict[str, Any] = {}

    def feed(self, event: dict[str, Any]) -> bool:
        for name in ("id", "model", "usage", "service_tier", "error"):
            if event.get(name):
                self._body[name] = event[name]
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            self._text.append(delta.get("content") or "")
            self._begun = self._begun or bool(self._text[-1])
            self._refusal.append(delta.get("refusal") or "")
            for part in delta.get("tool_calls") or ():
                self._add_call(part)
            for name in (*_REASONING, "annotations"):
                if delta.get(name):
                    self._rest[name] = (
                        self._rest[name] + delta[name] if name in self._rest else delta[name]
                    )
            self._reason = choice.get("finish_reason") or self._reason
        return self._begun

    def _add_call(self, part: dict[str, Any]) -> None:
        """Add a piece of a call: its id and name come once, its arguments bit by bit."""
        index = part.get("index")
        if index is None:  # some servers say with an id that a new one begins
            index = len(self._calls) - (0 if part.get("id") else 1)
        call = self._calls.setdefault(max(0, index), {"function": {"arguments": ""}})
        call["id"] = part.get("id") or call.get("id")
        function = part.get("function") or {}
        call["function"]["name"] = function.get("name") or call["function"].get("name")
        call["function"]["arguments"] += function.get("arguments") or ""

    def result(self) -> Any:
        if self._reason is None and "error" not in self._body:
            raise ConnectionLost("the stream ended before the answer was complete")
        message = {
            "content": "".join(self._text),
            "refusal": "".join(self._refusal) or None,
            "tool_calls": [self._calls[index] for index in sorted(self._calls)],
            **self._rest,
        }
        return self._body | {"choices": [{"message": message, "finish_reason": self._reason}]}
