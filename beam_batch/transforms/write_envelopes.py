"""WriteEnvelopes: outcomes to JSONL files, in folders of their own where that is wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.io import fileio
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.value_provider import StaticValueProvider
from apache_beam.transforms.window import GlobalWindow, IntervalWindow

from beam_batch import jsonio
from beam_batch.errors import OptionsError
from beam_batch.inputs.columnar import normalise
from beam_batch.outputs.partitions import PartitionBy, folder_of
from beam_batch.records import Outcome

Keyed = tuple[str, str]
"""A folder, and a line for one of its files."""


class WriteEnvelopes(beam.PTransform):
    """Write one line of strict JSON for each element, through Beam's file systems (also s3, gs).

    Input: Outcome (its envelope is written), dict, or Beam Row. Output: the URI of each file, once
    it is in place. A file appears whole or not at all; there is one a bundle, folder and window, as
    `part-00000-of-00002.jsonl`, for windows other than the global one with start and end before it.
    Other files of the folder stay there, those of the same names are replaced: give each
    WriteEnvelopes, and each run of a pipeline, a folder of its own.

    Args:
        path: a folder, created where it is missing.
        partition_by: a field of the written line, dots leading inwards ("result.mood"), which makes
            folders `mood=VALUE`; or a function of the written dict that names the folder.

    Raises:
        OptionsError: the path is empty.
    """

    def __init__(self, path: str, partition_by: PartitionBy = None) -> None:
        super().__init__()
        if not path:
            raise OptionsError("WriteEnvelopes needs a folder, got ''.")
        self._path = path
        self._partition_by = partition_by

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        """Apply to a collection of outcomes, dicts or Beam Rows."""
        # Beam would put temporary files beside the pipeline's own, maybe on another file system.
        temporary = StaticValueProvider(str, FileSystems.join(self._path, ".writing"))
        return (
            elements
            | "ToLines" >> beam.Map(_keyed_line, self._partition_by)
            | "Write"
            >> fileio.WriteToFiles(
                self._path,
                destination=_folder,
                sink=_sink,
                file_naming=_Naming(self._path),
                temp_directory=temporary,
            )
            | "InPlace" >> beam.ParDo(_InPlaceFn(self._path))
        )


def to_record(element: Any) -> dict[str, Any]:
    """Return what is written of an element.

    Raises:
        OptionsError: it has no fields.
    """
    if isinstance(element, Outcome):
        return element.envelope
    data = element._asdict() if hasattr(element, "_asdict") else element
    if not isinstance(data, Mapping):
        raise OptionsError(
            f"WriteEnvelopes takes outcomes, dicts and Beam Rows, got {type(element).__name__}."
        )
    return {str(name): normalise(value) for name, value in data.items()}


def _keyed_line(element: Any, partition_by: PartitionBy) -> Keyed:
    record = to_record(element)
    return folder_of(record, partition_by), jsonio.dumps(record).decode()


def _folder(keyed: Keyed) -> str:
    return keyed[0]


class _Sink(fileio.TextSink):
    def write(self, record: Keyed) -> None:
        super().write(record[1])


def _sink(_: str) -> _Sink:
    return _Sink()


class _Naming:
    """Names final files, and makes their folders: Beam's own move does not."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(
        self, window: Any, _pane: Any, shard: int, shards: int, _compression: Any, folder: str
    ) -> str:
        name = f"{_span(window)}part-{shard:05d}-of-{shards:05d}.jsonl"
        if not folder:
            return name
        with contextlib.suppress(OSError):  # it may be there; whether files arrive is looked at
            FileSystems.mkdirs(FileSystems.join(self._path, *folder.split("/")))
        return FileSystems.join(folder, name)


def _span(window: Any) -> str:
    if isinstance(window, GlobalWindow) or window is None:
        return ""
    if not isinstance(window, IntervalWindow):
        return f"{abs(hash(window))}-"
    times = (
        time.to_utc_datetime().strftime("%Y%m%dT%H%M%S.%f") for time in (window.start, window.end)
    )
    return "".join(f"{time.removesuffix('.000000')}-" for time in times)


class _InPlaceFn(beam.DoFn):
    """Look whether files are there: Beam's move only logs what it could not move."""

    def __init__(self, path: str) -> None:
        self._path = path

    def process(self, written: fileio.FileResult) -> Iterator[str]:
        uri = FileSystems.join(self._path, written.file_name)
        if not FileSystems.exists(uri):
            raise OSError(f"{uri} could not be put in place; is its folder writable?")
        yield uri
