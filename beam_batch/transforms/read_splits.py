"""ReadSplits: splits to rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import apache_beam as beam

from beam_batch.errors import InputLost, OptionsError
from beam_batch.inputs.reading import grouped, read_rows
from beam_batch.outputs.stopping import StopFlag
from beam_batch.records import Row, Split

LOOK_EVERY = 100
"""Rows between looks for the stop flag at its place."""


class ReadSplits(beam.PTransform):
    """Read the rows of splits.

    Input: Split. Output: Row, in input order within a split, or with `group_by` those together that
    have the same value of that field; an unreadable row carries its failure.
    """

    def __init__(
        self,
        id_field: str | None = None,
        stop: StopFlag | None = None,
        images: tuple[str, ...] = (),
        group_by: str | None = None,
    ) -> None:
        super().__init__()
        self._fn = _ReadSplitsFn(id_field, stop, images, group_by)

    def expand(self, splits: beam.PCollection) -> beam.PCollection:
        """Apply to a collection of splits."""
        return splits | beam.ParDo(self._fn)


class _ReadSplitsFn(beam.DoFn):
    def __init__(
        self,
        id_field: str | None,
        stop: StopFlag | None,
        images: tuple[str, ...],
        group_by: str | None,
    ) -> None:
        self._group_by = group_by
        self._id_field = id_field
        self._stop = stop
        self._images = images

    def process(self, split: Split) -> Iterator[Row]:
        rows = read_rows(split, self._id_field, images=self._images)
        if self._group_by is not None:
            rows = grouped(rows, self._group_by)
        for count in itertools.count():
            if self._stop is not None and self._is_stopped(self._stop, count):
                return
            try:
                row = next(rows, None)
            except (InputLost, OptionsError) as error:  # the file, not the row: stop, and drain
                if self._stop is None:
                    raise
                self._stop.set(str(error), 1)
                return
            if row is None:
                return
            yield row

    def _is_stopped(self, stop: StopFlag, count: int) -> bool:
        """Ask the place itself now and then: where no model is called, nobody else does."""
        return stop.is_set_here() or (count % LOOK_EVERY == 0 and stop.is_set())
