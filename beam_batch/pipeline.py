"""The graph, on one screen."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import apache_beam as beam

from beam_batch.calling.setup import WindowSpec
from beam_batch.options import ModelSpec, RunSpec
from beam_batch.outputs.commit import CommitSpec
from beam_batch.outputs.recording import KEPT, RecordSpec
from beam_batch.outputs.workdir import StopFlag
from beam_batch.prompts.template import image_fields, stable_prefix
from beam_batch.records import Split
from beam_batch.transforms.call_model import CallModel
from beam_batch.transforms.commit_outputs import CommitOutputs
from beam_batch.transforms.read_splits import ReadSplits
from beam_batch.transforms.render_prompts import RenderPrompts
from beam_batch.transforms.select_pending import SelectPending
from beam_batch.transforms.write_parts import WriteParts
from beam_batch.transforms.write_requests import PlanBatches, WriteRequests


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the launcher decided: the settings, the splits, where things are put, and how many
    worker processes share this machine.

    Attributes:
        since: session whose failures, and later ones, are final; None for this session.
    """

    spec: RunSpec
    splits: tuple[Split, ...]
    commit: CommitSpec
    stop: StopFlag
    workers: int = 1
    alone: bool = False
    since: int | None = None

    @property
    def record(self) -> RecordSpec:
        """Where outcomes are recorded."""
        return RecordSpec(
            work=self.commit.work,
            session=self.commit.session,
            stop=self.stop,
            max_errors=self.spec.output.max_errors,
            run_id=self.commit.traces.run_id if self.commit.traces else None,
        )


def build(pipeline: beam.Pipeline, job: Job) -> None:
    """Add the graph of a run to a pipeline. Does no I/O."""
    record = job.record
    rows, prompts = _prompts(pipeline, job)
    answers = prompts.prompts | "CallModel" >> CallModel.recording(_window_spec(job))
    receipts = (
        rows.kept | "WriteKept" >> WriteParts(KEPT, record),
        prompts.failed | "WriteUnrenderable" >> WriteParts("unrenderable", record),
        answers.receipts,
    )
    receipts | "Receipts" >> beam.Flatten() | "CommitOutputs" >> CommitOutputs(job.commit, job.stop)


def _window_spec(job: Job) -> WindowSpec:
    spec = job.spec
    assert isinstance(spec.model, ModelSpec), "models are resolved at the start"
    return WindowSpec(
        token=uuid.uuid4().hex,
        model=spec.model,
        instruction=spec.prompt.instruction,
        schema=spec.schema,
        call=spec.call,
        repair=spec.repair,
        budget=spec.budget,
        reuse=spec.reuse,
        prefix=stable_prefix(spec.prompt.template),
        include_input=spec.output.include_input,
        record=job.record,
        workers=job.workers,
        alone=job.alone,
        crew=spec.crew,
    )


def build_requests(pipeline: beam.Pipeline, job: Job) -> None:
    """Add the first graph of a run through a Batch API: it ends with request files."""
    rows, prompts = _prompts(pipeline, job)
    requests = prompts.prompts | "WriteRequests" >> WriteRequests(job.spec, job.record)
    closed = (
        rows.kept | "WriteKept" >> WriteParts(KEPT, job.record),
        prompts.failed | "WriteUnrenderable" >> WriteParts("unrenderable", job.record),
        requests.failed | "WriteUnsendable" >> WriteParts("failed", job.record),
        requests.files,
    )
    closed | "Closed" >> beam.Flatten() | "PlanBatches" >> PlanBatches(job.record)


def build_commit(pipeline: beam.Pipeline, job: Job) -> None:
    """Add the last graph of a run through a Batch API, once every row has an outcome."""
    pipeline | "Settled" >> beam.Create([]) | "CommitOutputs" >> CommitOutputs(job.commit, job.stop)


def _prompts(pipeline: beam.Pipeline, job: Job) -> tuple[beam.DoOutputsTuple, beam.DoOutputsTuple]:
    """Add what every run begins with; return rows and prompts."""
    spec, out = job.spec, job.spec.output
    images = image_fields(spec.prompt.template)

    rows = (
        pipeline
        | "Splits" >> beam.Create(job.splits)
        | "Reshuffle" >> beam.Reshuffle()
        | "ReadRows" >> ReadSplits(spec.source.id_field, job.stop, images, spec.prompt.group_by)
        | "SelectPending" >> SelectPending(job.commit.work, job.since or job.commit.session)
    )
    prompts = rows.pending | "RenderPrompts" >> RenderPrompts(
        spec.prompt.template, spec.source.id_field, out.include_input, spec.prompt.files_root
    )
    return rows, prompts
