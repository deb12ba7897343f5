"""The graph, on one screen."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam

from beam_batch.options import RunSpec
from beam_batch.outputs.commit import CommitSpec
from beam_batch.outputs.recording import KEPT, RecordSpec
from beam_batch.outputs.workdir import StopFlag
from beam_batch.prompts.template import image_fields, stable_prefix
from beam_batch.records import Split
from beam_batch.transforms.call_model import CallModel
from beam_batch.transforms.commit_outputs import CommitOutputs
from beam_batch.transforms.read_rows import ReadRows
from beam_batch.transforms.render_prompts import RenderPrompts
from beam_batch.transforms.select_pending import SelectPending
from beam_batch.transforms.write_parts import WriteParts


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the launcher decided: the settings, the splits, where things are put, and how many
    worker processes share this machine.
    """

    spec: RunSpec
    splits: tuple[Split, ...]
    commit: CommitSpec
    stop: StopFlag
    workers: int = 1


def build(pipeline: beam.Pipeline, job: Job) -> None:
    """Add the graph of a run to a pipeline. Does no I/O."""
    spec, out = job.spec, job.spec.output
    images = image_fields(spec.prompt.template)

    rows = (
        pipeline
        | "Splits" >> beam.Create(job.splits)
        | "Reshuffle" >> beam.Reshuffle()
        | "ReadRows" >> ReadRows(spec.source.id_field, job.stop, images)
        | "SelectPending" >> SelectPending(job.commit.work, job.commit.session)
    )
    record = RecordSpec(
        work=job.commit.work,
        session=job.commit.session,
        stop=job.stop,
        max_errors=out.max_errors,
    )
    prompts = rows.pending | "RenderPrompts" >> RenderPrompts(
        spec.prompt.template, spec.source.id_field, out.include_input, spec.prompt.files_root
    )
    answers = prompts.prompts | "CallModel" >> CallModel(
        spec.model,
        instruction=spec.prompt.instruction,
        schema=spec.schema,
        call=spec.call,
        repair=spec.repair,
        budget=spec.budget,
        reuse=spec.reuse,
        prefix=stable_prefix(spec.prompt.template),
        include_input=out.include_input,
        record=record,
        workers=job.workers,
    )
    receipts = (
        rows.kept | "WriteKept" >> WriteParts(KEPT, record),
        prompts.failed | "WriteUnrenderable" >> WriteParts("unrenderable", record),
        answers.receipts,
    )
    receipts | "Receipts" >> beam.Flatten() | "CommitOutputs" >> CommitOutputs(job.commit, job.stop)
