"""The Gemini API (https://ai.google.dev/api/generate-content)."""

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
    ToolResult,
    Tools,
    ToolSpec,
    Turn,
    Usage,
    annotated,
    images_in,
    int_or_none,
    unique_citations,
)
from beam_batch.records import Content, Image

_FILTERED = (
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "IMAGE_SAFETY",
)  # fmt: skip
_NAMES = {
    "temperature": "temperature", "top_p": "topP", "top_k": "topK", "max_tokens": "maxOutputTokens",
    "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty", "seed": "seed",
}  # fmt: skip


class GoogleProvider:
    """Requests and replies of generateContent."""

    def __init__(
        self, model: ModelSpec, schema: SchemaSpec | None, tools: Tools = NO_TOOLS
    ) -> None:
        self.wraps = False
        self.defers_schema = True
        self._tools = bool(tools.specs)
        self._stream = model.options.get("transport") == "sse"
        verb = "streamGenerateContent?alt=sse" if self._stream else "generateContent"
        self._path = f"/models/{model.model}:{verb}"
        self._fixed = _fixed(model, schema)
        if self._tools:
            own = {"functionDeclarations": [_declared(spec) for spec in tools.specs]}
            self._fixed["tools"] = [*self._fixed.get("tools", ()), own]

    def to_request(
        self, instruction: str, prompt: Content, history: Sequence[Turn] = ()
    ) -> Request:
        """Build the request of one row; the stable instruction stands first."""
        since = [content for turn in history for content in _contents(turn)]
        told = {"systemInstruction": {"parts": [{"text": instruction}]}} if instruction else {}
        body = {
            **told,
            "contents": [{"role": "user", "parts": _parts(prompt)}, *since],
        }
        return Request(self._path, {**self._fixed, **body}, self._stream, images_in(prompt))

    def to_reply(self, body: Any) -> Reply:
        """Read a response of generateContent."""
        if not isinstance(body, dict):
            raise InvalidResponse(f"the body is not an object but {type(body).__name__}")
        if body.get("error"):
            raise ServerError(f"the body reports an error: {body['error']!s:.200}")
        usage = _usage(body.get("usageMetadata"))
        notes: dict[str, Any] = {
            "usage": usage,
            "model": body.get("modelVersion"),
            "request_id": body.get("responseId"),
        }
        blocked = (body.get("promptFeedback") or {}).get("blockReason")
        if blocked:
            raise annotated(Refused(f"the prompt was blocked: {blocked}"), **notes)
        if not isinstance(body.get("candidates"), list) or not body["candidates"]:
            raise InvalidResponse(f"the body has no candidates: {body!s:.120}")
        candidate = body["candidates"][0]
        text, reason = _text(candidate), str(candidate.get("finishReason") or "")
        parts = _parts_of(candidate)
        calls = _calls(parts) if self._tools else ()
        error = _problem(text, reason, calls)
        if error is not None:
            raise annotated(error, finish_reason=reason, **notes)
        grounding = candidate.get("groundingMetadata") or {}
        return Reply(
            text,
            reason,
            notes["model"],
            notes["request_id"],
            usage,
            None,
            calls,
            parts if calls else None,
            unique_citations(
                {"url": chunk["web"].get("uri"), "title": chunk["web"].get("title")}
                for chunk in grounding.get("groundingChunks") or ()
                if chunk.get("web")
            ),
            len(grounding.get("webSearchQueries") or ()),
        )

    def new_stream(self) -> _Stream:
        """Return a reader for one stream."""
        return _Stream()


def _parts(prompt: Content) -> list[dict[str, Any]]:
    parts = (prompt,) if isinstance(prompt, str) else prompt
    return [{"text": part} if isinstance(part, str) else _image(part) for part in parts]


def _image(image: Image) -> dict[str, Any]:
    if image.url is not None:
        return {"fileData": {"fileUri": image.url}}
    return {"inlineData": {"mimeType": image.media_type, "data": image.data}}


