"""Traces: the conversation of one row, from what was said to the records that are kept.

Whoever holds the conversation notes events; `trace_of` writes them as a Codex rollout, one record
a line: session_meta, then task_started, user_message and turn_context, response_items with a
token_count behind each model call, and task_complete.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from beam_batch import jsonio
from beam_batch.records import Content, Outcome
from beam_batch.redaction import redactor

Record = dict[str, Any]

IMAGE = "[image]"
"""Stands for an image: its bytes are in the input."""
ORIGINATOR = "beam-batch"
_TURN = "turn-1"
_NO_KEYS = redactor(())
_TOKENS = {
    "input_tokens": "input_tokens",
    "cached_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_write_input_tokens",
    "output_tokens": "output_tokens",
    "reasoning_tokens": "reasoning_output_tokens",
    "total_tokens": "total_tokens",
}
"""Counts of a reply, and what a rollout calls them."""


class Instructed(NamedTuple):
    """An agent begins: the model it uses, and its instruction. The first is the row's own."""

    at: float
    agent: str
    model: str
    text: str


class Asked(NamedTuple):
    """An agent is told something: the prompt, a complaint, what another agent wants of it."""

    at: float
    agent: str
    content: Content


class Replied(NamedTuple):
    """What an agent's model said; empty where it only calls tools."""

    at: float
    agent: str
    text: str
    finish_reason: str = ""


class Called(NamedTuple):
    """A tool that the model calls; `arguments` is JSON as it wrote it."""

    at: float
    agent: str
    call_id: str
    name: str
    arguments: str


class Returned(NamedTuple):
    """What a tool said."""

    at: float
    agent: str
    call_id: str
    text: str
    is_error: bool = False


class Used(NamedTuple):
    """Tokens of one model call, by the names that telemetry has for them."""

    at: float
    agent: str
    usage: Mapping[str, int]


Event = Instructed | Asked | Replied | Called | Returned | Used
"""Something in a conversation. `at` is seconds since 1970."""


def trace_of(
    run_id: str,
    outcome: Outcome,
    events: Sequence[Event],
    *,
    clean: Callable[[str], str] = _NO_KEYS,
    ended: float | None = None,
) -> tuple[Record, ...] | None:
    """Write the conversation that led to an outcome as records; None where there was none.

    `clean` takes out of each text what nobody may read: the worker's keys, and what it put into the
    environment and the headers of tool servers.
    """
    if not events:
        return None
    rollout = _Rollout(events[0].at)
    rollout.begin(f"{run_id}-row-{outcome.row_number or 0:06d}", events)
    for event in events:
        rollout.add(event)
    rollout.end(outcome.envelope, time.time() if ended is None else ended, events[-1])
    return tuple(_cleaned(record, clean) for record in rollout.records)


class _Rollout:
    """Puts records together."""

    def __init__(self, started: float) -> None:
        self.records: list[Record] = []
        self._at = started
        self._models: dict[str, str] = {}
        self._tokens: Counter[str] = Counter()
        self._is_started = False
        self._said = ""

    def begin(self, session: str, events: Sequence[Event]) -> None:
        """Say what the session is."""
        first = next((event for event in events if isinstance(event, Instructed)), None)
        meta: Record = {
            "id": session,
            "timestamp": _utc(self._at),
            "cwd": ".",
            "originator": ORIGINATOR,
            "source": "batch",
        }
        if first is not None:
            meta |= {"model": first.model, "base_instructions": {"text": first.text}}
        self._write("session_meta", meta)

    def add(self, event: Event) -> None:
        """Write one event."""
        self._at, agent = event.at, event.agent
        match event:
            case Instructed():
                self._models[agent] = event.model
                self._message("developer", agent, "input_text", event.text)
            case Asked():
                text = _text_of(event.content)
                self._start(agent, text)
                self._message("user", agent, "input_text", text)
            case Replied():
                self._said = event.text
                if event.text:
                    more = {"finish_reason": event.finish_reason} if event.finish_reason else {}
                    self._message("assistant", agent, "output_text", event.text, more)
            case Called():
                call = {"name": event.name, "arguments": event.arguments}
                self._item("function_call", agent, call | {"call_id": event.call_id})
            case Returned():
                status = "error" if event.is_error else "success"
                said = {"call_id": event.call_id, "output": event.text, "status": status}
                self._item("function_call_output", agent, said)
            case Used():
                self._count(agent, event.usage)

    def end(self, envelope: Record, at: float, last: Event) -> None:
        """Write what became of the row; a reply that was cut off is known from its error alone."""
        self._at, error = at, envelope["error"]
        if error is not None:
            reply = error.get("reply")
            if reply and reply != self._said:
                self._message("assistant", last.agent, "output_text", reply)
            self._event("error", {"message": f"{error['type']}: {error['message']}"})
        said = _last_message(envelope)
        self._event("task_complete", {"turn_id": _TURN, "last_agent_message": said})

    def _start(self, agent: str, text: str) -> None:
        """Begin the one turn of a row, with its prompt."""
        if self._is_started:
            return
        self._is_started = True
        self._event("task_started", {"turn_id": _TURN, "started_at": int(self._at)})
        self._event("user_message", {"message": text})
        context = {"turn_id": _TURN, "cwd": ".", "current_date": _utc(self._at)[:10]}
        context |= {"timezone": "UTC", "summary": "auto"}
        if agent in self._models:
            context["model"] = self._models[agent]
        self._write("turn_context", context)

    def _message(
        self, role: str, agent: str, kind: str, text: str, more: Record | None = None
    ) -> None:
        content = [{"type": kind, "text": text}]
        self._item("message", agent, {"role": role, "content": content} | (more or {}))

    def _count(self, agent: str, usage: Mapping[str, int]) -> None:
        used = {_TOKENS[name]: count for name, count in usage.items() if name in _TOKENS}
        if not used:
            return
        if "total_tokens" not in used and {"input_tokens", "output_tokens"} <= used.keys():
            used["total_tokens"] = used["input_tokens"] + used["output_tokens"]
        self._tokens.update(used)
        info = {"total_token_usage": dict(self._tokens), "last_token_usage": used}
        self._event("token_count", {"agent": agent, "info": info})

    def _item(self, kind: str, agent: str, payload: Record) -> None:
        self._write("response_item", {"type": kind, "agent": agent, **payload})

    def _event(self, kind: str, payload: Record) -> None:
        self._write("event_msg", {"type": kind, **payload})

    def _write(self, kind: str, payload: Record) -> None:
        self.records.append({"timestamp": _utc(self._at), "type": kind, "payload": payload})


def _text_of(content: Content) -> str:
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else IMAGE for part in content)


def _last_message(envelope: Record) -> str | None:
    """Return the answer as text, as it stands in the envelope."""
    if not envelope["ok"]:
        return None
    result = envelope["result"]
    return result if isinstance(result, str) else jsonio.dumps(result).decode()


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    """Return a value without secrets, and without the surrogates that no UTF-8 can hold."""
    if isinstance(value, str):
        return clean(value if value.isascii() else value.encode("utf-8", "replace").decode())
    if isinstance(value, dict):
        return {name: _cleaned(item, clean) for name, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item, clean) for item in value]
    return value


def _utc(seconds: float) -> str:
    found = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return found.replace("+00:00", "Z")
