"""From a line of results to the outcome of a row, as if it had been answered online."""

from __future__ import annotations

from typing import Any

from beam_batch.batches.base import Result
from beam_batch.calling.judging import judge
from beam_batch.calling.pricing import make_pricer
from beam_batch.calling.transports.http import shaped
from beam_batch.errors import ProviderError, RowError
from beam_batch.options import ModelSpec, PriceSpec, SchemaSpec
from beam_batch.outputs import envelope
from beam_batch.prompts.schema import make_validator
from beam_batch.providers import make_provider
from beam_batch.providers.base import Reply, Usage
from beam_batch.records import Failure, Outcome, Row

TIER = "batch"
"""What telemetry says of the service tier; a provider's own word for it may be the default one."""


class Judge:
    """Reads, validates and accounts for results."""

    def __init__(
        self,
        model: ModelSpec,
        schema: SchemaSpec | None,
        include_input: bool,
        price: PriceSpec | None = None,
    ) -> None:
        self._pricer = make_pricer(model, price)
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
            self._note(notes, reply)
            judged = judge(self._validate, reply.text)
            if judged.was_repaired:
                notes["repaired"] = True
            return envelope.succeed(row, judged.result, _told(notes), self._include_input)
        except RowError as error:
            if isinstance(error, ProviderError):
                if error.retryable and not last:
                    return None
                notes["status"] = error.status
            self._note(notes, error)
            return envelope.fail(row, Failure.of(error), _told(notes), self._include_input)

    def _note(self, notes: dict[str, Any], reply: Reply | RowError) -> None:
        """Note what the provider reported, also of an answer that is a failure."""
        usage: Usage | None = getattr(reply, "usage", None)
        if usage is not None and (turn := usage.as_dict()):
            notes["usage"] = {"turn": turn}
            cost = self._pricer.cost(usage, getattr(reply, "model", None), None, batch=True)
            notes["cost_usd"] = cost and round(cost.usd, 10)
            if cost is not None and cost.saved:
                notes["saved_usd"] = round(cost.saved, 10)
        for name in ("model", "finish_reason", "request_id"):
            if notes.get(name) is None:
                notes[name] = getattr(reply, name, None)


def _told(notes: dict[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in notes.items() if v is not None or name == "cost_usd"}
