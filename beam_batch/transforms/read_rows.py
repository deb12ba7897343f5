"""ReadRows: files to numbered rows, at the start of somebody's own pipeline."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam

from beam_batch.errors import OptionsError
from beam_batch.inputs.plan import plan_rows
from beam_batch.options import SourceSpec
from beam_batch.transforms.read_splits import ReadSplits


class ReadRows(beam.PTransform):
    """Read rows with their numbers and ids, as a run reads them.

    Input: the pipeline itself. Output: Row, numbered from 1 over all files. Where a row cannot be
    read, its Row carries the failure, which RenderPrompts passes on.

    Applying it scans the input once, to number its rows and to check its ids; the workers read
    splits of it side by side. What cannot be read from the middle (compressed text, standard input,
    the result of a query) is copied to `folder`, which workers on other machines must see as well.

    Args:
        input: a file, folder, glob, URL or hub name, or several; or a SourceSpec, which can also
            choose rows (limit, sample, sql).
        id_field: field whose value identifies a row; without it the row's number does.
        input_format: jsonl, json, csv, tsv, parquet or arrow, where suffixes do not say so.
        images: fields that hold images as bytes; they become data: URLs.
        folder: where copies are put; None for a temporary folder of this process.

    Raises:
        OptionsError: the input cannot be read, or ids are unusable or not unique.
    """

    def __init__(
        self,
        input: str | Sequence[str] | SourceSpec,
        *,
        id_field: str | None = None,
        input_format: str | None = None,
        images: Sequence[str] = (),
        folder: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(input, SourceSpec):
            if id_field is not None or input_format is not None:
                raise OptionsError("ReadRows: id_field and input_format belong in the SourceSpec.")
            self._source = input
        else:
            named = input if isinstance(input, str) else tuple(input)
            self._source = SourceSpec(input=named, id_field=id_field, input_format=input_format)
        self._images = tuple(images)
        self._folder = folder

    def expand(self, pipeline: beam.pvalue.PBegin) -> beam.PCollection:
        """Apply to a pipeline."""
        if not isinstance(pipeline, beam.pvalue.PBegin):
            raise OptionsError(
                "ReadRows begins a pipeline, as pipeline | ReadRows(path); it takes no collection."
            )
        folder = Path(self._folder) if self._folder else _temporary_folder()
        folder.mkdir(parents=True, exist_ok=True)
        plan = plan_rows(self._source, folder)
        return (
            pipeline
            | "Splits" >> beam.Create(plan.splits)
            | "Reshuffle" >> beam.Reshuffle()
            | "ReadSplits" >> ReadSplits(self._source.id_field, images=self._images)
        )


def _temporary_folder() -> Path:
    """Make a folder that is removed when this process ends."""
    folder = tempfile.mkdtemp(prefix="beam-batch-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
