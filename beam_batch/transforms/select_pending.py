"""SelectPending: leave out the rows that were answered before."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam

from beam_batch.outputs import parts
from beam_batch.outputs.workdir import WorkDir
from beam_batch.records import Row


class SelectPending(beam.PTransform):
    """Drop rows that this work directory has an answer for; resume is nothing more than this.

    Input and output: Row.
    """

    def __init__(self, work: WorkDir, session: int) -> None:
        super().__init__()
        self._fn = _SelectPendingFn(work, session)

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        """Apply to a collection of rows."""
        return rows | beam.ParDo(self._fn)


class _SelectPendingFn(beam.DoFn):
    def __init__(self, work: WorkDir, session: int) -> None:
        self._work = work
        self._session = session

    def start_bundle(self) -> None:
        self._shard: int | None = None
        self._done: set[int] = set()
        self._finished = parts.FinishedRows(self._work.place, self._session)

    def process(self, row: Row) -> Iterator[Row]:
        if row.shard != self._shard:
            self._shard = row.shard
            self._done = self._finished.of(row.shard or 0)
        if row.number not in self._done:
            yield row
