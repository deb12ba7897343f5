"""What every provider offers: pure functions from a prompt to a request, from a body to a reply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from beam_batch.errors import (
    RowError,
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


class Tools(NamedTuple):
    """What a model may call.

    Attributes:
        parallel: whether one reply may hold several calls.
    """

    specs: tuple[ToolSpec, ...] = ()
    parallel: bool = True


NO_TOOLS = Tools()


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
        named = zip(self._fields, self, strict=True)  # `_asdict` takes half as long again
        return {name: value for name, value in named if value is not None}

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
        defers_schema: whether a schema cannot be sent together with tools.
    """

    wraps: bool
    defers_schema: bool

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


def images_in(prompt: Content) -> int:
    """Count the images of a prompt."""
    return 0 if isinstance(prompt, str) else sum(not isinstance(part, str) for part in prompt)


_CITED = ("url", "title", "start_index", "end_index", "cited_text")


def unique_citations(notes: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Keep what tells where a citation leads and what it is for, without repetitions."""
    kept: dict[str, dict[str, Any]] = {}
    for note in notes:
        cited = {name: note[name] for name in _CITED if note.get(name) is not None}
        kept.setdefault(repr(cited), cited)
    return tuple(kept.values())


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
