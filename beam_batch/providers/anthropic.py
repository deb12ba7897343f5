"""The Anthropic Messages API (https://platform.claude.com/docs/en/api/messages)."""

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
    images_in,
    int_or_none,
    unique_citations,
)
from beam_batch.records import Content, Image

PATH = "/messages"
DEFAULT_MAX_TOKENS = 8192
"""The API requires a limit of output tokens; this one suits every current model."""
_TIERS = {"default": "standard_only", "auto": "auto", "priority": "auto", "fast": "auto"}


class AnthropicProvider:
    """Requests and replies of the Messages API."""

    def __init__(
        self, model: ModelSpec, schema: SchemaSpec | None, tools: Tools = NO_TOOLS
    ) -> None:
        self.wraps = False
        self.defers_schema = False
        self._stream = model.options.get("transport") == "sse"
        self._tools = bool(tools.specs)
        self._fixed = _fixed(model, schema)
        if self._tools:
            _add_tools(self._fixed, tools)

    def to_request(
        self, instruction: str, prompt: Content, history: Sequence[Turn] = ()
    ) -> Request:
        """Build the request of one row; what is the same for all rows ends with a cache mark."""
        mark = {"cache_control": {"type": "ephemeral"}}
        told = {"system": [{"type": "text", "text": instruction, **mark}]} if instruction else {}
        first = {"role": "user", "content": _content(prompt)}
        messages = [first, *(message for turn in history for message in _messages(turn))]
        body = {**self._fixed, **told, "messages": messages}
        return Request(PATH, body, self._stream, images_in(prompt))

    def to_reply(self, body: Any) -> Reply:
        """Read a message object."""
        if isinstance(body, dict) and body.get("type") == "error":
            raise ServerError(f"the body reports an error: {body.get('error')!s:.200}")
        if not isinstance(body, dict) or not isinstance(body.get("content"), list):
            raise InvalidResponse(f"the body is no message: {body!s:.120}")
        text = "".join(str(part["text"]) for part in body["content"] if part.get("type") == "text")
        reason, usage = str(body.get("stop_reason") or ""), _usage(body.get("usage"))
        calls = _calls(body["content"]) if self._tools else ()
        error = _problem(text, reason, calls)
        if error is not None:
            notes = {"usage": usage, "model": body.get("model"), "request_id": body.get("id")}
            raise annotated(error, finish_reason=reason, **notes)
        counted = body.get("usage") or {}
        return Reply(
            text,
            reason,
            body.get("model"),
            body.get("id"),
            usage,
            counted.get("service_tier"),
            calls,
            _to_repeat(body["content"]) if calls else None,
            unique_citations(c for part in body["content"] for c in part.get("citations") or ()),
            (counted.get("server_tool_use") or {}).get("web_search_requests") or 0,
        )

    def new_stream(self) -> _Stream:
        """Return a reader for one stream."""
        return _Stream()


def _content(prompt: Content) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [{"type": "text", "text": p} if isinstance(p, str) else _image(p) for p in prompt]


def _image(image: Image) -> dict[str, Any]:
    if image.url is not None:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    source = {"type": "base64", "media_type": image.media_type, "data": image.data}
    return {"type": "image", "source": source}


def _fixed(model: ModelSpec, schema: SchemaSpec | None) -> dict[str, Any]:
    options = model.options
    body: dict[str, Any] = {
        "model": model.model,
        "max_tokens": options.get("max_tokens", DEFAULT_MAX_TOKENS),
    }
    if options.get("transport") == "sse":
        body["stream"] = True
    output: dict[str, Any] = {}
    if schema is not None:
        output["format"] = {"type": "json_schema", "schema": json.loads(schema.json)}
    if "reasoning" in options:
        body["thinking"] = {"type": "disabled" if options["reasoning"] == "none" else "adaptive"}
        if options["reasoning"] != "none":
            output["effort"] = options["reasoning"]
    if output:
        body["output_config"] = output
    if "service_tier" in options:
        body["service_tier"] = _TIERS[options["service_tier"]]
    if options.get("web_search"):
        body["tools"] = [{"type": "web_search_20250305", "name": "web_search"}]
    for name in ("temperature", "top_p", "top_k"):
        if name in options:
            body[name] = options[name]
    return body


