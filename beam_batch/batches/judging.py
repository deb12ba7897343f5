"""From a line of results to the outcome of a row, as if it had been answered online."""

from __future__ import annotations

from typing import Any

from beam_batch.batches.base import Result
from beam_batch.calling.http import shaped
from beam_batch.errors import ProviderError, RowError
from beam_batch.options import ModelSpec, SchemaSpec
from beam_batch.outputs import envelope
from beam_batch.prompts.schema import make_validator
from beam_batch.providers import make_provider
from beam_batch.providers.base import Reply
from beam_batch.records import Failure, Outcome, Row

TIER = "batch"
"""What telemetry says of the service tier; a provider's own word for it may be the default one."""


class Judge:
    """Reads, validates and accounts for results."""

    def __init__(self, model: ModelSpec, schema: SchemaSpec | None, include_input: bool) -> None:
        self._provider = make_provider(model, schema)
        self._validate = make_validator(schema, self._provider.wraps)
        self._include_input = include_input

    def judge(self, row: Row, result: Result, notes: dict[str, Any], last: bool) -> Outcome | None:
        """Return the outcome of a row; None where a further attempt may help and there is one.

        Raises:
            FatalReply: the provider refuses every request of this run.
        """
        notes = notes | {"service_tier": TIER, "request_id": result.request_id}
        try:
            if result.error is not None:
                raise result.error
            reply: Reply = shaped("the body", self._provider.to_reply, result.body)
            _note(notes, reply)
            return envelope.succeed(
                row, self._validate(reply.text), _told(notes), self._include_input
            )
        except RowError as error:
            if isinstance(error, ProviderError):
                if error.retryable and not last:
                    return None
                notes["status"] = error.status
            _note(notes, error)
            return envelope.fail(row, Failure.of(error), _told(notes), self._include_input)


def _note(notes: dict[str, Any], reply: Reply | RowError) -> None:
    """Note what the provider reported, also of an answer that is a failure."""
    usage = getattr(reply, "usage", None)
    if usage is not None and (turn := usage.as_dict()):
        notes["usage"] = {"turn": turn}
    for name in ("model", "finish_reason", "request_id"):
        if notes.get(name) is None:
            notes[name] = getattr(reply, name, None)


def _told(notes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in notes.items() if value is not None}
