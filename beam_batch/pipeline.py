"""The graph, on one screen."""

from __future__ import annotations

import functools
import uuid
from dataclasses import dataclass

import apache_beam as beam

from beam_batch.calling.holding import LINGER
from beam_batch.calling.setup import WindowSpec
from beam_batch.options import ModelSpec, RunSpec
from beam_batch.outputs.commit import CommitSpec
from beam_batch.outputs.recording import RecordSpec
from beam_batch.outputs.stopping import StopFlag
from beam_batch.prompts.template import image_fields, stable_prefix
from beam_batch.records import Split
from beam_batch.transforms.call_model import CallModel
from beam_batch.transforms.check_worker import CheckWorker
from beam_batch.transforms.fused import Fused
from beam_batch.transforms.read_splits import ReadSplits
from beam_batch.transforms.render_prompts import RenderPrompts
from beam_batch.transforms.select_pending import SelectPending
from beam_batch.transforms.write_parts import WriteParts
from beam_batch.transforms.write_requests import PlanBatches, WriteRequests
from beam_batch.workers import LACKS, WorkerSpec

LOOKS = 16
"""Elements that are spread over workers, to look at as many of them as come."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the launcher decided: the settings, the splits, and where things are put.

    Attributes:
        is_child: whether the driver has started the worker processes, which end with it.
        since: session whose failures, and later ones, are final; None for this session.
        fused: the graph is one step, for an engine that would break it.
        worker: what worker processes must have, where that is not known.
    """

    spec: RunSpec
    splits: tuple[Split, ...]
    commit: CommitSpec
    stop: StopFlag
    is_child: bool = False
    alone: bool = False
    since: int | None = None
    fused: bool = False
    worker: WorkerSpec | None = None

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
    if job.fused:
        splits = pipeline | "Splits" >> beam.Create(job.splits)
        splits | "AnswerRows" >> Fused(functools.partial(_answers, job=job), job.stop)
        return
    _answers(_splits(pipeline, job.splits), job)


def _answers(splits: beam.PCollection, job: Job) -> None:
    """Add the way of a row from its split to a part file."""
    prompts = _prompts(splits, job)
    prompts.failed | "WriteUnrenderable" >> WriteParts("unrenderable", job.record)
    prompts.prompts | "CallModel" >> CallModel.recording(_window_spec(job))


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
        is_child=job.is_child,
        alone=job.alone,
        crew=spec.crew,
        linger=LINGER if job.fused else 0.0,
    )


def build_check(pipeline: beam.Pipeline, job: Job) -> None:
    """Add a graph that does nothing but look at workers, as many as happen to get an element."""
    elements = pipeline | "Looks" >> beam.Create(range(LOOKS))
    if not job.fused:
        elements = elements | "Reshuffle" >> beam.Reshuffle()
    _checked(elements, job, LACKS)


def _checked(elements: beam.PCollection, job: Job, exit_code: int = 1) -> beam.PCollection:
    if job.worker is None:
        return elements
    return elements | "CheckWorker" >> CheckWorker(job.worker, job.stop, exit_code)


def build_requests(pipeline: beam.Pipeline, job: Job) -> None:
    """Add the first graph of a run through a Batch API: it ends with request files."""
    prompts = _prompts(_splits(pipeline, job.splits), job)
    requests = prompts.prompts | "WriteRequests" >> WriteRequests(job.spec, job.record)
    closed = (
        prompts.failed | "WriteUnrenderable" >> WriteParts("unrenderable", job.record),
        requests.failed | "WriteUnsendable" >> WriteParts("failed", job.record),
        requests.files,
    )
    closed | "Closed" >> beam.Flatten() | "PlanBatches" >> PlanBatches(job.record)


def _splits(pipeline: beam.Pipeline, splits: tuple[Split, ...]) -> beam.PCollection:
    """Add the splits, each to go wherever a worker is free."""
    return pipeline | "Splits" >> beam.Create(splits) | "Reshuffle" >> beam.Reshuffle()


def _prompts(splits: beam.PCollection, job: Job) -> beam.DoOutputsTuple:
    """Add what every run begins with."""
    spec, out = job.spec, job.spec.output
    images = image_fields(spec.prompt.template)

    return (
        _checked(splits, job)
        | "ReadRows" >> ReadSplits(spec.source.id_field, job.stop, images, spec.prompt.group_by)
        | "SelectPending" >> SelectPending(job.commit.work, job.since or job.commit.session)
        | "RenderPrompts"
        >> RenderPrompts(
            spec.prompt.template, spec.source.id_field, out.include_input, spec.prompt.files_root
        )
    )