def _add_tools(body: dict[str, Any], tools: Tools) -> None:
    own = [
        {"name": spec.name, "description": spec.description, "input_schema": spec.parameters}
        for spec in tools.specs
    ]
    body["tools"] = [*body.get("tools", ()), *own]
    if not tools.parallel:
        body["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}


def _messages(turn: Turn) -> list[dict[str, Any]]:
    """Write a turn as a message of each side."""
    told: list[dict[str, Any]] = [
        {
            "type": "tool_result",
            "tool_use_id": result.call.id,
            "content": result.text,
            "is_error": result.is_error,
        }
        for result in turn.results
    ]
    content: Any = turn.message
    if told:
        content = [*told, *([{"type": "text", "text": turn.message}] if turn.message else ())]
    said = turn.reply.raw or turn.reply.text
    return [{"role": "assistant", "content": said}, {"role": "user", "content": content}]


def _calls(content: list[dict[str, Any]]) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(str(part.get("id")), str(part.get("name")), _written(part.get("input") or {}))
        for part in content
        if part.get("type") == "tool_use"
    )


def _arguments(text: str) -> Any:
    """Read streamed arguments; those that are cut off, or no JSON, stay text."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def _written(given: Any) -> str:
    return given if isinstance(given, str) else json.dumps(given)


def _to_repeat(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the blocks as they are to be sent back: arguments that are no JSON are refused."""
    return [
        {**part, "input": {}} if isinstance(part.get("input"), str) else part for part in content
    ]


def _problem(text: str, reason: str, calls: tuple[ToolCall, ...]) -> RowError | None:
    """Return what makes a message less than a complete answer, or None."""
    if reason == "refusal":
        return Refused("the model refused", reply=text or None)
    if reason in ("max_tokens", "model_context_window_exceeded", "pause_turn"):
        return Truncated(f"the answer was cut ({reason})", reply=text or None)
    if reason == "content_filter":
        return ContentFiltered("the provider's content filter cut the answer", reply=text or None)
    if not text.strip() and not calls:
        return EmptyReply("the answer has no text")
    if reason not in ("end_turn", "stop_sequence") and not calls:
        return InvalidResponse(f"the answer ended with stop_reason {reason!r}")
    return None


def _usage(usage: Any) -> Usage:
    """Read usage; Anthropic counts cached tokens beside `input_tokens`, here they are in it."""
    if not isinstance(usage, dict):
        return Usage()
    read = int_or_none(usage.get("cache_read_input_tokens"))
    written = int_or_none(usage.get("cache_creation_input_tokens"))
    fresh, after = int_or_none(usage.get("input_tokens")), int_or_none(usage.get("output_tokens"))
    before = None if fresh is None else fresh + (read or 0) + (written or 0)
    total = None if before is None or after is None else before + after
    return Usage(before, after, total, read, None, written)


_DELTAS = {
    "text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature",
    "input_json_delta": "partial_json",
}  # fmt: skip


class _Stream:
    """Adds events up to the message they stand for, block by block."""

    def __init__(self) -> None:
        self._body: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._texts: dict[tuple[int, str], list[str]] = {}
        self._begun = False
        self._ended = False

    def feed(self, event: dict[str, Any]) -> bool:
        kind = event.get("type")
        if kind == "message_start":
            self._body = dict(event["message"])
        elif kind == "content_block_start":
            self._blocks[event["index"]] = dict(event.get("content_block") or {})
        elif kind == "content_block_delta":
            self._add(event["index"], event["delta"])
        elif kind == "message_delta":
            self._body |= event["delta"]
            self._body["usage"] = {**(self._body.get("usage") or {}), **(event.get("usage") or {})}
        elif kind == "message_stop":
            self._ended = True
        elif kind == "error":
            self._body, self._ended = event, True
        return self._begun

    def _add(self, index: int, delta: dict[str, Any]) -> None:
        block = self._blocks.setdefault(index, {"type": "text"})
        kind = str(delta.get("type"))
        self._begun = self._begun or kind == "text_delta"
        if kind in _DELTAS:
            self._texts.setdefault((index, _DELTAS[kind]), []).append(delta[_DELTAS[kind]])
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]

    def result(self) -> Any:
        if not self._ended:
            raise ConnectionLost("the stream ended before the answer was complete")
        if self._body.get("type") == "error":
            return self._body
        for (index, name), pieces in self._texts.items():
            block, text = self._blocks[index], "".join(pieces)
            if name == "partial_json":
                block["input"] = _arguments(text)
            else:
                block[name] = text
        return self._body | {"content": [self._blocks[index] for index in sorted(self._blocks)]}