def _fixed(model: ModelSpec, schema: SchemaSpec | None) -> dict[str, Any]:
    options = model.options
    config: dict[str, Any] = {
        theirs: options[ours] for ours, theirs in _NAMES.items() if ours in options
    }
    if schema is not None:
        config |= {
            "responseMimeType": "application/json",
            "responseJsonSchema": json.loads(schema.json),
        }
    if "reasoning" in options:
        level = options["reasoning"]
        none = level == "none"
        config["thinkingConfig"] = {"thinkingBudget": 0} if none else {"thinkingLevel": level}
    body: dict[str, Any] = {"generationConfig": config} if config else {}
    if options.get("web_search"):
        body["tools"] = [{"google_search": {}}]
    return body


def _declared(spec: ToolSpec) -> dict[str, Any]:
    named = {"name": spec.name, "description": spec.description}
    return {**named, "parametersJsonSchema": spec.parameters}


def _contents(turn: Turn) -> list[dict[str, Any]]:
    """Write a turn as a content of each side."""
    told: list[dict[str, Any]] = [
        {"functionResponse": {"name": result.call.name, "response": _answered(result)}}
        for result in turn.results
    ]
    if turn.message:
        told.append({"text": turn.message})
    said = turn.reply.raw or [{"text": turn.reply.text}]
    return [{"role": "model", "parts": said}, {"role": "user", "parts": told}]


def _answered(result: ToolResult) -> dict[str, str]:
    return {"error" if result.is_error else "result": result.text}


def _calls(parts: list[dict[str, Any]]) -> tuple[ToolCall, ...]:
    """Read the function calls; Gemini matches their results by name and order."""
    found = [part["functionCall"] for part in parts if part.get("functionCall")]
    return tuple(
        ToolCall(
            str(call.get("id") or f"call_{place}"),
            str(call.get("name")),
            json.dumps(call.get("args") or {}),
        )
        for place, call in enumerate(found)
    )


def _parts_of(candidate: dict[str, Any]) -> list[dict[str, Any]]:
    return list((candidate.get("content") or {}).get("parts") or ())


def _text(candidate: dict[str, Any]) -> str:
    parts = _parts_of(candidate)
    return "".join(str(part.get("text") or "") for part in parts if not part.get("thought"))


def _problem(text: str, reason: str, calls: tuple[ToolCall, ...]) -> RowError | None:
    """Return what makes a candidate less than a complete answer, or None."""
    if reason == "MAX_TOKENS":
        return Truncated("the answer was cut by the token limit", reply=text or None)
    if reason in _FILTERED:
        return ContentFiltered(f"the provider withheld the answer ({reason})", reply=text or None)
    if reason != "STOP":
        return InvalidResponse(f"the answer ended with finishReason {reason!r}")
    if not text.strip() and not calls:
        return EmptyReply("the answer has no text")
    return None


def _usage(usage: Any) -> Usage:
    """Read usage; Gemini counts thoughts beside the candidates, here they are output tokens."""
    if not isinstance(usage, dict):
        return Usage()
    thoughts = int_or_none(usage.get("thoughtsTokenCount"))
    after = int_or_none(usage.get("candidatesTokenCount"))
    output = None if after is None and thoughts is None else (after or 0) + (thoughts or 0)
    return Usage(
        int_or_none(usage.get("promptTokenCount")),
        output,
        int_or_none(usage.get("totalTokenCount")),
        int_or_none(usage.get("cachedContentTokenCount")),
        thoughts,
    )


class _Stream:
    """Adds chunks up to the response they stand for."""

    def __init__(self) -> None:
        self._parts: list[dict[str, Any]] = []
        self._body: dict[str, Any] = {}
        self._reason: str | None = None
        self._grounding: dict[str, Any] = {}

    def feed(self, event: dict[str, Any]) -> bool:
        self._body |= {name: value for name, value in event.items() if name != "candidates"}
        for candidate in (event.get("candidates") or ())[:1]:
            self._parts.extend((candidate.get("content") or {}).get("parts") or ())
            self._reason = candidate.get("finishReason") or self._reason
            if candidate.get("groundingMetadata"):
                self._grounding = candidate["groundingMetadata"]
        return any(part.get("text") and not part.get("thought") for part in self._parts)

    def result(self) -> Any:
        if self._reason is None and not (
            self._body.get("error") or self._body.get("promptFeedback")
        ):
            raise ConnectionLost("the stream ended before the answer was complete")
        candidate = {
            "content": {"parts": self._parts},
            "finishReason": self._reason,
            "groundingMetadata": self._grounding,
        }
        return self._body | ({"candidates": [candidate]} if self._reason else {})
