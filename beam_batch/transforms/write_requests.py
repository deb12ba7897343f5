"""WriteRequests: prompts to the request files of a provider's Batch API."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from beam_batch.batches.files import RequestWriter
from beam_batch.batches.journal import Journal, RequestFile
from beam_batch.batches.services import limits_of, make_service
from beam_batch.batches.stored import journal_path
from beam_batch.errors import RowError
from beam_batch.options import ModelSpec, RunSpec
from beam_batch.outputs import envelope
from beam_batch.outputs.recording import RecordSpec
from beam_batch.providers import make_provider
from beam_batch.records import Failure, Outcome, Prompt
from beam_batch.transforms.windows import in_global_window

FAILED = "failed"


class WriteRequests(beam.PTransform):
    """Write each prompt's request into files, cut at the provider's limits.

    Input: Prompt. Outputs: `files` (RequestFile), closed and on disk, at the end of the bundle, and
    `failed` (Outcome) for rows whose request cannot be sent.
    """

    def __init__(self, spec: RunSpec, record: RecordSpec) -> None:
        super().__init__()
        self._fn = _WriteRequestsFn(spec, record)

    def expand(self, prompts: beam.PCollection) -> beam.DoOutputsTuple:
        """Apply to a collection of prompts."""
        return prompts | beam.ParDo(self._fn).with_outputs(FAILED, main="files")


class _WriteRequestsFn(beam.DoFn):
    def __init__(self, spec: RunSpec, record: RecordSpec) -> None:
        assert isinstance(spec.model, ModelSpec)
        self._model = spec.model
        self._spec = spec
        self._record = record

    def setup(self) -> None:
        spec = self._spec
        self._provider = make_provider(self._model, spec.schema)
        self._service = make_service(self._model, spec.call.timeout_of(self._model))

    def start_bundle(self) -> None:
        limits = limits_of(self._model, self._spec.batch.batch_size)
        self._writer = RequestWriter(self._record.work.batches, limits)

    def process(self, prompt: Prompt) -> Iterator[Any]:
        if self._record.stop.is_set_here():
            return
        include = self._spec.output.include_input
        try:
            request = self._provider.to_request(self._spec.prompt.instruction, prompt.text)
            self._writer.add(prompt.row, self._service.line(request), include)
        except RowError as error:
            outcome: Outcome = envelope.fail(
                prompt.row, Failure.of(error), {"attempts": 0}, include
            )
            yield beam.pvalue.TaggedOutput(FAILED, outcome)

    def finish_bundle(self) -> Iterator[Any]:
        for file in self._writer.close():
            yield in_global_window(file)


class PlanBatches(beam.PTransform):
    """Note in the journal, once and in one line, that all request files are written.

    Input: RequestFile, and what else is to be over first. Guarantee: nothing is noted where the
    run was stopped, so that the files are written again.
    """

    def __init__(self, record: RecordSpec) -> None:
        super().__init__()
        self._record = record

    def expand(self, closed: beam.PCollection) -> beam.PCollection:
        """Apply to the files of all writers."""
        start = closed.pipeline | "EvenIfEmpty" >> beam.Create([(None, None)])
        keyed = closed | "OneKey" >> beam.Map(_with_one_key)
        return (
            (start, keyed)
            | "AllFiles" >> beam.Flatten()
            | "Gather" >> beam.GroupByKey()
            | "Plan" >> beam.ParDo(_PlanFn(self._record))
        )


def _with_one_key(closed: RequestFile) -> tuple[None, RequestFile]:
    return (None, closed)


class _PlanFn(beam.DoFn):
    def __init__(self, record: RecordSpec) -> None:
        self._record = record

    def process(self, item: tuple[None, Iterable[RequestFile | None]]) -> None:
        if self._record.stop.is_set():
            return
        files = sorted(file for file in item[1] if isinstance(file, RequestFile))
        journal = Journal(journal_path(self._record.work))
        journal.plan(files, 1, session=self._record.session)
