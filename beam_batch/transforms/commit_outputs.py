"""CommitOutputs: once every part file is closed, put the final files in place."""

from __future__ import annotations

from collections.abc import Iterable

import apache_beam as beam

from beam_batch.outputs.commit import CommitSpec, commit
from beam_batch.outputs.workdir import StopFlag
from beam_batch.records import Receipt


class CommitOutputs(beam.PTransform):
    """Merge part files into the final files; does nothing where the run was stopped.

    Input: Receipt. Guarantee: runs once after all receipts; running again gives the same files.
    """

    def __init__(self, spec: CommitSpec, stop: StopFlag) -> None:
        super().__init__()
        self._spec = spec
        self._stop = stop

    def expand(self, receipts: beam.PCollection) -> beam.PCollection:
        """Apply to the receipts of all writers."""
        start = receipts.pipeline | "EvenIfEmpty" >> beam.Create([(None, None)])
        keyed = receipts | "OneKey" >> beam.Map(_with_one_key)
        return (
            (start, keyed)
            | "AllReceipts" >> beam.Flatten()
            | "Gather" >> beam.GroupByKey()
            | "Commit" >> beam.ParDo(_CommitFn(self._spec, self._stop))
        )


def _with_one_key(receipt: Receipt) -> tuple[None, Receipt]:
    return (None, receipt)


class _CommitFn(beam.DoFn):
    def __init__(self, spec: CommitSpec, stop: StopFlag) -> None:
        self._spec = spec
        self._stop = stop

    def process(self, _: tuple[None, Iterable[Receipt | None]]) -> None:
        if not self._stop.is_set():
            commit(self._spec)
