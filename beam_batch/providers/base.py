"""What every provider offers: pure functions from a prompt to a request, from a body to a reply."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, NamedTuple, Protocol

from beam_batch import jsonio
from beam_batch.errors import (
    BatchError,
    FatalReply,
    InvalidJSON,
    NoCapacity,
    ProviderError,
    RateLimited,
    RequestRejected,
    RowError,
    ServerError,
)
from beam_batch.records import Content


class Request(NamedTuple):
    """One request, built anew for each row.

    Attributes:
        path: appended to the base URL.
        stream: whether the answer is read as server-sent events.
        images: how many it holds.
    """

    path: str
    body: dict[str, Any]
    stream: bool
    images: int = 0


class ToolSpec(NamedTuple):
    """What a model is told of a tool.

    Attributes:
        name: letters, digits, ``_`` and ``-``, at most 64 (OpenAI's rule, the strictest).
        parameters: JSON Schema of an object.
    """

    name: str
    description: str
    parameters: dict[str, Any]


class ToolCall(NamedTuple):
    """A tool that a model wants called; `arguments` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


class ToolResult(NamedTuple):
    """What a tool said."""

    call: ToolCall
    text: str
    is_error: bool = False


class Usage(NamedTuple):
    """Tokens as the provider counts them; None where it does not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_write_tokens: int | None = None

    def as_dict(self) -> dict[str, int]:
        """Return what is known."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def plus(self, other: Usage) -> Usage:
        """Add up two answers; what neither says stays unknown."""
        return Usage(
            *(
                a if b is None else b if a is None else a + b
                for a, b in zip(self, other, strict=True)
            )
        )

    @property
    def total(self) -> int | None:
        """Tokens in all: as the provider adds them up, or else input and output."""
        if self.total_tokens is not None:
            return self.total_tokens
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


class Reply(NamedTuple):
    """A complete answer: text, or tools that are to be called first.

    Attributes:
        raw: the answer in the provider's own form, as it is to be repeated where the conversation
            goes on (with the signatures of hidden reasoning); None where text is all there is.
        citations: what a provider's web search cited: url, title, and where in the text.
        searches: web searches of the provider.
    """

    text: str
    finish_reason: str
    model: str | None
    request_id: str | None
    usage: Usage
    service_tier: str | None
    calls: tuple[ToolCall, ...] = ()
    raw: Any = None
    citations: tuple[dict[str, Any], ...] = ()
    searches: int = 0


class Turn(NamedTuple):
    """What a model said, and what it was told then: tool results, or a message of the user."""

    reply: Reply
    results: tuple[ToolResult, ...] = ()
    message: str = ""


class StreamReader(Protocol):
    """Puts the events of one streamed answer together."""

    def feed(self, event: dict[str, Any]) -> bool:
        """Take one event; return whether output text has begun."""

    def result(self) -> Any:
        """Return the body that the same answer has when it is not streamed.

        Raises:
            ConnectionLost: the stream ended before the answer did.
        """


class Provider(Protocol):
    """One wire format with its settings.

    Attributes:
        wraps: whether a schema is sent as OpenAI wants it, with an object around other roots.
    """

    wraps: bool

    def to_request(
        self, instruction: str, prompt: Content, history: Sequence[Turn] = ()
    ) -> Request:
        """Build the request of one row.

        The prompt is text, or text and images in order; history is the conversation since.
        """

    def to_reply(self, body: Any) -> Reply:
        """Read a 200 answer.

        Raises:
            ReplyError: the answer is not complete.
            ServerError: the body reports an error of the provider.
            InvalidResponse: the body has not the shape of the format.
        """

    def new_stream(self) -> StreamReader:
        """Return a reader for one streamed answer."""


def annotated(error: RowError, **notes: Any) -> RowError:
    """Attach what the provider reported (usage, model, …), so that a failure is accounted for."""
    for name, value in notes.items():
        setattr(error, name, value)
    return error


def int_or_none(value: Any) -> int | None:
    """Take a count out of a body, whatever its shape."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def details(usage: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object in a usage object, {} where it is missing or none."""
    found = usage.get(name)
    return found if isinstance(found, dict) else {}


_SECRETS = re.compile(r"\b(sk-|Bearer\s+)[A-Za-z0-9_\-*.]{4,}")
_TAGS = re.compile(r"<[^>]{0,400}>")
_RETRYABLE = frozenset((408, 409, 425))
_SCHEMA_PARAMS = ("text.format", "response_format")


def to_error(status: int, headers: Mapping[str, str], body: bytes, key: str | None) -> BatchError:
    """Name what a status other than 200 means.

    Sources: platform.openai.com/docs/guides/error-codes and /flex-processing; RFC 9110
    (Retry-After, 408, 425, 429); openrouter.ai/docs/api-reference/errors (403 of a moderated
    input).
    """
    details = _details(body)
    code = str(details.get("code") or details.get("type") or "")
    message = redact(f"{status}: {details.get('message') or _plain(body)}", key)
    fatal = _fatal(status, code, message, details)
    if fatal is not None:
        return FatalReply(f"{fatal} ({message})")
    wait = retry_after(headers)
    error: ProviderError
    if status == 429:
        kind = NoCapacity if code == "resource_unavailable" else RateLimited
        error = kind(message, retry_after=wait, status=status)
    elif status >= 500 or status in _RETRYABLE:
        error = ServerError(message, retry_after=wait, status=status)
    else:
        error = RequestRejected(message, status=status)
    error.headers = headers
    return error


def _fatal(status: int, code: str, message: str, details: dict[str, Any]) -> str | None:
    """Say why no request of this run can succeed, or None."""
    if status == 401 or (status == 400 and "API_KEY_INVALID" in str(details)):
        return "the provider refused the key"
    if status == 403 and not _is_moderation(details):
        return "the provider refused the key"
    if status == 402:
        return "the account has no credit"
    if code == "model_not_found" or (status == 404 and _names_no_model(message)):
        return "the provider does not know the model"
    if "insufficient_quota" in (details.get("code"), details.get("type")):
        return "the quota is used up"
    if status == 400 and _is_about_schema(details):
        return "the provider refuses the schema"
    return None


SHORTEST_SECRET = 8
"""Characters; a shorter key, such as the EMPTY that local servers are given, is a word that may
stand in an answer.
"""


def secret_of(key: str | None) -> str | None:
    """Return a key that must not be shown, or None."""
    return key if key and len(key) >= SHORTEST_SECRET else None


def redact(text: str, key: str | None) -> str:
    """Take keys out of a text."""
    if key:
        text = text.replace(key, "***")
    return _SECRETS.sub(r"\1***", text)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a provider asks to wait: retry-after-ms, or Retry-After."""
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        if "retry-after-ms" in lower:
            wait = float(lower["retry-after-ms"]) / 1000
            return max(0.0, wait) if math.isfinite(wait) else None
        value = lower.get("retry-after")
        if value is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return None


def _details(body: bytes) -> dict[str, Any]:
    try:
        parsed = jsonio.loads(body)
    except InvalidJSON:
        return {}
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _plain(body: bytes) -> str:
    text = _TAGS.sub(" ", body[:2000].decode("utf-8", "replace"))
    return " ".join(text.split())[:200] or "no message"


def _is_moderation(details: dict[str, Any]) -> bool:
    """Whether an input was turned away for what it says: one row's matter."""
    metadata = details.get("metadata")
    return isinstance(metadata, dict) and ("reasons" in metadata or "flagged_input" in metadata)


def _names_no_model(message: str) -> bool:
    lower = message.lower()
    gone = ("does not exist", "not found", "not_found")
    return "model" in lower and any(words in lower for words in gone)


def _is_about_schema(details: dict[str, Any]) -> bool:
    param = details.get("param")
    return details.get("code") == "invalid_json_schema" or (
        isinstance(param, str) and param.startswith(_SCHEMA_PARAMS)
    )
