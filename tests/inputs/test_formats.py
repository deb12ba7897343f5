"""Inputs: every odd file has an outcome with a name, and row numbers never slip."""

from __future__ import annotations

import datetime
import json
import random
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_batch.errors import OptionsError
from beam_batch.inputs.plan import Plan, plan_rows
from beam_batch.inputs.reading import read_rows
from beam_batch.options import SourceSpec
from beam_batch.records import Row


def planned(path: Path, rows_a_split: int = 5000, **source: Any) -> Plan:
    folder = path.parent / f"plan-{uuid.uuid4().hex}"
    folder.mkdir()
    return plan_rows(SourceSpec(input=str(path), **source), folder, rows_a_split)


def rows_of(path: Path, rows_a_split: int = 5000, **source: Any) -> list[Row]:
    plan = planned(path, rows_a_split, **source)
    id_field = source.get("id_field")
    found = [row for split in plan.splits for row in read_rows(split, id_field)]
    assert len(found) == plan.selected_rows
    return found


def outcomes(path: Path, **source: Any) -> list[Any]:
    """Return each row's data, or the name of its failure."""
    return [row.failure.type if row.failure else row.data for row in rows_of(path, **source)]


def test_jsonl_tolerates_bom_crlf_blank_lines_and_no_final_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\r\n\r\n  \n{"a":2}\n\n{"a":3}')
    assert outcomes(path) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [row.number for row in rows_of(path, 1)] == [1, 2, 3]


def test_jsonl_with_a_bom_and_nothing_else_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf\n")
    assert outcomes(tmp_path / "a.jsonl") == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"nope", "InvalidJSON"),
        (b'{"a": NaN}', "InvalidJSON"),
        (b'{"a": 12345678901234567890123, "b": NaN}', "InvalidJSON"),
        (b"[1]", "InvalidRow"),
        (b'"text"', "InvalidRow"),
        (b"null", "InvalidRow"),
        (b'{"a": "\xff"}', "InvalidEncoding"),
        (b'{"a": "\x00"}', "InvalidJSON"),
        (b"[" * 100_000, "InvalidJSON"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "InvalidJSON"),
        (b'{"a": 1e999}', "InvalidJSON"),
        (b'{"n": 12345678901234567890, "a": "\\ud800"}', "InvalidJSON"),
    ],
    ids=[
        "text",
        "nan",
        "nan-long",
        "list",
        "string",
        "null",
        "utf8",
        "nul",
        "deep",
        "deep-object",
        "infinite",
        "surrogate",
    ],
)
def test_a_bad_line_fails_alone(tmp_path: Path, line: bytes, name: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n' + line + b'\n{"a":3}\n')
    assert outcomes(path) == [{"a": 1}, name, {"a": 3}]


def test_long_integers_stay_exact(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 123456789012345678901234567890}')
    assert outcomes(tmp_path / "a.jsonl") == [{"a": 123456789012345678901234567890}]


def test_csv_reads_quotes_newlines_bom_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfid,text\r\n1,"two\r\nlines, ""quoted"""\r\n\r\n2,\r\n3,last')
    expected = [
        {"id": "1", "text": 'two\r\nlines, "quoted"'},
        {"id": "2", "text": ""},
        {"id": "3", "text": "last"},
    ]
    assert outcomes(path) == expected
    assert [row.data for row in rows_of(path, 1)] == expected


def test_csv_rows_of_the_wrong_width_or_encoding_fail_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,2\n3\n4,5,6\n\xff,7\n8,9\n")
    assert outcomes(path) == [
        {"a": "1", "b": "2"},
        "InvalidRow",
        "InvalidRow",
        "InvalidEncoding",
        {"a": "8", "b": "9"},
    ]


def test_csv_that_breaks_its_quotes_costs_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n2,"6"" pipe\n3,ok\n4,ok\n5,"x"\n6,"open\n7,ok\n')
    assert outcomes(path) == [
        "InvalidRow",
        {"a": "3", "b": "ok"},
        {"a": "4", "b": "ok"},
        {"a": "5", "b": "x"},
        "InvalidRow",
        {"a": "7", "b": "ok"},
    ]
    assert [row.number for row in rows_of(path, 1)] == [1, 2, 3, 4, 5, 6]


def test_a_csv_header_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"na\xefve,b\n1,2\n")
    with pytest.raises(OptionsError, match="header is not UTF-8"):
        rows_of(tmp_path / "a.csv")


