"""ToJson: outcomes to the lines of a JSONL file."""

from __future__ import annotations

import apache_beam as beam

from beam_batch import jsonio
from beam_batch.records import Outcome


class ToJson(beam.PTransform):
    """Write each outcome's envelope as a line of JSON, for WriteToText.

    Input: Outcome. Output: str.
    """

    def expand(self, outcomes: beam.PCollection) -> beam.PCollection:
        """Apply to a collection of outcomes."""
        return outcomes | beam.Map(envelope_line)


def envelope_line(outcome: Outcome) -> str:
    """Write an outcome's envelope as one line of JSON."""
    return jsonio.dumps(outcome.envelope).decode()
