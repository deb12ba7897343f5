"""WriteParts: outcomes to part files, each on disk before the next element is taken."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from beam_batch.outputs.parts import PartWriter
from beam_batch.outputs.workdir import GaugeSpec, StopFlag, WorkDir
from beam_batch.records import Outcome


class WriteParts(beam.PTransform):
    """Append outcomes to the part files of their shards.

    Input: Outcome. Output: Receipt, one a part file, at the end of the bundle.
    """

    def __init__(
        self, kind: str, work: WorkDir, session: int, stop: StopFlag, max_errors: int | None = None
    ) -> None:
        super().__init__()
        self._fn = _WritePartsFn(kind, work, session, stop, max_errors)

    def expand(self, outcomes: beam.PCollection) -> beam.PCollection:
        """Apply to a collection of outcomes."""
        return outcomes | beam.ParDo(self._fn)


class _WritePartsFn(beam.DoFn):
    def __init__(
        self, kind: str, work: WorkDir, session: int, stop: StopFlag, max_errors: int | None
    ) -> None:
        self._kind = kind
        self._work = work
        self._session = session
        self._stop = stop
        self._max_errors = max_errors

    def setup(self) -> None:
        self._gauge = GaugeSpec(self._work, self._session).open()
        self._written = 0

    def start_bundle(self) -> None:
        session = 0 if self._kind == "kept" else self._session
        self._writer = PartWriter(self._work.parts, self._kind, session)

    def process(self, outcome: Outcome) -> None:
        try:
            self._writer.append(outcome)
        except OSError as error:  # every further reply would be lost as well: send no more
            self._stop.set(f"cannot write to {self._work.path}: {error.strerror}", 1)
            return
        self._written += 1
        self._gauge.show({self._kind: self._written})
        if self._max_errors is not None and not outcome.ok:
            self._count_failure(self._max_errors)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        self._gauge.show({self._kind: self._written}, force=True)
        for receipt in self._writer.close():
            yield WindowedValue(receipt, GlobalWindow().max_timestamp(), [GlobalWindow()])

    def _count_failure(self, limit: int) -> None:
        """Count failures over all workers: a byte each in one file."""
        with (self._work.root / f"failures-{self._session:04d}").open("ab", buffering=0) as file:
            file.write(b"x")
            count = file.tell()
        if count >= limit:
            self._stop.set(f"stopped by --max-errors {limit}: {count} rows failed", 3)
