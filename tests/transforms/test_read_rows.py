"""ReadRows: files of several kinds as the beginning of a pipeline."""

from __future__ import annotations

import gzip
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_batch import CallModel, OptionsError, ReadRows, RenderPrompts, SourceSpec, ToDict
from tests.support import write_jsonl
from tests.transforms.support import expect, pipeline


def test_rows_are_numbered_over_all_files_whatever_their_kind(tmp_path: Path) -> None:
    plain = write_jsonl(tmp_path / "a.jsonl", [{"id": "a"}, {"id": "b"}])
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"id": "c"}\nno json\n'))
    pq.write_table(pa.table({"id": ["d"], "at": [b"\x01"]}), tmp_path / "c.parquet")
    with pipeline() as p:
        rows = p | ReadRows([str(plain), f"{tmp_path}/b.jsonl.gz", f"{tmp_path}/c.parquet"])
        told = rows | beam.Map(
            lambda row: (row.number, row.data and row.data["id"], row.failure and row.failure.type)
        )
        expect(
            told,
            [(1, "a", None), (2, "b", None), (3, "c", None), (4, None, "InvalidJSON"),
             (5, "d", None)],
        )  # fmt: skip


def test_ids_and_failures_go_into_envelopes(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"key": "x", "text": "one"}, {"key": "y"}])
    with pipeline() as p:
        prompts = p | ReadRows(str(path), id_field="key") | RenderPrompts("{{text}}")
        answers = prompts.prompts | CallModel("echo")
        envelopes = (answers.ok, prompts.failed) | beam.Flatten() | ToDict()
        told = envelopes | beam.Map(lambda e: (e["id"], e["row_number"], e["ok"], e["result"]))
        expect(told, [("x", 1, True, "one"), ("y", 2, False, None)])


def test_a_source_spec_chooses_rows(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(9)])
    spec = SourceSpec(input=str(path), offset=3, limit=2)
    with pipeline() as p:
        told = p | ReadRows(spec) | beam.Map(lambda row: (row.number, row.data["n"]))
        expect(told, [(4, 3), (5, 4)])


def test_copies_are_put_into_the_folder_that_workers_see(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b'{"n": 1}\n'))
    with pipeline() as p:
        rows = p | ReadRows(f"{tmp_path}/rows.jsonl.gz", folder=f"{tmp_path}/new/shared")
        expect(rows | beam.Map(lambda row: row.data), [{"n": 1}])
    assert [path for path in (tmp_path / "new" / "shared").rglob("*") if path.is_file()]


def test_what_cannot_be_read_is_refused_before_the_pipeline_runs(tmp_path: Path) -> None:
    twice = write_jsonl(tmp_path / "twice.jsonl", [{"id": "a"}, {"id": "a"}])
    with pytest.raises(OptionsError, match="ids must be unique"):
        pipeline() | ReadRows(str(twice), id_field="id")
    with pytest.raises(OptionsError, match=r"none\.jsonl"):
        pipeline() | ReadRows(f"{tmp_path}/none.jsonl")
    with pytest.raises(OptionsError, match="begins a pipeline"):
        pipeline() | beam.Create([1]) | ReadRows(str(twice))
    with pytest.raises(OptionsError, match="SourceSpec"):
        ReadRows(SourceSpec(input=str(twice)), id_field="id")
