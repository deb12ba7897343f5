"""ReadRows: splits to rows."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam

from beam_batch.inputs.plan import read_split
from beam_batch.outputs.workdir import StopFlag
from beam_batch.records import Row, Split


class ReadRows(beam.PTransform):
    """Read the rows of splits.

    Input: Split. Output: Row, in input order within a split; an unreadable row carries its failure.
    """

    def __init__(self, id_field: str | None = None, stop: StopFlag | None = None) -> None:
        super().__init__()
        self._id_field = id_field
        self._stop = stop

    def expand(self, splits: beam.PCollection) -> beam.PCollection:
        """Apply to a collection of splits."""
        return splits | beam.ParDo(_ReadRowsFn(self._id_field, self._stop))


class _ReadRowsFn(beam.DoFn):
    def __init__(self, id_field: str | None, stop: StopFlag | None) -> None:
        self._id_field = id_field
        self._stop = stop

    def process(self, split: Split) -> Iterator[Row]:
        for row in read_split(split, self._id_field):
            if self._stop is not None and self._stop.is_set_here():
                return
            yield row
