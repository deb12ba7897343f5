"""The OpenAI Responses API (https://platform.openai.com/docs/api-reference/responses)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from beam_batch.errors import (
    ConnectionLost,
    ContentFiltered,
    EmptyReply,
    FatalReply,
    InvalidResponse,
    Refused,
    RequestRejected,
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

PATH = "/responses"
LEAST_OUTPUT_TOKENS = 16
_TIERS = {"fast": "priority"}
_REASONS = re.compile(r"(o[1-9]|gpt-([5-9]|[1-9]\d))(?!.*chat)")
"""Models that reason; others refuse to give their reasoning in encrypted form."""
_FATAL = ("insufficient_quota", "invalid_api_key", "model_not_found")
_ENDS = ("response.completed", "response.incomplete", "response.failed")


class ResponsesProvider:
    """Requests and replies of the Responses API."""

    def __init__(
        self, model: ModelSpec, schema: SchemaSpec | None, tools: Tools = NO_TOOLS
    ) -> None:
        self.wraps = True
        self.defers_schema = False
        self._stream = model.options.get("transport") == "sse"
        self._tools = bool(tools.specs)
        self._fixed = _fixed(model, schema)
        if self._tools:
            _add_tools(self._fixed, tools)

    def to_request(
        self, instruction: str, prompt: Content, history: Sequence[Turn] = ()
    ) -> Request:
        """Build the request of one row; the stable part stands first, for prompt caching."""
        said: Any = _input(prompt)
        if history:
            first = [{"role": "user", "content": said}] if isinstance(said, str) else said
            said = [*first, *(item for turn in history for item in _items(turn))]
        told = {"instructions": instruction} if instruction else {}
        body = {**self._fixed, **told, "input": said}
        return Request(PATH, body, self._stream, images_in(prompt))

    def to_reply(self, body: Any) -> Reply:
        """Read a response object."""
        if not isinstance(body, dict):
            raise InvalidResponse(f"the body is not an object but {type(body).__name__}")
        if body.get("object") not in (None, "response") or not _has_answer(body):
            raise InvalidResponse(f"the body is no response object: {body!s:.120}")
        usage = _usage(body.get("usage"))
        output = body.get("output")
        text, refusal = _texts(output)
        calls = _calls(output) if self._tools else ()
        notes = {"usage": usage, "model": body.get("model"), "request_id": body.get("id")}
        error = _problem(body, text, refusal, calls)
        if error is not None:
            raise annotated(error, finish_reason=_reason(body), **notes)
        tier = body.get("service_tier")
        return Reply(
            text,
            "completed",
            body.get("model"),
            body.get("id"),
            usage,
            tier,
            calls,
            _to_repeat(output) if calls else None,
            _citations(output),
            sum(item.get("type") == "web_search_call" for item in _objects(output)),
        )

    def new_stream(self) -> _Stream:
        """Return a reader for one stream."""
        return _Stream()


def _input(prompt: Content) -> Any:
    if isinstance(prompt, str):
        return prompt
    parts = [
        {"type": "input_text", "text": part}
        if isinstance(part, str)
        else {"type": "input_image", "image_url": part.as_url}
        for part in prompt
    ]
    return [{"role": "user", "content": parts}]


def _fixed(model: ModelSpec, schema: SchemaSpec | None) -> dict[str, Any]:
    options = model.options
    body: dict[str, Any] = {"model": model.model, "store": False}
    if options.get("transport") == "sse":
        body["stream"] = True
    if "reasoning" in options:
        body["reasoning"] = {"effort": options["reasoning"]}
    text: dict[str, Any] = {}
    if "verbosity" in options:
        text["verbosity"] = options["verbosity"]
    if schema is not None:
        from beam_batch.prompts.schema import openai_schema

        wire = openai_schema(schema)
        text["format"] = {
            "type": "json_schema",
            "name": schema.name,
            "schema": wire.schema,
            "strict": wire.strict,
        }
    if text:
        body["text"] = text
    if "max_tokens" in options:
        body["max_output_tokens"] = max(LEAST_OUTPUT_TOKENS, options["max_tokens"])
    if "service_tier" in options:
        tier = options["service_tier"]
        body["service_tier"] = _TIERS.get(tier, tier)
    if options.get("web_search"):
        body["tools"] = [{"type": "web_search"}]
        body["include"] = ["web_search_call.action.sources"]
    for name in ("temperature", "top_p"):
        if name in options:
            body[name] = options[name]
    return body


def _add_tools(body: dict[str, Any], tools: Tools) -> None:
    functions = [{"type": "function", "strict": False, **spec._asdict()} for spec in tools.specs]
    body["tools"] = [*body.get("tools", ()), *functions]
    if "reasoning" in body or _REASONS.match(body["model"]):
        body["include"] = [*body.get("include", ()), "reasoning.encrypted_content"]
    if not tools.parallel:
        body["parallel_tool_calls"] = False


def _items(turn: Turn) -> list[dict[str, Any]]:
    """Write a turn as input items."""
    said = turn.reply.raw or [{"role": "assistant", "content": turn.reply.text}]
    told = [
        {"type": "function_call_output", "call_id": result.call.id, "output": result.text}
        for result in turn.results
    ]
    return [*said, *told, *([{"role": "user", "content": turn.message}] if turn.message else ())]


def _to_repeat(output: Any) -> list[dict[str, Any]]:
    """Return the items that the next request repeats: nothing is stored at the provider, so
    reasoning goes back in its encrypted form, or not at all.
    """
    return [
        item
        for item in _objects(output)
        if item.get("type") != "reasoning" or item.get("encrypted_content")
    ]


def _objects(output: Any) -> list[dict[str, Any]]:
    return [item for item in output or () if isinstance(item, dict)]


def _calls(output: Any) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(str(item.get("call_id")), str(item.get("name")), str(item.get("arguments") or ""))
        for item in _objects(output)
        if item.get("type") == "function_call"
    )


def _citations(output: Any) -> tuple[dict[str, Any], ...]:
    """Return what a web search cited, once each."""
    return unique_citations(
        note
        for item in _objects(output)
        if item.get("type") == "message"
        for part in _objects(item.get("content"))
        for note in _objects(part.get("annotations"))
        if note.get("type") == "url_citation"
    )


def _has_answer(body: dict[str, Any]) -> bool:
    return isinstance(body.get("output"), list) or bool(body.get("error"))


def _problem(
    body: dict[str, Any], text: str, refusal: str, calls: tuple[ToolCall, ...]
) -> RowError | None:
    """Return what makes a response less than a complete answer, or None."""
    status = body.get("status")
    if status == "failed" or body.get("error"):
        return _failed(body.get("error"))
    if refusal:
        return Refused(f"the model refused: {refusal:.500}", reply=refusal)
    if status == "incomplete":
        if _reason(body) == "content_filter":
            return ContentFiltered(
                "the provider's content filter cut the answer", reply=text or None
            )
        return Truncated(f"the answer was cut ({_reason(body)})", reply=text or None)
    if status != "completed":
        return InvalidResponse(f"the response has status {status!r}")
    if not text.strip() and not calls:
        return EmptyReply("the answer has no text")
    return None


def _failed(error: Any) -> RowError:
    known = error if isinstance(error, dict) else {}
    message = f"{known.get('code') or 'failed'}: {known.get('message') or 'no message'}"
    if known.get("code") in _FATAL:
        raise FatalReply(f"the provider refuses every request ({message})")
    if known.get("code") in ("server_error", "rate_limit_exceeded", None):
        return ServerError(message)
    return RequestRejected(message)


def _reason(body: dict[str, Any]) -> str:
    reason = details(body, "incomplete_details").get("reason")
    return str(reason or body.get("status") or "completed")


def _texts(output: Any) -> tuple[str, str]:
    """Join the text and the refusals of all message items."""
    text: list[str] = []
    refusal: list[str] = []
    for item in output if isinstance(output, list) else ():
        if not isinstance(item, dict) or item.get("type") != "message":
            continue
        for part in item.get("content") or ():
            if isinstance(part, dict):
                if part.get("type") == "output_text":
                    text.append(str(part.get("text") or ""))
                elif part.get("type") == "refusal":
                    refusal.append(str(part.get("refusal") or "no reason given"))
    return "".join(text), "".join(refusal)


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    before = details(usage, "input_tokens_details")
    after = details(usage, "output_tokens_details")
    return Usage(
        int_or_none(usage.get("input_tokens")),
        int_or_none(usage.get("output_tokens")),
        int_or_none(usage.get("total_tokens")),
        int_or_none(before.get("cached_tokens")),
        int_or_none(after.get("reasoning_tokens")),
        int_or_none(before.get("cache_write_tokens")),
    )


class _Stream:
    """The last event of a stream carries the whole response."""

    def __init__(self) -> None:
        self._body: Any = None

    def feed(self, event: dict[str, Any]) -> bool:
        kind = event.get("type")
        if kind in _ENDS:
            self._body = event.get("response")
        elif kind == "error":
            error = event.get("error") or event
            self._body = {"object": "response", "status": "failed", "error": error}
        return kind == "response.output_text.delta"

    def result(self) -> Any:
        if self._body is None:
            raise ConnectionLost("the stream ended before the answer was complete")
        return self._body
