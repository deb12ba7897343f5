"""SelectPending: leave out the rows that were answered before."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam

from beam_batch.outputs import envelope, parts
from beam_batch.outputs.prior import PriorAnswers
from beam_batch.outputs.recording import KEPT
from beam_batch.outputs.workdir import WorkDir
from beam_batch.records import Outcome, Row


class SelectPending(beam.PTransform):
    """Drop rows that this work directory has an answer for; resume is nothing more than this.

    Input: Row. Outputs: `pending` (Row), and `kept` (Outcome) for rows that a finished output has
    an answer for.
    """

    def __init__(self, work: WorkDir, session: int) -> None:
        super().__init__()
        self._work = work
        self._session = session

    def expand(self, rows: beam.PCollection) -> beam.DoOutputsTuple:
        """Apply to a collection of rows."""
        fn = _SelectPendingFn(self._work, self._session)
        return rows | beam.ParDo(fn).with_outputs(KEPT, main="pending")


class _SelectPendingFn(beam.DoFn):
    def __init__(self, work: WorkDir, session: int) -> None:
        self._work = work
        self._session = session

    def start_bundle(self) -> None:
        self._shard: int | None = None
        self._done: set[int] = set()
        self._parts = parts.by_shard(self._work.parts)
        self._prior = PriorAnswers(self._work.prior) if self._work.prior.exists() else None

    def process(self, row: Row) -> Iterator[Row | beam.pvalue.TaggedOutput]:
        if row.shard != self._shard:
            self._shard = row.shard
            self._done = parts.finished_rows(self._parts.get(row.shard or 0, []), self._session)
        if row.number in self._done:
            return
        kept = self._kept(row)
        yield row if kept is None else beam.pvalue.TaggedOutput(KEPT, kept)

    def _kept(self, row: Row) -> Outcome | None:
        if self._prior is None or row.failure is not None:
            return None
        place = self._prior.find(row.id)
        if place is None:
            return None
        return envelope.keep(row, self._prior.read(place) | {"row_number": row.number})

    def finish_bundle(self) -> None:
        if self._prior is not None:
            self._prior.close()
