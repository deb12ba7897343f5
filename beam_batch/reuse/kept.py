"""A reply as it is kept, and what every place to keep replies offers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import orjson

from beam_batch import jsonio
from beam_batch.providers.base import Reply, ToolCall, Usage

_RARE = ("calls", "raw", "citations", "searches")


class KeptReply(NamedTuple):
    """A good reply with where it is from.

    Attributes:
        asked: provider and model that were asked, such as ``responses.gpt-5.4-mini``.
        made: when it came, in seconds since 1970 (UTC).
    """

    reply: Reply
    asked: str
    made: float

    def encode(self) -> bytes:
        """Write it as JSON."""
        reply = self.reply
        rest = {name: value for name in _RARE if (value := getattr(reply, name))}
        return jsonio.dumps(
            {
                "text": reply.text,
                "finish_reason": reply.finish_reason,
                "model": reply.model,
                "request_id": reply.request_id,
                "usage": reply.usage.as_dict(),
                "service_tier": reply.service_tier,
                "asked": self.asked,
                "made": self.made,
                **rest,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> KeptReply | None:
        """Read it again; None where the data is no reply of ours."""
        try:
            values: dict[str, Any] = orjson.loads(data)  # written by us: no checks
            asked, made = str(values.pop("asked")), float(values.pop("made"))
            values["usage"] = Usage(**values["usage"])
            if "calls" in values:
                values["calls"] = tuple(ToolCall(*call) for call in values["calls"])
            if "citations" in values:
                values["citations"] = tuple(values["citations"])
            reply = Reply(**values)
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        return cls(reply, asked, made) if isinstance(reply.text, str) else None


class Entry(NamedTuple):
    """What is to be known of a kept reply without its text; `size` in bytes."""

    key: bytes
    asked: str
    made: float
    size: int
    input_tokens: int
    output_tokens: int


class ReplyStore(Protocol):
    """A place where replies are kept.

    No method raises for what is wrong with the place: it says so once on stderr, and is then a
    place that keeps nothing.

    Attributes:
        remote: whether `get` and `put` take milliseconds, and so are for threads.
    """

    remote: bool

    def get(self, key: bytes) -> KeptReply | None:
        """Return the reply kept under a key."""

    def put(self, key: bytes, kept: KeptReply) -> None:
        """Keep a reply, in place of an older one; others see it after `flush`."""

    def flush(self) -> bool:
        """Let other processes see what was put; False where that is to be tried again."""

    def forget(self, key: bytes) -> None:
        """Keep the reply of a key no longer."""

    def entries(self) -> Iterator[Entry]:
        """List what is kept, newest first."""

    def remove(self, keys: Iterable[bytes]) -> None:
        """Keep the replies of some keys no longer, and give their space back."""

    def close(self) -> None:
        """Flush and close."""


def say(text: str) -> None:
    """Tell the user in one line on stderr."""
    print(f"batch: {text}", file=sys.stderr, flush=True)