def test_parquet_nanoseconds_are_read_at_any_depth(tmp_path: Path) -> None:
    kind = pa.timestamp("ns")
    table = pa.table(
        {
            "list": pa.array([[1_000, 2_000]], pa.list_(kind)),
            "struct": pa.array([{"t": 1_000}], pa.struct([("t", kind)])),
            "map": pa.array([[("k", 1_000)]], pa.map_(pa.string(), kind)),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    moment = "1970-01-01T00:00:00.000001"
    assert outcomes(tmp_path / "a.parquet") == [
        {
            "list": [moment, "1970-01-01T00:00:00.000002"],
            "struct": {"t": moment},
            "map": {"k": moment},
        }
    ]


def test_a_parquet_time_zone_that_nobody_knows_fails_its_rows(tmp_path: Path) -> None:
    table = pa.table({"t": pa.array([1], pa.timestamp("us", tz="Foo/Bar"))})
    pq.write_table(table, tmp_path / "a.parquet")
    assert outcomes(tmp_path / "a.parquet") == ["InvalidRow"]


def test_a_damaged_row_group_fails_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"id": [f"r{n}" for n in range(300)]})
    pq.write_table(table, path, row_group_size=100, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    found = outcomes(path, id_field="id")
    assert found[:100] == [{"id": f"r{n}"} for n in range(100)]
    assert found[100:200] == ["InvalidRow"] * 100
    assert found[200:] == [{"id": f"r{n}"} for n in range(200, 300)]


def test_a_parquet_file_with_other_rows_is_another_content(tmp_path: Path) -> None:
    digests = set()
    for order in (["bb", "cc"], ["cc", "bb"]):
        table = pa.table({"t": ["aa", *order, "dd"]})
        pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
        digests.add(planned(tmp_path / "a.parquet").digest)
    assert len(digests) == 2


def test_csv_fields_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n" + "x" * 500_000 + "\n")
    assert outcomes(tmp_path / "a.csv") == [{"a": "x" * 500_000}]


@pytest.mark.parametrize("header", ["a,a", "a,", ",b"])
def test_a_csv_header_must_name_each_column_once(tmp_path: Path, header: str) -> None:
    (tmp_path / "a.csv").write_text(header + "\n1,2\n")
    with pytest.raises(OptionsError, match="header"):
        rows_of(tmp_path / "a.csv")


@pytest.mark.parametrize("text", ["", "a,b\n", "a,b"])
def test_a_csv_without_rows_has_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert outcomes(tmp_path / "a.csv") == []


def test_parquet_values_become_json(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    columns = {
        "decimal": pa.array([Decimal("1.50")]),
        "time": pa.array([moment], pa.timestamp("us", "UTC")),
        "ns": pa.array([1704164645123456789], pa.timestamp("ns")),
        "date": pa.array([moment.date()]),
        "bytes": pa.array([b"caf\xc3\xa9\xff"]),
        "nested": pa.array([{"list": [None, {"x": float("nan")}]}]),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "inf": pa.array([float("inf")]),
        "duration": pa.array([90_000_000_000], pa.duration("ns")),
        "null": pa.array([None], pa.string()),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert outcomes(tmp_path / "a.parquet") == [
        {
            "decimal": "1.50",
            "time": "2024-01-02T03:04:05+00:00",
            "ns": "2024-01-02T03:04:05.123456",
            "date": "2024-01-02",
            "bytes": "café\ufffd",
            "nested": {"list": [None, {"x": None}]},
            "map": {"k": 1},
            "inf": None,
            "duration": "0:01:30",
            "null": None,
        }
    ]


def test_parquet_splits_are_row_groups(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": list(range(10))}), tmp_path / "a.parquet", row_group_size=3)
    plan = planned(tmp_path / "a.parquet", 3, offset=4, limit=3)
    assert [(s.first_row, s.rows, s.first_pick, s.selected) for s in plan.splits] == [
        (4, 3, 5, 2),
        (7, 3, 7, 1),
    ]
    assert [row.data for s in plan.splits for row in read_rows(s, None)] == [
        {"n": 4},
        {"n": 5},
        {"n": 6},
    ]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all, no", b"PAR1xxxxxxxxxxPAR1"])
def test_a_corrupt_parquet_file_is_one_clear_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(OptionsError, match="not a readable Parquet file"):
        rows_of(tmp_path / "a.parquet")


def test_an_empty_parquet_file_has_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": pa.array([], pa.int64())}), tmp_path / "a.parquet")
    assert outcomes(tmp_path / "a.parquet") == []


def test_ids_are_text_and_a_row_without_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id":7}\n{"id":"x"}\n{"no":1}\n{"id":1.5}\nbad\n')
    assert [row.id for row in rows_of(path, id_field="id")] == ["7", "x", 3, "1.5", 5]
    assert outcomes(path, id_field="id")[2] == "MissingIdField"


@pytest.mark.parametrize("value", ["null", '""', "true", "[1]", "{}"])
def test_an_unusable_id_is_an_error_that_names_the_row(tmp_path: Path, value: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"id":"a"}}\n{{"id":{value}}}\n')
    with pytest.raises(OptionsError, match="row 2"):
        rows_of(tmp_path / "a.jsonl", id_field="id")


def test_ids_of_rows_that_are_not_selected_may_repeat(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id":"a"}\n{"id":"a"}\n')
    assert [row.id for row in rows_of(tmp_path / "a.jsonl", id_field="id", limit=1)] == ["a"]


@given(
    total=st.integers(0, 60),
    offset=st.integers(0, 70),
    sample=st.none() | st.integers(0, 70),
    limit=st.none() | st.integers(0, 70),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_selection_is_that_of_random_sample_over_pairs(
    tmp_path_factory: pytest.TempPathFactory,
    total: int,
    offset: int,
    sample: int | None,
    limit: int | None,
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("s") / "a.jsonl"
    path.write_text("".join(f'{{"n":{n}}}\n' for n in range(1, total + 1)))
    pairs = list(enumerate(range(1, total + 1)))[offset:]
    if sample is not None and sample < len(pairs):
        pairs = sorted(random.Random(seed).sample(list(enumerate(n for _, n in pairs)), sample))
    expected = [n for _, n in pairs][:limit]
    chosen = rows_of(path, 7, offset=offset, sample=sample, limit=limit, seed=seed)
    assert [row.data for row in chosen] == [{"n": n} for n in expected]
    assert [row.number for row in chosen] == expected


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
_OBJECTS = st.lists(
    st.dictionaries(_TEXT, st.none() | st.booleans() | st.integers() | _TEXT, max_size=3),
    max_size=12,
)


@given(rows=_OBJECTS, size=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_objects_come_back_from_jsonl_in_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], size: int
) -> None:
    path = tmp_path_factory.mktemp("j") / "a.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), newline="")
    found = rows_of(path, size)
    assert [row.data for row in found] == rows
    assert [row.number for row in found] == list(range(1, len(rows) + 1))


@given(rows=st.lists(st.tuples(_TEXT, _TEXT), max_size=12), size=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_strings_come_back_from_csv_and_parquet_in_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], size: int
) -> None:
    import csv

    folder = tmp_path_factory.mktemp("c")
    with (folder / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("a", "b"), *rows])
    table = pa.table({"a": [r[0] for r in rows], "b": [r[1] for r in rows]})
    pq.write_table(table.cast(pa.schema([("a", pa.string()), ("b", pa.string())])),
                   folder / "a.parquet", row_group_size=size)  # fmt: skip
    expected = [{"a": a, "b": b} for a, b in rows]
    assert [row.data for row in rows_of(folder / "a.csv", size)] == expected
    assert [row.data for row in rows_of(folder / "a.parquet", size)] == expected
