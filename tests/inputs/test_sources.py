"""Sources: files, folders, globs and standard input, in every format, each with its outcome."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_batch.cli import main as cli
from beam_batch.errors import InputLost, OptionsError
from beam_batch.inputs import jsonl
from beam_batch.inputs.plan import Plan, plan_rows
from beam_batch.inputs.reading import read_rows
from beam_batch.inputs.selection import sample
from beam_batch.options import SourceSpec
from tests.inputs.test_formats import outcomes, planned, rows_of
from tests.support import beam_batch, command, environment, read_jsonl, write_jsonl

STOP = ("--max-errors", "0")
"""Plans, writes the manifest, and ends with exit 3 before anything is sent."""


def plan_of(folder: Path, *inputs: Path | str, rows_a_split: int = 5000, **source: Any) -> Plan:
    kept = folder / "plan"
    kept.mkdir(parents=True, exist_ok=True)
    return plan_rows(SourceSpec(input=tuple(map(str, inputs)), **source), kept, rows_a_split)


def data_of(plan: Plan, id_field: str | None = None) -> list[Any]:
    rows = [row for split in plan.splits for row in read_rows(split, id_field)]
    assert len(rows) == plan.selected_rows
    return [row.failure.type if row.failure else row.data for row in rows]


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *args: object
) -> str:
    """Run the command line in this process, and return its one line of exit 2."""
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        sys, "argv", ["beam-batch", "run", *map(str, args), "-o", "out.jsonl", "-m", "echo"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == 2, told.err
    assert told.out == ""
    assert told.err.startswith("Error: ")
    assert told.err.count("\n") == 1, told.err
    assert sorted(folder.rglob("*")) == before
    return told.err


def piped(*args: object, cwd: Path, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(*args), env=environment(), cwd=cwd, input=stdin, capture_output=True, timeout=300
    )


def as_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstd}


def test_ndjson_is_jsonl(tmp_path: Path) -> None:
    (tmp_path / "a.NDJSON").write_text('{"a":1}\n{"a":2}\n')
    assert outcomes(tmp_path / "a.NDJSON") == [{"a": 1}, {"a": 2}]


# JSON arrays


def test_a_json_array_keeps_nesting_long_integers_and_floats(tmp_path: Path) -> None:
    rows = [
        {"n": 123456789012345678901234567890, "x": 0.1, "y": 1e300},
        {"list": [1, [2, {"deep": None}]], "item": {"item": [True]}},
        {"text": "caf\u00e9 \U0001f600 \u2028 \n", "": ""},
        {},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=2))
    found = outcomes(tmp_path / "a.json")
    assert json.dumps(found) == json.dumps(rows)


@pytest.mark.parametrize("element", ["1", '"text"', "null", "[1, 2]", "true", "1.5"])
def test_an_element_that_is_no_object_fails_alone(tmp_path: Path, element: str) -> None:
    (tmp_path / "a.json").write_text(f'[{{"a":1}}, {element}, {{"a":3}}]')
    assert outcomes(tmp_path / "a.json") == [{"a": 1}, "InvalidRow", {"a": 3}]


def test_a_number_beyond_floats_in_an_array_fails_its_row_as_in_jsonl(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a":1}, {"a":1e999}, {"a":3}]')
    assert outcomes(tmp_path / "a.json") == [{"a": 1}, "InvalidJSON", {"a": 3}]


@pytest.mark.parametrize("depth", [300, 5_000])
def test_an_element_nested_too_deep_fails_alone(tmp_path: Path, depth: int) -> None:
    (tmp_path / "a.json").write_text('[{"a":1}, {"a":' + "[" * depth + "]" * depth + '}, {"a":3}]')
    assert outcomes(tmp_path / "a.json") == [{"a": 1}, "InvalidJSON", {"a": 3}]


@pytest.mark.parametrize(
    "text",
    ['[{"a":1}, {"a":2}', '[{"a":1}, {"a":', '[{"a":1},', "[", '[{"a":1}] [{"a":2}]'],
)
def test_a_json_array_that_is_cut_off_or_broken_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(OptionsError, match=r"a\.json: .*JSON array"):
        planned(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["", "[]", " \n[ ]\n", "\ufeff[]"])
def test_an_empty_json_file_or_array_has_no_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert outcomes(tmp_path / "a.json") == []


def test_a_json_file_of_lines_is_read_as_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a":1}\nbad\n\n{"a":3}')
    assert outcomes(tmp_path / "a.json") == [{"a": 1}, "InvalidJSON", {"a": 3}]


def test_a_json_array_larger_than_a_block_comes_back_whole(tmp_path: Path) -> None:
    rows = [{"n": n, "text": "x" * 300} for n in range(8_000)]
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode(), 1))
    assert outcomes(tmp_path / "a.json.gz") == rows


# CSV dialects and encodings


def test_tsv_has_tabs_between_its_cells(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('a\tb\n1,5\t"x\ty"\n')
    assert outcomes(tmp_path / "a.tsv") == [{"a": "1,5", "b": "x\ty"}]


def test_the_delimiter_and_the_quote_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a;b\n1;'x;y'\n2;'it''s'\n")
    assert outcomes(tmp_path / "a.csv", csv_delimiter=";", csv_quote="'") == [
        {"a": "1", "b": "x;y"},
        {"a": "2", "b": "it's"},
    ]


def test_a_delimiter_goes_before_the_tab_of_tsv(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a|b\n1|2\n")
    assert outcomes(tmp_path / "a.tsv", csv_delimiter="|") == [{"a": "1", "b": "2"}]


def test_an_empty_quote_leaves_quotes_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('a\tb\n"open\t6" pipe\n""\t"x"\n')
    assert outcomes(tmp_path / "a.tsv", csv_quote="") == [
        {"a": '"open', "b": '6" pipe'},
        {"a": '""', "b": '"x"'},
    ]


def test_the_command_line_knows_tab_by_name_and_no_quote(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a\tb\n1\t"x\n')
    done = beam_batch(
        "run", "-i", "a.csv", "-o", "o.jsonl", "-m", "echo", "-p", "{{a}} {{b}}",
        "--csv-delimiter", "\\t", "--csv-quote", "", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [row["result"] for row in read_jsonl(tmp_path / "o.jsonl")] == ['1 "x']


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252", "utf-8-sig"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json"])
def test_other_encodings_are_read(tmp_path: Path, encoding: str, suffix: str) -> None:
    rows = [{"name": "caf\u00e9", "n": str(n)} for n in range(20_000)]
    if suffix == ".csv":
        text = "name,n\r\n" + "".join(f"{row['name']},{row['n']}\r\n" for row in rows)
    elif suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False)
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / f"a{suffix}").write_bytes(text.encode(encoding))
    assert outcomes(tmp_path / f"a{suffix}", encoding=encoding) == rows


def test_a_byte_that_the_encoding_does_not_know_is_named_by_its_place(tmp_path: Path) -> None:
    place = 3 << 20
    (tmp_path / "a.csv").write_bytes(b"a\n" + b"x" * (place - 2) + b"\x81\n")
    with pytest.raises(OptionsError, match=f"not cp1252 at byte {place + 1}"):
        planned(tmp_path / "a.csv", encoding="cp1252")


@pytest.mark.parametrize("encoding", ["rot13", "base64", "hex", "zip", "no-such"])
def test_an_encoding_that_is_not_of_text_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    encoding: str,
) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    told = refusal(monkeypatch, capsys, tmp_path, "-i", "a.csv", "--encoding", encoding)
    assert f"--encoding {encoding}" in told


def test_the_wrong_encoding_is_refused_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a":1}\n\xff')
    with pytest.raises(OptionsError, match="not utf-16 at byte"):
        planned(tmp_path / "a.jsonl", encoding="utf-16")


def test_lines_of_mixed_encodings_fail_alone(tmp_path: Path) -> None:
    lines = ['{"a":"caf\u00e9"}'.encode(), '{"a":"caf\u00e9"}'.encode("cp1252"), b'{"a":"z"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    assert outcomes(tmp_path / "a.jsonl") == [{"a": "caf\u00e9"}, "InvalidEncoding", {"a": "z"}]


def test_files_of_mixed_encodings_fail_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t\ncaf\u00e9\n")
    (tmp_path / "b.csv").write_bytes("t\ncaf\u00e9\nplain\n".encode("cp1252"))
    plan = plan_of(tmp_path, tmp_path / "a.csv", tmp_path / "b.csv")
    assert data_of(plan) == [{"t": "caf\u00e9"}, "InvalidEncoding", {"t": "plain"}]


def test_nul_bytes_stay_in_csv_and_fail_a_line_of_jsonl(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\nx\x00y,1\n\x00,2\n")
    assert outcomes(tmp_path / "a.csv") == [{"a": "x\x00y", "b": "1"}, {"a": "\x00", "b": "2"}]
    (tmp_path / "a.jsonl").write_bytes(b'{"a":1}\n\x00\x00\x00\n{"a":"\\u0000"}\n\x00{"a":4}\n')
    assert outcomes(tmp_path / "a.jsonl") == [
        {"a": 1},
        "InvalidJSON",
        {"a": "\x00"},
        "InvalidJSON",
    ]


def test_a_csv_of_a_thousand_columns_is_read(tmp_path: Path) -> None:
    names = [f"column {n}" for n in range(1_000)]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *[[f"{r}.{n}" for n in range(1_000)] for r in range(9)]])
    assert outcomes(tmp_path / "a.csv") == [
        {name: f"{r}.{n}" for n, name in enumerate(names)} for r in range(9)
    ]


# Compression


@pytest.mark.parametrize("suffix", list(COMPRESS))
@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".tsv", ".json", ".ndjson"])
def test_compressed_text_is_read(tmp_path: Path, suffix: str, kind: str) -> None:
    text = {
        ".csv": "a,b\n1,x\n2,y\n",
        ".tsv": "a\tb\n1\tx\n2\ty\n",
        ".json": '[{"a":"1","b":"x"},{"a":"2","b":"y"}]',
    }.get(kind, '{"a":"1","b":"x"}\n{"a":"2","b":"y"}')
    path = tmp_path / f"a{kind}{suffix}"
    path.write_bytes(COMPRESS[suffix](text.encode()))
    expected = [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]
    assert outcomes(path) == expected
    assert [row.data for row in rows_of(path, 1)] == expected


@pytest.mark.parametrize("suffix", list(COMPRESS))
def test_members_one_after_another_are_one_file(tmp_path: Path, suffix: str) -> None:
    parts = [COMPRESS[suffix](f'{{"n":{n}}}\n'.encode()) for n in range(5)]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(b"".join(parts))
    assert outcomes(tmp_path / f"a.jsonl{suffix}") == [{"n": n} for n in range(5)]


@pytest.mark.parametrize("suffix", list(COMPRESS))
def test_an_empty_compressed_file_has_no_rows(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.jsonl{suffix}").write_bytes(COMPRESS[suffix](b""))
    assert outcomes(tmp_path / f"a.jsonl{suffix}") == []


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        *((suffix, damage) for suffix in COMPRESS for damage in ("cut", "garbage")),
        *((suffix, "middle") for suffix in (".gz", ".bz2")),  # zstd of pyarrow has no checksums
    ],
)
def test_a_damaged_compressed_file_is_refused_before_anything_is_sent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
    damage: str,
) -> None:
    lines = b"".join(b'{"n":%d}\n' % random.Random(n).getrandbits(64) for n in range(20_000))
    data = COMPRESS[suffix](lines)
    half = len(data) // 2
    data = {
        "cut": data[:-9],
        "garbage": b"this is not compressed at all\n" * 9,
        "middle": data[:half] + bytes(200) + data[half + 200 :],
    }[damage]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(data)
    told = refusal(monkeypatch, capsys, tmp_path, "-i", f"a.jsonl{suffix}")
    assert f"--input a.jsonl{suffix}: cannot be read to its end" in told


def test_a_gzip_that_is_cut_off_ends_the_command_with_exit_2(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"n":1}\n' * 1_000)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    done = beam_batch("run", "-i", "a.jsonl.gz", "-o", "o.jsonl", "-m", "echo", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "a.jsonl.gz: cannot be read to its end" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl.gz"]


# Arrow and Parquet


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather_is_read_batch_by_batch(tmp_path: Path, compression: str) -> None:
    rows = [{"n": n, "text": f"r{n}", "tags": ["x"] * (n % 3)} for n in range(25)]
    path = tmp_path / "a.feather"
    pyarrow.feather.write_feather(
        pa.Table.from_pylist(rows), path, compression=compression, chunksize=10
    )
    assert outcomes(path) == rows
    chosen = rows_of(path, 10, offset=8, limit=4)
    assert [row.number for row in chosen] == [9, 10, 11, 12]
    assert [row.data for row in chosen] == rows[8:12]


def test_an_arrow_file_may_have_empty_batches(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())])
    with pa.ipc.new_file(tmp_path / "a.arrow", schema) as out:
        for values in ([], [1, 2], [], [3], []):
            out.write_batch(pa.record_batch([pa.array(values, pa.int64())], schema=schema))
    assert outcomes(tmp_path / "a.arrow") == [{"n": 1}, {"n": 2}, {"n": 3}]


@pytest.mark.parametrize("data", [b"", b"ARROW1", b"not arrow", b"ARROW1\0\0" + b"x" * 64])
def test_a_corrupt_arrow_file_is_one_clear_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.arrow").write_bytes(data)
    with pytest.raises(OptionsError, match="not a readable Arrow file"):
        planned(tmp_path / "a.arrow")


def test_a_damaged_arrow_batch_is_named_without_a_traceback(tmp_path: Path) -> None:
    table = pa.table({"t": [f"{random.Random(n).getrandbits(200)}" for n in range(3_000)]})
    path = tmp_path / "a.arrow"
    pyarrow.feather.write_feather(table, path, compression="zstd", chunksize=1_000)
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half : half + 20_000] = b"\xff" * 20_000
    path.write_bytes(data)
    done = beam_batch("run", "-i", "a.arrow", "-o", "o.jsonl", "-m", "echo", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 2), done.stderr
    if done.returncode == 0:
        assert sum(row["ok"] for row in read_jsonl(tmp_path / "o.jsonl")) == 2_000
    else:
        assert "a.arrow" in done.stderr


def test_a_parquet_file_with_no_row_groups_makes_an_empty_output(tmp_path: Path) -> None:
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema([("n", pa.int64())])):
        pass
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 0
    done = beam_batch("run", "-i", "a.parquet", "-o", "o.jsonl", "-m", "echo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["input_rows"] == 0
    assert (tmp_path / "o.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\n \r\n\n"),
        ("a.json", b"[]"),
        ("a.csv", b""),
        ("a.csv", b"a,b\r\n"),
        ("a.tsv", b"a\tb"),
    ],
)
def test_an_empty_input_has_no_rows_and_every_selection_of_it_none(
    tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    for selection in ({}, {"limit": 3}, {"sample": 3}, {"offset": 2}):
        plan = planned(tmp_path / name, **selection)
        assert (plan.input_rows, plan.selected_rows, plan.splits) == (0, 0, [])


def test_a_header_only_csv_makes_an_empty_output(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n")
    done = beam_batch("run", "-i", "a.csv", "-o", "o.jsonl", "-m", "echo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.jsonl").read_bytes() == b""


# Long lines, and lines at the borders of a scan's blocks


def test_a_line_of_many_blocks_is_one_row(tmp_path: Path) -> None:
    long = "x" * (2 * jsonl._BLOCK + 12_345)
    write_jsonl(tmp_path / "a.jsonl", [{"a": 1}, {"a": long}, {"a": 3}])
    rows = rows_of(tmp_path / "a.jsonl")
    assert [row.number for row in rows] == [1, 2, 3]
    assert [row.data for row in rows] == [{"a": 1}, {"a": long}, {"a": 3}]
    assert rows_of(tmp_path / "a.jsonl", offset=2)[0].data == {"a": 3}


@pytest.mark.parametrize("shift", range(-3, 3))
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\n \t\n", b""])
def test_line_ends_at_the_border_of_a_block_count_once(
    tmp_path: Path, shift: int, end: bytes
) -> None:
    size = jsonl._BLOCK + shift - len(b'{"a":""}')
    first = b'{"a":"' + b"x" * size + b'"}'
    rest = b'{"a":2}\n{"a":3}' if end else b""
    (tmp_path / "a.jsonl").write_bytes(first + end + rest)
    rows = rows_of(tmp_path / "a.jsonl", 1)
    assert [row.number for row in rows] == ([1, 2, 3] if end else [1])
    assert rows[0].data == {"a": "x" * size}
    assert [row.data for row in rows[1:]] == ([{"a": 2}, {"a": 3}] if end else [])


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_blank_lines_that_fill_blocks_are_no_rows(tmp_path: Path, shift: int) -> None:
    blank = b" " * (jsonl._BLOCK + shift) + b"\r\n"
    (tmp_path / "a.jsonl").write_bytes(blank + b'{"a":1}\n' + blank + b'{"a":2}' + b"\n" + blank)
    assert outcomes(tmp_path / "a.jsonl") == [{"a": 1}, {"a": 2}]


# Folders, globs and several inputs


def test_a_folder_gives_its_data_files_sorted_without_hidden_ones(tmp_path: Path) -> None:
    names = ("b.jsonl", "a.ndjson", "sub/c.jsonl", ".hidden.jsonl", "_SUCCESS", "_x.jsonl",
             ".git/d.jsonl", "_old/e.jsonl", "notes.txt", "sub/d.jsonl.gz")  # fmt: skip
    folder = tmp_path / "data"
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"from": name}).encode() + b"\n"
        path.write_bytes(gzip.compress(line) if name.endswith(".gz") else line)
    found = [row["from"] for row in data_of(plan_of(tmp_path, folder))]
    assert found == ["a.ndjson", "b.jsonl", "sub/c.jsonl", "sub/d.jsonl.gz"]


def test_a_folder_below_a_hidden_one_may_be_named(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "_data"
    folder.mkdir(parents=True)
    write_jsonl(folder / "a.jsonl", [{"a": 1}])
    assert data_of(plan_of(tmp_path, folder)) == [{"a": 1}]


def test_a_folder_without_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("x")
    assert "holds no file" in refusal(monkeypatch, capsys, tmp_path, "-i", "data")


def test_input_format_takes_every_visible_file_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("part-1", "part-0", "_SUCCESS", ".crc"):
        (folder / name).write_text(json.dumps({"from": name}))
    plan = plan_of(tmp_path, folder, input_format="jsonl")
    assert data_of(plan) == [{"from": "part-0"}, {"from": "part-1"}]


def test_a_glob_gives_its_files_sorted_and_deep(tmp_path: Path) -> None:
    for name in ("b1", "a2", "a1", "sub/a0"):
        path = tmp_path / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        write_jsonl(path, [{"from": name}])
    flat = data_of(plan_of(tmp_path, tmp_path / "a*.jsonl"))
    assert [row["from"] for row in flat] == ["a1", "a2"]
    deep = data_of(plan_of(tmp_path, f"{tmp_path}/**/a?.jsonl"))
    assert [row["from"] for row in deep] == ["a1", "a2", "sub/a0"]
    with pytest.raises(OptionsError, match="no file matches"):
        plan_of(tmp_path, tmp_path / "z*.jsonl")


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a[1].jsonl", [{"a": 1}])
    write_jsonl(tmp_path / "a1.jsonl", [{"a": 2}])
    assert data_of(plan_of(tmp_path, tmp_path / "a[1].jsonl")) == [{"a": 1}]


def test_repeated_inputs_keep_their_order_and_number_rows_through(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "z.jsonl", [{"n": 1}, {"n": 2}])
    (tmp_path / "a.csv").write_text("n\n3\n")
    (tmp_path / "e.jsonl").write_text("")
    pq.write_table(pa.table({"n": [4, 5]}), tmp_path / "m.parquet")
    args = [arg for name in ("z.jsonl", "a.csv", "e.jsonl", "m.parquet") for arg in ("-i", name)]
    done = beam_batch("run", *args, "-o", "o.jsonl", "-m", "echo", "-p", "{{n}}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [(row["row_number"], row["result"]) for row in read_jsonl(tmp_path / "o.jsonl")]
    assert found == [(n, str(n)) for n in range(1, 6)]


@pytest.mark.parametrize(
    "again", ["a.jsonl", "./a.jsonl", "../{name}/a.jsonl", "*.jsonl", "file://{path}", "sub/.."]
)
def test_the_same_file_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], again: str
) -> None:
    folder = tmp_path / "rows"
    (folder / "sub").mkdir(parents=True)
    write_jsonl(folder / "a.jsonl", [{"a": 1}])
    second = again.format(name=folder.name, path=folder / "a.jsonl")
    if again == "sub/..":
        monkeypatch.chdir(folder)
        with pytest.raises(OptionsError, match="twice"):
            plan_of(tmp_path, "a.jsonl", second)
        return
    assert "twice" in refusal(monkeypatch, capsys, folder, "-i", "a.jsonl", "-i", second)


def test_a_file_url_is_a_file_and_is_not_overwritten_by_its_own_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_jsonl(tmp_path / "out.jsonl", [{"a": 1}])
    assert data_of(plan_of(tmp_path / "p", f"file://{path}")) == [{"a": 1}]
    told = refusal(
        monkeypatch, capsys, tmp_path, "-i", f"file://{path}", "--overwrite"
    )  # writes to out.jsonl
    assert "same file as --input" in told


def test_files_with_other_columns_are_named_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,x\n")
    (tmp_path / "b.csv").write_text("text,id\ny,2\n")
    (tmp_path / "c.csv").write_text("id,lang\n3,en\n")
    pq.write_table(pa.table({"id": ["4"], "text": ["z"], "more": [1]}), tmp_path / "d.parquet")
    done = beam_batch(
        "run", "-i", "a.csv", "-i", "b.csv", "-i", "c.csv", "-i", "d.parquet", "-o", "o.jsonl",
        "-m", "echo", "-p", "{{id}}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if "compared with" in line]
    assert notes == [
        "batch: c.csv lacks text and has lang besides, compared with a.csv",
        "batch: d.parquet has more besides, compared with a.csv",
    ]
    assert [row["result"] for row in read_jsonl(tmp_path / "o.jsonl")] == ["1", "2", "3", "4"]


def test_an_unknown_suffix_asks_for_input_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rows.txt", "rows", "rows.gz", "rows.jsonl.zip"):
        (tmp_path / name).write_text('{"a":1}\n')
        told = refusal(monkeypatch, capsys, tmp_path, "-i", name)
        assert f"--input {name}: unknown suffix" in told
        assert "--input-format" in told
    assert outcomes(tmp_path / "rows.txt", input_format="jsonl") == [{"a": 1}]
    (tmp_path / "rows.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert outcomes(tmp_path / "rows.gz", input_format="csv") == [{"a": "1", "b": "2"}]


def test_input_format_goes_before_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("a,b\n1,2\n")
    assert outcomes(tmp_path / "a.jsonl", input_format="csv") == [{"a": "1", "b": "2"}]


def test_a_compressed_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(OptionsError, match="decompress it first"):
        planned(tmp_path / "a.parquet.gz")


# Standard input


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("jsonl", b'{"n":1}\n\n{"n":2}\n{"n":3}'),
        ("json", b'[{"n":1},{"n":2},{"n":3}]'),
        ("csv", b"n\r\n1\r\n2\r\n3\r\n"),
    ],
)
def test_a_stopped_run_over_standard_input_goes_on_without_it(
    tmp_path: Path, kind: str, data: bytes
) -> None:
    args = ("run", "-i", "-", "--input-format", kind, "-o", "o.jsonl", "-m", "echo", "-p", "{{n}}")
    stopped = piped(*args, *STOP, cwd=tmp_path, stdin=data)
    assert stopped.returncode == 3, stopped.stderr
    done = piped(*args, "--resume", cwd=tmp_path, stdin=b"")
    assert done.returncode == 0, done.stderr
    found = [(row["row_number"], row["result"]) for row in read_jsonl(tmp_path / "o.jsonl")]
    assert found == [(1, "1"), (2, "2"), (3, "3")]
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".batch")] == []


def test_standard_input_needs_a_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--input-format" in refusal(monkeypatch, capsys, tmp_path, "-i", "-")


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_standard_input_of_parquet_or_arrow_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    as_stdin(monkeypatch, b"PAR1")
    told = refusal(monkeypatch, capsys, tmp_path, "-i", "-", "--input-format", kind)
    assert "--input -" in told
    assert "No such file" not in told


def test_standard_input_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    as_stdin(monkeypatch, b"{}")
    args = ("-i", "-", "-i", "-", "--input-format", "jsonl")
    assert "twice" in refusal(monkeypatch, capsys, tmp_path, *args)


def test_a_closed_standard_input_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as after <&-
    told = refusal(monkeypatch, capsys, tmp_path, "-i", "-", "--input-format", "jsonl")
    assert "--input -" in told


def test_an_empty_standard_input_has_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_stdin(monkeypatch, b"")
    assert data_of(plan_of(tmp_path, "-", input_format="csv")) == []


# Changes of a file


def changed_resume(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    return beam_batch("run", "-i", name, "-o", "o.jsonl", "-m", "echo", "--resume", cwd=folder)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.jsonl.gz"])
def test_a_file_that_has_changed_is_refused_on_resume(tmp_path: Path, name: str) -> None:
    def write(words: Sequence[str]) -> None:
        lines = "".join(json.dumps({"t": word}) + "\n" for word in words).encode()
        if name.endswith(".parquet"):
            pq.write_table(pa.table({"t": words}), tmp_path / name)
        else:
            (tmp_path / name).write_bytes(gzip.compress(lines) if ".gz" in name else lines)

    write(["one", "two"])
    args = ("run", "-i", name, "-o", "o.jsonl", "-m", "echo")
    assert beam_batch(*args, *STOP, cwd=tmp_path).returncode == 3
    write(["one", "TWO"])
    os.utime(tmp_path / name, ns=(10**18, 10**18))
    done = changed_resume(tmp_path, name)
    assert done.returncode == 2, done.stderr
    assert f"the input has changed since the run was planned: {name}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o.jsonl").exists()


def test_a_file_that_was_merely_touched_is_accepted_on_resume(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"n": n} for n in range(3)])
    pq.write_table(pa.table({"n": [3, 4]}), tmp_path / "b.parquet")
    args = ("run", "-i", "a.jsonl", "-i", "b.parquet", "-o", "o.jsonl", "-m", "echo", "-p", "{{n}}")
    assert beam_batch(*args, *STOP, cwd=tmp_path).returncode == 3
    for name in ("a.jsonl", "b.parquet"):
        os.utime(tmp_path / name, ns=(10**18, 10**18))
    done = beam_batch(*args, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["result"] for row in read_jsonl(tmp_path / "o.jsonl")] == list("01234")


def test_a_file_that_is_gone_is_named_on_resume(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"n": 1}])
    args = ("run", "-i", "a.jsonl", "-o", "o.jsonl", "-m", "echo")
    assert beam_batch(*args, *STOP, cwd=tmp_path).returncode == 3
    (tmp_path / "a.jsonl").unlink()
    done = changed_resume(tmp_path, "a.jsonl")
    assert done.returncode == 2, done.stderr
    assert "a.jsonl (gone)" in done.stderr


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_file_that_changes_before_it_is_read_loses_the_input(tmp_path: Path, name: str) -> None:
    def write(words: list[str]) -> None:
        if name.endswith(".parquet"):
            pq.write_table(pa.table({"t": words}), tmp_path / name)
        elif name.endswith(".csv"):
            (tmp_path / name).write_text("t\n" + "\n".join(words))
        else:
            write_jsonl(tmp_path / name, [{"t": word} for word in words])

    write(["one", "two", "three"])
    split = planned(tmp_path / name).splits[0]
    write(["other"])
    with pytest.raises(InputLost, match="has changed"):
        list(read_rows(split, None))
    (tmp_path / name).unlink()
    with pytest.raises(InputLost, match="is gone"):
        list(read_rows(split, None))


def test_a_file_that_changes_while_it_is_read_loses_the_input(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"t": "x" * 100}] * 50_000)
    rows = read_rows(planned(path, 100_000).splits[0], None)
    assert next(rows).number == 1
    write_jsonl(path, [{"t": "y" * 100}] * 50_000)
    os.utime(path, ns=(10**18, 10**18))
    with pytest.raises(InputLost, match="has changed"):
        list(rows)


# Ids


def test_ids_choose_rows_in_input_order(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": f"r{n}", "n": n} for n in range(1, 9)])
    (tmp_path / "ids").write_text("r7\r\n\n r2 \nr5\nr2\n", newline="")
    chosen = rows_of(path, 3, id_field="id", ids=str(tmp_path / "ids"))
    assert [(row.number, row.id) for row in chosen] == [(2, "r2"), (5, "r5"), (7, "r7")]
    fewer = rows_of(path, 3, id_field="id", ids=str(tmp_path / "ids"), offset=1, limit=1)
    assert [row.id for row in fewer] == ["r5"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".arrow", ".jsonl.gz"])
def test_ids_without_an_id_field_are_row_numbers(tmp_path: Path, suffix: str) -> None:
    path, rows = tmp_path / f"a{suffix}", [{"n": str(n)} for n in range(1, 9)]
    table = pa.Table.from_pylist(rows)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if suffix == ".parquet":
        pq.write_table(table, path, row_group_size=3)
    elif suffix == ".arrow":
        pyarrow.feather.write_feather(table, path, compression="zstd")
    elif suffix == ".csv":
        path.write_text("n\n" + "".join(f"{n}\n" for n in range(1, 9)))
    else:
        path.write_bytes(gzip.compress(lines) if suffix.endswith(".gz") else lines)
    (tmp_path / "ids").write_text("8\n3\n4\n")
    chosen = rows_of(path, 3, ids=str(tmp_path / "ids"))
    assert [(row.number, row.data) for row in chosen] == [(n, {"n": str(n)}) for n in (3, 4, 8)]


def test_a_bad_row_can_be_listed_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n":1}\nbad\n{"n":3}\n')
    (tmp_path / "ids").write_text("2\n")
    assert outcomes(tmp_path / "a.jsonl", ids=str(tmp_path / "ids")) == ["InvalidJSON"]


@pytest.mark.parametrize("more", [(), ("--id-field", "id")])
def test_an_id_that_is_not_in_the_input_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"id": "1"}, {"id": "2"}])
    (tmp_path / "ids").write_text("2\n3\nnobody\n")
    told = refusal(monkeypatch, capsys, tmp_path, "-i", "a.jsonl", "--ids", "ids", *more)
    assert "2 of 3 ids are not in the input, such as 3, nobody" in told
    told = refusal(monkeypatch, capsys, tmp_path, "-i", "a.jsonl", "--ids", "none", *more)
    assert "--ids none: cannot be read" in told


def test_an_empty_list_of_ids_chooses_nothing(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"id": "1"}])
    (tmp_path / "ids").write_text("\n")
    assert outcomes(tmp_path / "a.jsonl", id_field="id", ids=str(tmp_path / "ids")) == []


def test_repeated_ids_among_the_listed_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"id": "1"}, {"id": "2"}, {"id": "2"}])
    (tmp_path / "ids").write_text("2\n")
    with pytest.raises(OptionsError, match="is the id of rows 2 and 3"):
        planned(tmp_path / "a.jsonl", id_field="id", ids=str(tmp_path / "ids"))


# Selection


@given(population=st.integers(0, 400), share=st.floats(0, 1), seed=st.integers(0, 2**64))
@settings(max_examples=200, deadline=None)
def test_a_sample_is_that_of_cpython(population: int, share: float, seed: int) -> None:
    count = int(population * share)
    expected = sorted(random.Random(seed).sample(range(population), count))
    assert sample(population, count, seed).tolist() == expected


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 21, 22, 85, 86, 341, 342, 1365])
@pytest.mark.parametrize("around", [-1, 0, 1, 2])
def test_a_sample_is_that_of_cpython_where_its_method_changes(count: int, around: int) -> None:
    from beam_batch.inputs.selection import _set_size

    population = max(count, _set_size(count) + around)
    for seed in (0, 7):
        expected = sorted(random.Random(seed).sample(range(population), count))
        assert sample(population, count, seed).tolist() == expected


def test_a_sample_of_many_rows_is_that_of_cpython() -> None:
    for population, count in ((200_000, 3), (200_000, 150_000), (1_000_000, 100)):
        expected = sorted(random.Random(3).sample(range(population), count))
        assert sample(population, count, 3).tolist() == expected


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".jsonl.gz"])
def test_the_same_seed_chooses_the_same_rows_in_every_format(tmp_path: Path, suffix: str) -> None:
    path, rows = tmp_path / f"a{suffix}", [{"n": n} for n in range(1, 301)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=37)
    else:
        path.write_bytes(gzip.compress(lines) if suffix.endswith(".gz") else lines)
    pairs = list(enumerate(range(6, 301)))
    expected = [n for _, n in sorted(random.Random(11).sample(pairs, 40))][:25]
    chosen = rows_of(path, 50, offset=5, sample=40, seed=11, limit=25)
    assert [row.number for row in chosen] == expected
    assert [row.data for row in chosen] == [{"n": n} for n in expected]


def big_lines(count: int, width: int) -> bytes:
    return b"".join(b'{"n":%d,"x":"%s"}\n' % (n, b"x" * width) for n in range(1, count + 1))


def copied(plan: Plan) -> int:
    """Return the bytes of the copy that a plan's only source is."""
    assert Path(plan.sources[0].path).parent.name == "copies"
    return os.path.getsize(plan.sources[0].path)


