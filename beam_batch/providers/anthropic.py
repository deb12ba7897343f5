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
    Correction,
    Reply,
    Request,
    Usage,
    annotated,
    dialogue,
    int_or_none,
)
from beam_batch.records import Content, Image

PATH = "/messages"
DEFAULT_MAX_TOKENS = 8192
"""The API requires a limit of output tokens; this one suits every current model."""
_TIERS = {"default": "standard_only", "auto": "auto", "priority": "auto", "fast": "auto"}


class AnthropicProvider:
    """Requests and replies of the Messages API."""

    def __init__(self, model: ModelSpec, schema: SchemaSpec | None) -> None:
        self.wraps = False
        self._stream = model.options.get("transport") == "sse"
        self._fixed = _fixed(model, schema)

    def to_request(
        self, instruction: str, prompt: Content, corrections: Sequence[Correction] = ()
    ) -> Request:
        """Build the request of one row; what is the same for all rows ends with a cache mark."""
        system = [{"type": "text", "text": instruction, "cache_control": {"type": "ephemeral"}}]
        first = {"role": "user", "content": _content(prompt)}
        messages = [first, *dialogue(corrections, "assistant")]
        return Request(PATH, {**self._fixed, "system": system, "messages": messages}, self._stream)

    def to_reply(self, body: Any) -> Reply:
        """Read a message object."""
        if isinstance(body, dict) and body.get("type") == "error":
            raise ServerError(f"the body reports an error: {body.get('error')!s:.200}")
        if not isinstance(body, dict) or not isinstance(body.get("content"), list):
            raise InvalidResponse(f"the body is no message: {body!s:.120}")
        text = "".join(str(part["text"]) for part in body["content"] if part.get("type") == "text")
        reason, usage = str(body.get("stop_reason") or ""), _usage(body.get("usage"))
        error = _problem(text, reason)
        if error is not None:
            notes = {"usage": usage, "model": body.get("model"), "request_id": body.get("id")}
            raise annotated(error, finish_reason=reason, **notes)
        tier = (body.get("usage") or {}).get("service_tier")
        return Reply(text, reason, body.get("model"), body.get("id"), usage, tier)

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


def _problem(text: str, reason: str) -> RowError | None:
    """Return what makes a message less than a complete answer, or None."""
    if reason == "refusal":
        return Refused("the model refused", reply=text or None)
    if reason in ("max_tokens", "model_context_window_exceeded", "pause_turn"):
        return Truncated(f"the answer was cut ({reason})", reply=text or None)
    if reason == "content_filter":
        return ContentFiltered("the provider's content filter cut the answer", reply=text or None)
    if not text.strip():
        return EmptyReply("the answer has no text")
    if reason not in ("end_turn", "stop_sequence"):
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


class _Stream:
    """Adds events up to the message they stand for."""

    def __init__(self) -> None:
        self._body: dict[str, Any] = {}
        self._texts: dict[int, list[str]] = {}
        self._ended = False

    def feed(self, event: dict[str, Any]) -> bool:
        kind = event.get("type")
        if kind == "message_start":
            self._body = dict(event["message"])
        elif kind == "content_block_delta" and event["delta"].get("type") == "text_delta":
            self._texts.setdefault(event["index"], []).append(event["delta"]["text"])
        elif kind == "message_delta":
            self._body |= event["delta"]
            self._body["usage"] = {**(self._body.get("usage") or {}), **(event.get("usage") or {})}
        elif kind == "message_stop":
            self._ended = True
        elif kind == "error":
            self._body, self._ended = event, True
        return bool(self._texts)

    def result(self) -> Any:
        if not self._ended:
            raise ConnectionLost("the stream ended before the answer was complete")
        if self._body.get("type") == "error":
            return self._body
        texts = ("".join(self._texts[index]) for index in sorted(self._texts))
        return self._body | {"content": [{"type": "text", "text": text} for text in texts]}
