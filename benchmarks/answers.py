"""The fixed answers of the loopback server, as bytes; each has some 600 in one piece."""

from __future__ import annotations

import json
from typing import Any

TEXT = "positive: " + "a good product " * 20
_PIECES = 3
"""Of the text; with the events before and after them a streamed answer has 5."""
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def _dumps(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _whole(data: Any) -> bytes:
    body = _dumps(data)
    return _HEAD % len(body) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _frame(data: bytes) -> bytes:
    """Write a text message of a WebSocket; a server masks nothing (RFC 6455, section 5.2)."""
    if len(data) < 126:
        return bytes((0x81, len(data))) + data
    return bytes((0x81, 126)) + len(data).to_bytes(2) + data


def _events() -> list[bytes]:
    size = -(-len(TEXT) // _PIECES)
    pieces = [TEXT[start : start + size] for start in range(0, len(TEXT), size)]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": _RESPONSE["id"]}},
        *({"type": "response.output_text.delta", "delta": piece} for piece in pieces),
        {"type": "response.completed", "response": _RESPONSE},
    ]
    return [_dumps(event) for event in events]


def _stream(events: list[bytes]) -> tuple[bytes, ...]:
    chunks = [_chunk(b"data: " + event + b"\n\n") for event in events]
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return (head + chunks[0], *chunks[1:-1], chunks[-1] + b"0\r\n\r\n")


_RESPONSE = {
    "id": "resp-benchmark",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "benchmark",
    "output": [
        {
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": TEXT, "annotations": []}],
        }
    ],
    "usage": {"input_tokens": 60, "output_tokens": 12, "total_tokens": 72},
}


def _completion(message: dict[str, Any], finish_reason: str) -> bytes:
    return _whole(
        {
            "id": "chatcmpl-benchmark",
            "object": "chat.completion",
            "created": 1,
            "model": "benchmark",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", **message},
                    "finish_reason": finish_reason,
                }
            ],
            "usage": {"prompt_tokens": 60, "completion_tokens": 12, "total_tokens": 72},
        }
    )


_CALL = {
    "id": "call-1",
    "type": "function",
    "function": {"name": "count_words", "arguments": '{"text":"a b"}'},
}
CHAT = (_completion({"content": TEXT}, "stop"),)
"""Answers are tuples of what is written at once."""
CHAT_TOOL = (_completion({"content": None, "tool_calls": [_CALL]}, "tool_calls"),)
"""The answer to a request with tools that have not been called yet."""
RESPONSE = (_whole(_RESPONSE),)
STREAM = _stream(_events())
FRAMES = tuple(_frame(event) for event in _events())
_REFUSED = _dumps({"error": {"message": "Rate limit reached", "type": "requests"}})
REFUSAL = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_REFUSED), _REFUSED),
)


def journal(entries: list[tuple[float, bool]]) -> tuple[bytes]:
    """Write a journal of requests."""
    return (_whole(entries),)


def handshake(accept: bytes) -> tuple[bytes]:
    """Write the answer to a WebSocket's handshake."""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept,
    )