@pytest.mark.parametrize("width", [60, 400, 5_000])
def test_a_limit_counts_no_further_than_it_needs(tmp_path: Path, width: int) -> None:
    (tmp_path / "a.jsonl").write_bytes(big_lines(12_000_000 // (width + 20), width))
    plan = planned(tmp_path / "a.jsonl", 100, limit=3, offset=2)
    assert plan.input_rows is None
    assert [row["n"] for row in data_of(plan)] == [3, 4, 5]


@pytest.mark.parametrize("width", [60, 400, 2_000])
@pytest.mark.parametrize("origin", ["gz", "stdin"])
def test_a_limit_copies_only_the_front_of_compressed_and_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, origin: str
) -> None:
    data = big_lines(12_000_000 // (width + 20), width)
    if origin == "gz":
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data, 1))
        plan = plan_of(tmp_path, tmp_path / "a.jsonl.gz", limit=3, offset=2)
    else:
        as_stdin(monkeypatch, data)
        plan = plan_of(tmp_path, "-", input_format="jsonl", limit=3, offset=2)
    assert [row["n"] for row in data_of(plan)] == [3, 4, 5]
    assert copied(plan) < len(data) // 2
    assert plan.input_rows is None


def test_a_limit_leaves_input_rows_open_in_the_summary(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(big_lines(20_000, 400), 1))
    args = ("run", "-i", "a.jsonl.gz", "-o", "o.jsonl", "-m", "echo", "-p", "{{n}}", "--limit", "3")
    done = beam_batch(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["selected_rows"] == 3
    assert summary["input_rows"] is None
    assert [row["result"] for row in read_jsonl(tmp_path / "o.jsonl")] == ["1", "2", "3"]


def test_files_behind_a_limit_are_not_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"n": n} for n in range(5)])
    (tmp_path / "b.jsonl.gz").write_bytes(b"never opened")
    plan = plan_of(tmp_path, tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz", limit=5)
    assert data_of(plan) == [{"n": n} for n in range(5)]
    assert plan.input_rows is None


@pytest.mark.parametrize("origin", ["gz", "stdin"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_limit_finds_its_rows_behind_many_lines_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str, kind: str
) -> None:
    if kind == "jsonl":
        data = b'{"n":"1"}\n' + b"\n" * (3 << 20) + b'{"n":"2"}\n{"n":"3"}\n'
        expected = [{"n": "1"}, {"n": "2"}]
    else:
        cell = "line\n" * 400_000
        data = f'n\n"{cell}"\n"{cell}"\n2\n'.encode()
        expected = [{"n": cell}, {"n": cell}]
    if origin == "gz":
        (tmp_path / f"a.{kind}.gz").write_bytes(gzip.compress(data, 1))
        plan = plan_of(tmp_path, tmp_path / f"a.{kind}.gz", limit=2)
    else:
        as_stdin(monkeypatch, data)
        plan = plan_of(tmp_path, "-", input_format=kind, limit=2)
    assert plan.selected_rows == 2
    assert data_of(plan) == expected
