"""WriteParts: outcomes to part files, each on disk before the next element is taken.

In an object store they are there at the end of the bundle.
"""

from __future__ import annotations

import apache_beam as beam

from beam_batch.outputs.gauges import Gauge
from beam_batch.outputs.recording import RecordSpec
from beam_batch.records import Outcome


class WriteParts(beam.PTransform):
    """Append outcomes that cost no call to the part files of their shards.

    Input: Outcome. Output: nothing; whatever waits for it goes on when all are written.
    """

    def __init__(self, kind: str, record: RecordSpec) -> None:
        super().__init__()
        self._fn = _WritePartsFn(kind, record)

    def expand(self, outcomes: beam.PCollection) -> beam.PCollection:
        """Apply to a collection of outcomes."""
        return outcomes | beam.ParDo(self._fn)


class _WritePartsFn(beam.DoFn):
    def __init__(self, kind: str, record: RecordSpec) -> None:
        self._kind = kind
        self._record = record

    def setup(self) -> None:
        self._gauge = Gauge(self._record.work, self._record.session)
        self._written = 0

    def start_bundle(self) -> None:
        self._recorder = self._record.open()
        self._before = self._written

    def process(self, outcome: Outcome) -> None:
        if self._recorder.record(outcome, self._kind):
            self._written += 1
            self._gauge.show({self._kind: self._written})

    def finish_bundle(self) -> None:
        self._recorder.close()
        if self._recorder.has_lost:  # which of them, nobody knows
            self._written = self._before
        if self._written != self._before or self._recorder.has_lost:
            self._gauge.show({self._kind: self._written}, force=True)
