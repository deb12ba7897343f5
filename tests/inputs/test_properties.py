"""Properties: whatever the rows, however they are written and cut, they come back in order."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_batch.inputs import jsonl
from beam_batch.inputs.spool import ArrayElements
from beam_batch.records import Source
from tests.inputs.test_formats import rows_of

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
LONG = st.integers() | st.integers(-(10**40), 10**40)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | LONG | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(TEXT, VALUES, max_size=4), max_size=12)
NAMES = st.lists(TEXT.filter(str.strip), min_size=1, max_size=4, unique=True)
TABLES = NAMES.flatmap(
    lambda names: st.tuples(
        st.just(names),
        st.lists(
            st.tuples(*[TEXT] * len(names)).map(lambda cells: dict(zip(names, cells, strict=True))),
            max_size=12,
        ),
    )
)
SIZES = st.integers(1, 6)


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstd}


def check(path: Path, rows: list[dict[str, Any]], size: int) -> None:
    found = rows_of(path, size)
    assert [row.failure for row in found] == [None] * len(rows)
    assert [row.number for row in found] == list(range(1, len(rows) + 1))
    assert json.dumps([row.data for row in found]) == json.dumps(rows)


@given(
    rows=OBJECTS,
    size=SIZES,
    suffix=st.sampled_from(list(COMPRESS)),
    ends=st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\r\n"]),
    last=st.booleans(),
    ascii_only=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_objects_written_as_jsonl_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    size: int,
    suffix: str,
    ends: str,
    last: bool,
    ascii_only: bool,
) -> None:
    path = tmp_path_factory.mktemp("p") / f"a.jsonl{suffix}"
    text = ends.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    path.write_bytes(COMPRESS[suffix]((text + ends * last).encode()))
    check(path, rows, size)


@given(
    rows=OBJECTS,
    size=SIZES,
    suffix=st.sampled_from(list(COMPRESS)),
    indent=st.sampled_from([None, 1]),
    block=st.integers(1, 64),
)
@settings(max_examples=120, deadline=None)
def test_objects_written_as_a_json_array_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    size: int,
    suffix: str,
    indent: int | None,
    block: int,
) -> None:
    path = tmp_path_factory.mktemp("p") / f"a.json{suffix}"
    path.write_bytes(COMPRESS[suffix](json.dumps(rows, indent=indent).encode()))
    with mock.patch("beam_batch.inputs.spool._BLOCK", block):
        check(path, rows, size)


@given(
    table=TABLES,
    size=SIZES,
    suffix=st.sampled_from(list(COMPRESS)),
    ends=st.sampled_from(["\n", "\r\n"]),
    tabs=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_strings_written_as_csv_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    table: tuple[list[str], list[dict[str, Any]]],
    size: int,
    suffix: str,
    ends: str,
    tabs: bool,
) -> None:
    names, rows = table
    path = tmp_path_factory.mktemp("p") / f"a.{'tsv' if tabs else 'csv'}{suffix}"
    text = io.StringIO(newline="")
    delimiter = "\t" if tabs else ","
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=ends, delimiter=delimiter)
    writer.writerows([names, *(row.values() for row in rows)])
    path.write_bytes(COMPRESS[suffix](text.getvalue().encode()))
    check(path, rows, size)


@given(
    table=TABLES,
    size=SIZES,
    group=st.integers(1, 5),
    compression=st.sampled_from(["none", "snappy", "zstd"]),
)
@settings(max_examples=80, deadline=None)
def test_strings_written_as_parquet_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    table: tuple[list[str], list[dict[str, Any]]],
    size: int,
    group: int,
    compression: str,
) -> None:
    names, rows = table
    path = tmp_path_factory.mktemp("p") / "a.parquet"
    columns = [pa.array([row[name] for row in rows], pa.string()) for name in names]
    pq.write_table(
        pa.table(columns, names=names), path, row_group_size=group, compression=compression
    )
    check(path, rows, size)


PIECES = (
    b"\n", b"\n", b"\r\n", b"\r", b" ", b"\t", b"\x0b", b"\x0c", b"\x00", b"\x1c", b"\x7f",
    b"\x85", b"\xa0", b"\xff", b"{}", b'{"a":1}', b"a" * 9,
)  # fmt: skip
BYTES = st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join)


@given(
    data=BYTES, mark=st.booleans(), block=st.integers(1, 64), rows=SIZES, size=st.integers(1, 80)
)
@example(data=b"", mark=True, block=3, rows=1, size=80)
@example(data=b"\n", mark=True, block=3, rows=1, size=80)
@example(data=b"x\n", mark=True, block=4, rows=1, size=80)
@settings(max_examples=600, deadline=None)
def test_the_scan_of_lines_agrees_with_a_plain_count(
    tmp_path_factory: pytest.TempPathFactory,
    data: bytes,
    mark: bool,
    block: int,
    rows: int,
    size: int,
) -> None:
    whole = jsonl.BOM * mark + data
    block = max(block, len(jsonl.BOM)) if whole.startswith(jsonl.BOM[:1]) else block
    path = tmp_path_factory.getbasetemp() / "scanned.jsonl"
    path.write_bytes(whole)
    source = Source(str(path), str(path), "jsonl", "")
    with mock.patch.object(jsonl, "_BLOCK", block), mock.patch.object(jsonl, "SPLIT_BYTES", size):
        chunks = list(jsonl.scan(source, rows))

    expected = [line for line in whole.removeprefix(jsonl.BOM).split(b"\n") if line.strip()]
    assert sum(chunk.rows for chunk in chunks) == len(expected)
    found = []
    place = 0
    for chunk in chunks:
        assert place <= chunk.start < chunk.stop <= len(whole)
        assert chunk.start == 0 or whole[chunk.start - 1 : chunk.start] == b"\n"
        assert not whole[place : chunk.start].removeprefix(jsonl.BOM).strip()
        assert 1 <= chunk.rows <= rows
        assert len(list(jsonl.read(source, chunk.start, chunk.stop))) == chunk.rows
        part = whole[chunk.start : chunk.stop]
        part = part.removeprefix(jsonl.BOM) if chunk.start == 0 else part
        found += [line for line in part.split(b"\n") if line.strip()]
        place = chunk.stop
    assert found == expected


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values=st.lists(JSON_VALUES, max_size=5), size=st.integers(1, 9), indent=st.booleans())
def test_an_array_cut_anywhere_comes_out_as_its_elements(
    values: list[Any], size: int, indent: bool
) -> None:
    text = json.dumps(values, indent=2 if indent else None).encode()
    elements = ArrayElements()
    blocks = [text[1:][place : place + size] for place in range(0, len(text), size)]
    lines = [line for block in blocks for line in elements.of(block)]
    elements.end()
    assert [json.loads(line) for line in lines] == values
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines)
