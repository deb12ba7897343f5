"""ToDict: outcomes to dicts that any sink takes."""

from __future__ import annotations

from typing import Any

import apache_beam as beam

from beam_batch.outputs.records import flat_record
from beam_batch.records import Outcome


class ToDict(beam.PTransform):
    """Turn each outcome into a dict.

    Input: Outcome. Output: the envelope (id, row_number, ok, result, error); or with `flat` one
    record for tables: id, row_number, ok, result (text, or JSON as text), error_type,
    error_message, model, attempts, input_tokens, output_tokens, cost_usd, duration_ms.
    """

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        self._flat = flat

    def expand(self, outcomes: beam.PCollection) -> beam.PCollection:
        """Apply to a collection of outcomes."""
        return outcomes | beam.Map(flat_record if self._flat else _envelope)


def _envelope(outcome: Outcome) -> dict[str, Any]:
    return outcome.envelope
